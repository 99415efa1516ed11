// @ts-check
/** The prompt's tags, read and written as sparsedict_core/prompt_tags.py reads them. No DOM here. */

import { formatMask } from "../web/addresses.js";
import { select, selectionOf } from "../web/selection.js";
import { DEFAULT_CHOICE } from "../web/table.js";

/** @typedef {import("../web/table.js").Choice} Choice @typedef {import("../web/table.js").Table} Table */
/** @typedef {{name: string, strength: number, options: Record<string, string>, from: number, to: number}} Tag  `from` and `to` are its place in the prompt */

const TAG = /<sparsedict:([^<>]*)>/g;
const NUMBER = /^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?$/i; // as the parser in Python reads it
const ADDRESSES = ["atoms", "layers", "gain"];
const BETWEEN = /,\s*(?=(?:[A-Za-z_][\w.-]*:)?L\d)/gi; // addresses, never within a bracket
const PLUS = /\+(?=(?:[A-Za-z_][\w.-]*:)?L\d)/gi;

/** @param {string} prompt @returns {Tag[]} */
export function tagsIn(prompt) {
  return [...prompt.matchAll(TAG)].map((found) => {
    const [name, ...parts] = found[1].split(":").map((part) => part.trim());
    /** @type {Record<string, string>} */
    const options = {};
    let strength = 1, last = "";
    parts.forEach((part, place) => {
      const option = /^([A-Za-z_]+)=(.*)$/s.exec(part);
      if (option) options[(last = option[1].toLowerCase())] = option[2].trim();
      else if (ADDRESSES.includes(last)) options[last] += `:${part}`; // a member's address
      else if (place === 0 && NUMBER.test(part.trim())) strength = Number(part);
    });
    return { name, strength, options, from: found.index, to: found.index + found[0].length };
  });
}

/** @param {{name: string, strength: number, options: Record<string, string>}} tag */
export function tagText({ name, strength, options }) {
  const rest = Object.entries(options).map(([key, value]) => `:${key}=${value}`).join("");
  return `<sparsedict:${name}:${Number(strength.toPrecision(4))}${rest}>`;
}

/** The prompt with a tag in the place of `old`, or at its end. @param {string} prompt @param {string} text @param {Tag | null} old */
export function withTag(prompt, text, old) {
  if (old) return prompt.slice(0, old.from) + text + prompt.slice(old.to);
  return `${prompt}${prompt && !prompt.endsWith(" ") ? " " : ""}${text}`;
}

/** @param {string} prompt @param {Tag} tag */
export function without(prompt, tag) {
  const before = prompt.slice(0, tag.from), after = prompt.slice(tag.to);
  return before.endsWith(" ") && (!after || after.startsWith(" ")) ? before.slice(0, -1) + after : before + after;
}

/** What a tag keeps, as the selector's choice. @param {Record<string, string>} options @returns {Choice} */
export function choiceOf({ keep, top, atoms, layers }) {
  const choice = { ...DEFAULT_CHOICE, layers: layers ? layers.replace(PLUS, ", ") : "" };
  if (atoms) return { ...choice, mode: "addresses", atoms: atoms.replace(PLUS, ", ") };
  if (top) return { ...choice, mode: "top", top: Number(top) };
  return keep ? { ...choice, share: Number(keep.replace(/%$/, "")) / (keep.endsWith("%") ? 100 : 1) } : choice;
}

/**
 * A tag's options with the selector's choice in them. Where the grammar has no words for it, the atoms are listed.
 * @param {Record<string, string>} options @param {Choice} choice @param {Table} table @returns {Record<string, string>}
 */
export function withChoice(options, choice, table) {
  const { keep, top, atoms, layers, ...rest } = options;
  /** @type {Record<string, string>} */
  const limited = choice.layers ? { layers: choice.layers.replace(BETWEEN, "+") } : {};
  const plain = choice.order === "importance" && !choice.per_site && !choice.invert;
  /** @type {Record<string, string>} */
  const share = choice.share < 1 ? { keep: String(Number(choice.share.toFixed(4))) } : {};
  if (plain && choice.mode === "share") return { ...share, ...limited, ...rest };
  if (plain && choice.mode === "top") return { top: String(choice.top), ...limited, ...rest };
  const listed = formatMask(table, select(table, selectionOf(choice)).mask).replace(BETWEEN, "+");
  return { ...(listed ? { atoms: listed } : { keep: "0" }), ...rest };
}
