// @ts-check
/** Which files reach a node, by walking the graph's links towards their sources. Works on the front end's live graph. */

import { waitsForRun } from "./linked_choice.js";
import { originOf, placesOf, valueAt } from "./links.js";
import { DEFAULT_CHOICE, memberName } from "./table.js";
import { t } from "./texts.js";

/** @typedef {import("./table.js").Choice} Choice @typedef {import("./links.js").Place} Place */
/**
 * @typedef {Choice | {gains: string}} Step  of a Select Atoms or a Scale Atoms node
 * @typedef {{filename: string, subfolder: string, type: string}} Saved  a file that a node has left in one of the host's folders
 * @typedef {{file: string, chain: Step[]} | {parts: {name: string, source: Source}[], chain: Step[]} | {probed: Saved, before: Source, chain: Step[]}
 *   | {left: Saved, name: string, chain: Step[]} | {missing: string}} Source
 * A file, several composed ones, what a probe has found out (and what is before it), what a node has left of a LoRA, or why none is known. `chain`: what the nodes on the
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

/** @param {any} node @param {string} type */
function inputFor(node, type) {
  const inputs = node.inputs ?? [];
  return inputs.find((/** @type {any} */ each) => each.type === type) ?? inputs.find((/** @type {any} */ each) => each.type === "*");
}

/** @returns {Source} */
function unknown() {
  return { missing: t("This graph does not tell which file the dictionary comes from; its atoms are known once it runs.") };
}

/** @returns {Source} */
function overLink() {
  return { missing: t("A node before this one depends on a value that comes over a link; the atoms are known once it runs.") };
}

/** @returns {Source} */
function severalUses() {
  return { missing: t("This subgraph is used several times with different dictionaries, so its atoms are known only once it runs.") };
}

/** Where the dictionary of a node comes from. @param {any} node @returns {Source} */
export function sourceOf(node) {
  return same(placesOf(node).map((place) => sourceAt(place)));
}

/** In a subgraph that is used several times: what all uses have in common. @param {Source[]} sources @returns {Source} */
function same(sources) {
  return sources.every((source) => JSON.stringify(source) === JSON.stringify(sources[0])) ? sources[0] : severalUses();
}

/** @param {Place} place @param {any} [input] @param {number} [far] @returns {Source} */
function sourceAt(place, input = inputFor(place.node, TYPE), far = 0) {
  const before = originOf(place, input, TYPE);
  if (!before) return { missing: "" };
  if (before === "outside" || far > FAR) return unknown();
  const origin = before.node, linked = linkedWidgets(origin);
  switch (origin.type) {
    case "SparseDictLoad": {
      const file = valueAt(before, "file");
      if (file === undefined && linked.includes("file")) return { missing: t("The file's name comes over a link; its atoms are known once it runs.") };
      return file ? { file: String(file), chain: [] } : { missing: t("No file is chosen in Load Sparse Dict.") };
    }
    case "SparseDictSelectAtoms": {
      const source = sourceAt(before, undefined, far + 1), choice = choiceOf(origin);
      if ("missing" in source) return source;
      return waitsForRun(choice.mode, linked) ? overLink() : { ...source, chain: [...source.chain, choice] };
    }
    case "SparseDictScaleAtoms": {
      const source = sourceAt(before, undefined, far + 1);
      if ("missing" in source || linked.includes("gains")) return source;
      return { ...source, chain: [...source.chain, { gains: String(widgetValue(origin, "gains") ?? "") }] };
    }
    case "SparseDictCompose": {
      const parts = [];
      /** @type {string[]} */
      const taken = [];
      for (const each of origin.inputs ?? []) {
        if (each.type !== TYPE || !originOf(before, each, TYPE)) continue;
        const source = sourceAt(before, each, far + 1);
        if ("missing" in source) return source;
        const name = memberName(nameOf(source), taken);
        taken.push(name);
        parts.push({ name, source });
      }
      return parts.length ? { parts, chain: [] } : { missing: "" };
    }
    case "SparseDictProbe": {
      const known = probedAt(before, far + 1), probed = origin.sparsedictProbed;
      return probed?.before === JSON.stringify(known) ? { probed: probed.saved, before: known, chain: [] } : known;
    }
    case "SparseDictFromLora": {
      // Of a run with this LoRA; another one is taken apart at the next.
      const taken = origin.sparsedictTaken;
      if (!taken || linked.includes("lora") || taken.lora !== widgetValue(origin, "lora")) return { missing: t("The LoRA is taken apart when this runs. Its atoms appear here then.") };
      return { left: { filename: taken.filename, subfolder: taken.subfolder, type: taken.type }, name: taken.name, chain: [] };
    }
    case "SparseDictTrain":
      // Of a run of before, until it trains again.
      return origin.sparsedictTrained ? { file: origin.sparsedictTrained, chain: [] } : { missing: t("The dictionary is trained when this runs. Its atoms appear here then.") };
    default: {
      // As a reroute: the same atoms go through.
      const through = inputFor(origin, TYPE);
      return through ? sourceAt(before, through, far + 1) : unknown();
    }
  }
}

/** The dictionary that a Probe Atoms node watches, which reaches it on the model. @param {any} probe @returns {Source} */
export function beforeProbe(probe) {
  return same(placesOf(probe).map((place) => probedAt(place, 0)));
}

/** @param {Place} place @param {number} far @returns {Source} */
function probedAt(place, far) {
  if (linkedWidgets(place.node).includes("which")) return overLink();
  const { applied, all } = appliedBefore(place, far), which = Number(widgetValue(place.node, "which") ?? -1);
  if (which > 0 && !all) return unknown();
  return applied[which > 0 ? which - 1 : applied.length + which] ?? (all ? { missing: "" } : unknown());
}

/** The dictionaries on a node's model, first ones first; not `all` of them where the model comes from outside. @param {Place} place @param {number} far @returns {{applied: Source[], all: boolean}} */
function appliedBefore(place, far) {
  const before = originOf(place, inputFor(place.node, MODEL), MODEL);
  if (!before) return { applied: [], all: true };
  if (before === "outside" || far > FAR) return { applied: [], all: false };
  const { applied, all } = appliedBefore(before, far + 1), adds = addedBy(before, far);
  return { applied: adds ? [...applied, adds] : applied, all };
}

/** What a node puts on its model. @param {Place} place @param {number} far @returns {Source | null} */
function addedBy(place, far) {
  const { node } = place, linked = linkedWidgets(node);
  if (node.type === "SparseDictApply") return sourceAt(place, undefined, far + 1);
  if (node.type !== "SparseDictLoader") return null;
  const file = valueAt(place, "file"), given = valueAt(place, "share");
  if (file === undefined && linked.includes("file")) return { missing: t("The file's name comes over a link; its atoms are known once it runs.") };
  if (given === undefined && linked.includes("share")) return overLink();
  const share = Number(given ?? 1);
  return { file: String(file ?? ""), chain: share < 1 ? [{ ...DEFAULT_CHOICE, mode: "share", share }] : [] };
}

/** @param {Source} source */
function nameOf(source) {
  if ("probed" in source) return nameOf(source.before);
  if ("left" in source) return source.name;
  if ("file" in source) return source.file.replace(/^.*[\\/]/, "").replace(/\.[^.]*$/, "");
  return "parts" in source ? source.parts.map((part) => part.name).join("_") : "";
}

/** All files that a source needs. @param {Source} source @returns {string[]} */
export function filesOf(source) {
  if ("file" in source) return [source.file];
  if ("probed" in source) return filesOf(source.before);
  return "parts" in source ? source.parts.flatMap((part) => filesOf(part.source)) : [];
}
