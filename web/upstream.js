// @ts-check
/** Which files reach a node, by walking the graph's links towards their sources. Works on the front end's live graph. */

import { DEFAULT_CHOICE, memberName } from "./table.js";
import { t } from "./texts.js";

/** @typedef {import("./table.js").Choice} Choice */
/**
 * @typedef {Choice | {gains: string}} Step  of a Select Atoms or a Scale Atoms node
 * @typedef {{file: string, chain: Step[]} | {parts: {name: string, source: Source}[], chain: Step[]} | {missing: string}} Source
 * A file, several composed ones, or why neither is known. `chain`: what the nodes on the way take out, the first ones first.
 */

const TYPE = "SPARSE_DICT";
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
    case "SparseDictTrain":
      return { missing: t("The dictionary is trained when this runs. Its atoms appear here once its file is loaded with Load Sparse Dict.") };
    default:
      // Probe Atoms, a reroute: the same atoms go through.
      return sourceOf(origin, origin.inputs?.find((/** @type {any} */ each) => each.type === TYPE || each.type === "*"), far + 1);
  }
}

/** @param {Source} source */
function nameOf(source) {
  if ("file" in source) return source.file.replace(/^.*[\\/]/, "").replace(/\.[^.]*$/, "");
  return "parts" in source ? source.parts.map((part) => part.name).join("_") : "";
}

/** All files that a source needs. @param {Source} source @returns {string[]} */
export function filesOf(source) {
  if ("file" in source) return [source.file];
  return "parts" in source ? source.parts.flatMap((part) => filesOf(part.source)) : [];
}
