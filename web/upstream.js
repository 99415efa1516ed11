// @ts-check
/** Which files reach a node, by walking the graph's links towards their sources. Works on the front end's live graph. */

import { DEFAULT_CHOICE, memberName } from "./table.js";
import { t } from "./texts.js";

/** @typedef {import("./table.js").Choice} Choice */
/**
 * @typedef {Choice | {gains: string}} Step  of a Select Atoms or a Scale Atoms node
 * @typedef {{filename: string, subfolder: string, type: string}} Saved  a file that a node has left in one of the host's folders
 * @typedef {{file: string, chain: Step[]} | {parts: {name: string, source: Source}[], chain: Step[]} | {probed: Saved, before: Source, chain: Step[]}
 *   | {missing: string}} Source
 * A file, several composed ones, what a probe has found out (and what is before it), or why none is known. `chain`: what the nodes on the
 * way take out, the first ones first; after a probe, only those after it.
 */

const TYPE = "SPARSE_DICT", MODEL = "MODEL";
const FAR = 50; // nodes; a longer way is a loop

/** @param {any} node @param {string} name */
export function widgetValue(node, name) {
  return node.widgets?.find((/** @type {any} */ widget) => widget.name === name)?.value;
}

/** The widgets of a Select Atoms node. @param {any} node @returns {Choice} */
export function choiceOf(node) {
  const choice = /** @type {any} */ ({ ...DEFAULT_CHOICE });
  for (const name of Object.keys(DEFAULT_CHOICE)) {
    const value = widgetValue(node, name);
    if (value !== undefined) choice[name] = value;
  }
  return choice;
}

/** Names of the widgets whose value comes over a link. @param {any} node @returns {string[]} */
export function linkedWidgets(node) {
  return (node.inputs ?? []).filter((/** @type {any} */ input) => input.widget && input.link != null).map((/** @type {any} */ input) => input.widget.name);
}

/** The node before an input, over reroutes. @param {any} node @param {any} input */
function before(node, input) {
  const graph = node.graph, link = input?.link == null ? null : graph?.links?.get?.(input.link) ?? graph?.links?.[input.link];
  return link ? graph.getNodeById(link.origin_id) : null;
}

/** Where the dictionary of an input comes from. @param {any} node @param {any} [input] @param {number} [far] @returns {Source} */
export function sourceOf(node, input, far = 0) {
  input ??= node.inputs?.find((/** @type {any} */ each) => each.type === TYPE);
  if (input?.link == null) return { missing: "" };
  const origin = before(node, input);
  if (!origin || far > FAR) return { missing: t("The dictionary comes from outside of this graph; its atoms are known once it runs.") };
  switch (origin.type) {
    case "SparseDictLoad": {
      if (linkedWidgets(origin).includes("file")) return { missing: t("The file's name comes over a link; its atoms are known once it runs.") };
      const file = widgetValue(origin, "file");
      return file ? { file: String(file), chain: [] } : { missing: t("No file is chosen in Load Sparse Dict.") };
    }
    case "SparseDictSelectAtoms": {
      const source = sourceOf(origin, undefined, far + 1);
      return "missing" in source ? source : { ...source, chain: [...source.chain, choiceOf(origin)] };
    }
    case "SparseDictScaleAtoms": {
      const source = sourceOf(origin, undefined, far + 1);
      if ("missing" in source || linkedWidgets(origin).includes("gains")) return source;
      return { ...source, chain: [...source.chain, { gains: String(widgetValue(origin, "gains") ?? "") }] };
    }
    case "SparseDictCompose": {
      const parts = [];
      /** @type {string[]} */
      const taken = [];
      for (const each of origin.inputs ?? []) {
        if (each.type !== TYPE || each.link == null) continue;
        const source = sourceOf(origin, each, far + 1);
        if ("missing" in source) return source;
        const name = memberName(nameOf(source), taken);
        taken.push(name);
        parts.push({ name, source });
      }
      return parts.length ? { parts, chain: [] } : { missing: "" };
    }
    case "SparseDictProbe": {
      const known = beforeProbe(origin, far + 1), probed = origin.sparsedictProbed;
      return probed?.before === JSON.stringify(known) ? { probed: probed.saved, before: known, chain: [] } : known;
    }
    case "SparseDictTrain":
      return { missing: t("The dictionary is trained when this runs. Its atoms appear here once its file is loaded with Load Sparse Dict.") };
    default:
      // As a reroute: the same atoms go through.
      return sourceOf(origin, origin.inputs?.find((/** @type {any} */ each) => each.type === TYPE || each.type === "*"), far + 1);
  }
}

/** The dictionary that a Probe Atoms node watches, which reaches it on the model. @param {any} probe @param {number} [far] @returns {Source} */
export function beforeProbe(probe, far = 0) {
  const applied = appliedBefore(probe, far), which = Number(widgetValue(probe, "which") ?? -1);
  return applied[which > 0 ? which - 1 : applied.length + which] ?? { missing: "" };
}

/** The dictionaries on a node's model, first ones first. @param {any} node @param {number} far @returns {Source[]} */
function appliedBefore(node, far) {
  const origin = before(node, node.inputs?.find((/** @type {any} */ each) => each.type === MODEL || each.type === "*"));
  if (!origin || far > FAR) return [];
  const earlier = appliedBefore(origin, far + 1);
  if (origin.type === "SparseDictApply") return [...earlier, sourceOf(origin, undefined, far + 1)];
  if (origin.type !== "SparseDictLoader") return earlier;
  if (linkedWidgets(origin).includes("file")) return [...earlier, { missing: t("The file's name comes over a link; its atoms are known once it runs.") }];
  const file = String(widgetValue(origin, "file") ?? ""), share = Number(widgetValue(origin, "share") ?? 1);
  return [...earlier, { file, chain: share < 1 ? [{ ...DEFAULT_CHOICE, mode: "share", share }] : [] }];
}

/** @param {Source} source */
function nameOf(source) {
  if ("probed" in source) return nameOf(source.before);
  if ("file" in source) return source.file.replace(/^.*[\\/]/, "").replace(/\.[^.]*$/, "");
  return "parts" in source ? source.parts.map((part) => part.name).join("_") : "";
}

/** All files that a source needs. @param {Source} source @returns {string[]} */
export function filesOf(source) {
  if ("file" in source) return [source.file];
  if ("probed" in source) return filesOf(source.before);
  return "parts" in source ? source.parts.flatMap((part) => filesOf(part.source)) : [];
}
