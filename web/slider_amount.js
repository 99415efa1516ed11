// @ts-check
/** The slider's side of a choice: a number of atoms, in the words of the choice's own mode. No DOM here. */

import { consideredSites, describe, rankAtoms, roundHalfEven, selectionOf } from "./selection.js";

/** @typedef {import("./table.js").Table} Table @typedef {import("./table.js").Choice} Choice */

/**
 * The atoms that the slider runs over, best first, and what the first k of them hold (curve[k], 0 to 1).
 * @param {Table} table @param {Choice} choice @param {Uint8Array | null} [available]
 * @returns {{order: Int32Array, curve: Float64Array, what: string}}
 */
export function sliderOrder(table, choice, available = null) {
  const selection = selectionOf(choice);
  const considered = consideredSites(table, selection);
  const by = choice.mode === "share" || choice.mode === "top" ? choice.order : "importance";
  let order = Int32Array.from(rankAtoms(table, by)).filter((atom) => considered.has(table.siteOf[atom]) && (!available || available[atom]));
  if (choice.per_site && (choice.mode === "share" || choice.mode === "top")) {
    // By their place in their own site.
    const seen = new Array(table.sites.length).fill(0), place = new Map();
    for (const atom of order) place.set(atom, seen[table.siteOf[atom]]++);
    const of = choice.mode === "share" ? seen : seen.fill(1);
    order = order.slice().sort((a, b) => place.get(a) / of[table.siteOf[a]] - place.get(b) / of[table.siteOf[b]]);
  }
  let whole = 0;
  for (let atom = 0; atom < table.atoms; atom++) whole += table.importance[atom];
  const curve = new Float64Array(order.length + 1);
  for (let k = 0; k < order.length; k++) curve[k + 1] = curve[k] + table.importance[order[k]] / (whole || 1);
  return { order, curve, what: "importance" };
}

/** What the first k of the slider's atoms are, without asking the choice: for while the slider moves. @param {Table} table @param {Choice} choice @param {number} k @param {{order: Int32Array}} slider @param {Uint8Array | null} available */
export function firstOf(table, choice, k, slider, available) {
  const mask = new Uint8Array(table.atoms);
  for (let i = 0; i < k; i++) mask[slider.order[i]] = 1;
  return describe(table, choice.invert ? mask.map((kept, atom) => (!kept && (!available || available[atom]) ? 1 : 0)) : mask);
}

/** The choice that keeps the first k of the slider's atoms. @param {Table} table @param {Choice} choice @param {number} k @param {{order: Int32Array, curve: Float64Array}} slider @returns {Choice} */
export function withAmount(table, choice, k, slider) {
  const total = slider.order.length;
  k = Math.max(0, Math.min(total, Math.round(k)));
  switch (choice.mode) {
    case "top":
      return { ...choice, top: choice.per_site ? Math.round(k / Math.max(1, consideredSites(table, selectionOf(choice)).size)) : k };
    case "importance share": {
      const all = slider.curve[total] || 1;
      return { ...choice, share: k === 0 ? 0 : k === total ? 1 : shortest(slider.curve[k - 1] / all, slider.curve[k] / all) };
    }
    case "threshold": {
      const value = (/** @type {number} */ i) => table.importance[slider.order[i]];
      if (k === total) return { ...choice, threshold: 0 };
      const below = value(k), at = k === 0 ? below * 1.01 + 1e-9 : value(k - 1);
      return { ...choice, threshold: k === 0 ? at : shortest(below, at) };
    }
    default:
      return { ...choice, mode: "share", share: shareOf(k, total) };
  }
}

/** The shortest share of which Python's rounding makes k of n. @param {number} k @param {number} n */
export function shareOf(k, n) {
  if (k <= 0 || n === 0) return 0;
  if (k >= n) return 1;
  for (let digits = 2; digits < 12; digits++) {
    const share = Number((k / n).toFixed(digits));
    if (share > 0 && share < 1 && Math.max(1, roundHalfEven(share * n)) === k) return share;
  }
  return k / n;
}

/** The shortest number above `low` and not above `high`. @param {number} low @param {number} high */
function shortest(low, high) {
  for (let digits = 2; digits < 15; digits++) {
    const scale = 10 ** digits, value = Math.floor(high * scale) / scale;
    if (value > low && value <= high && Math.fround(value) <= high) return value;
  }
  return high;
}
