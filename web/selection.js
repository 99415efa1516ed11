// @ts-check
/**
 * Which atoms a choice keeps: the rules of sparsedict_core/selection.py. No DOM here. tests/vectors/selection.json holds both sides to
 * the same answers.
 */

import { resolve, resolveLayers } from "./addresses.js";
import { NeedsGreedyOrder, SelectionError } from "./table.js";

/** @typedef {import("./table.js").Table} Table @typedef {import("./table.js").Choice} Choice */
/** @typedef {import("./table.js").Selection} Selection @typedef {import("./table.js").Result} Result */

export const ORDERS = ["importance", "greedy"];

/** What the node hands to the core. @param {Choice} choice @returns {Selection} */
export function selectionOf(choice) {
  const how = { order: choice.order, per_site: choice.per_site, layers: choice.layers.trim() || null, invert: choice.invert };
  switch (choice.mode) {
    case "share": return choice.share > 0 ? { keep: choice.share, ...how } : { top: 0, ...how };
    case "importance share": return { importance_share: choice.share, ...how };
    case "top": return { top: choice.top, ...how };
    case "threshold": return { threshold: choice.threshold, ...how };
    default: return choice.atoms.trim() ? { atoms: choice.atoms, ...how, order: "importance" } : { top: 0, ...how, order: "importance" };
  }
}

/** Python's round: halves go to the even number. @param {number} value */
export function roundHalfEven(value) {
  const down = Math.floor(value), rest = value - down;
  return rest < 0.5 || (rest === 0.5 && down % 2 === 0) ? down : down + 1;
}

/** @param {Selection} selection @param {number} available */
function amount(selection, available) {
  if (selection.top !== undefined) return Math.min(selection.top, available);
  return Math.min(available, Math.max(1, roundHalfEven(/** @type {number} */ (selection.keep) * available)));
}

/** All atoms, best first; equal ones in the table's order. @param {Table} table @param {string} order @returns {number[] | Int32Array} */
export function rankAtoms(table, order) {
  if (order === "greedy") {
    if (table.greedy) return table.greedy.order;
    if (table.hasMoments) throw new NeedsGreedyOrder("the greedy order is being computed.");
    throw new SelectionError("the file has no moments, which the greedy order needs; train or save it with moments, or select by importance.");
  }
  if (!table.importance.some((value) => value > 0)) {
    throw new SelectionError("the adapter holds no importance yet; gather it on images or prompts before ranking its atoms.");
  }
  const cached = byImportance.get(table);
  if (cached) return cached;
  const order_ = Int32Array.from({ length: table.atoms }, (_, atom) => atom);
  order_.sort((a, b) => table.importance[b] - table.importance[a] || a - b);
  byImportance.set(table, order_);
  return order_;
}
/** @type {WeakMap<Table, Int32Array>} */
const byImportance = new WeakMap();

/** @param {Table} table @param {Selection} selection @returns {Set<number>} */
export function consideredSites(table, selection) {
  return selection.layers ? resolveLayers(table, selection.layers) : new Set(table.sites.keys());
}

/**
 * The atoms that a selection keeps. Throws SelectionError for one that cannot be made.
 * @param {Table} table @param {Selection} selection @param {Uint8Array | null} [available] atoms that an earlier node left @returns {Result}
 */
export function select(table, selection, available = null) {
  check(selection);
  const considered = consideredSites(table, selection);
  /** @param {number} atom */
  const counts = (atom) => considered.has(table.siteOf[atom]) && (!available || !!available[atom]);
  let mask = new Uint8Array(table.atoms);
  if (selection.atoms !== undefined) {
    mask = resolve(table, selection.atoms, available).map((kept, atom) => (kept && counts(atom) ? 1 : 0));
  } else if (selection.threshold !== undefined) {
    // The host compares in float32.
    const least = Math.fround(selection.threshold);
    for (let atom = 0; atom < table.atoms; atom++) if (counts(atom) && table.importance[atom] >= least) mask[atom] = 1;
  } else if (selection.keep === 1 || selection.importance_share === 1) {
    for (let atom = 0; atom < table.atoms; atom++) if (counts(atom)) mask[atom] = 1;
  } else {
    take(table, selection, counts, considered, mask);
  }
  if (selection.invert) mask = mask.map((kept, atom) => (!kept && (!available || available[atom]) ? 1 : 0));
  return describe(table, mask);
}

/** @param {Selection} selection */
function check(selection) {
  const { keep, top, importance_share: share, threshold, order = "importance", per_site } = selection;
  if (keep !== undefined && !(keep > 0 && keep <= 1)) throw new SelectionError(`a share of ${keep} was asked for; give one above 0 and at most 1.`);
  if (top !== undefined && !(top >= 0)) throw new SelectionError(`${top} atoms were asked for; give a number of 0 or more.`);
  if (share !== undefined && !(share >= 0 && share <= 1)) throw new SelectionError(`a share of ${share} of the importance was asked for; give one from 0 to 1.`);
  if (threshold !== undefined && Number.isNaN(threshold)) throw new SelectionError("the threshold is not a number.");
  if (!ORDERS.includes(order)) throw new SelectionError(`order '${order}' is unknown; choose importance or greedy.`);
  if ((threshold !== undefined || share !== undefined) && order !== "importance") {
    throw new SelectionError("thresholds and shares of the importance go with the order “importance”; leave the order as it is.");
  }
  if (share !== undefined && per_site) throw new SelectionError("a share of the importance is over all sites together; do not ask for it per site.");
}

/**
 * The first ones of the order, by number or share.
 * @param {Table} table @param {Selection} selection @param {(atom: number) => boolean} counts @param {Set<number>} considered @param {Uint8Array} mask
 */
function take(table, selection, counts, considered, mask) {
  const sizes = new Array(table.sites.length).fill(0);
  for (let atom = 0; atom < table.atoms; atom++) if (counts(atom)) sizes[table.siteOf[atom]]++;
  const all = sizes.reduce((sum, size) => sum + size, 0);
  const room = new Array(table.sites.length + 1).fill(0);
  const shared = table.sites.length;
  if (selection.importance_share !== undefined) room[shared] = holding(table, selection.importance_share, counts);
  else if (selection.per_site) for (const number of considered) room[number] = amount(selection, sizes[number]);
  else room[shared] = amount(selection, all);
  if (!room.some((left) => left > 0)) return;
  for (const atom of rankAtoms(table, selection.order ?? "importance")) {
    if (!counts(atom)) continue;
    const place = selection.per_site ? table.siteOf[atom] : shared;
    if (room[place] > 0) {
      room[place]--;
      mask[atom] = 1;
    }
  }
}

/** How many of the most important atoms hold that share. @param {Table} table @param {number} share @param {(atom: number) => boolean} counts */
function holding(table, share, counts) {
  if (share <= 0) return 0;
  const values = table.importance.filter((_, atom) => counts(atom)).sort().reverse();
  let total = 0;
  for (const value of values) total += value;
  let held = 0, number = 0;
  for (const value of values) {
    held += value;
    if (!(held < share * total * (1 - 1e-12))) break;
    number++;
  }
  return number + 1;
}

/** @param {Table} table @param {Uint8Array} mask @returns {Result} */
export function describe(table, mask) {
  let kept = 0, part = 0, whole = 0;
  for (let atom = 0; atom < table.atoms; atom++) {
    whole += table.importance[atom];
    if (mask[atom]) {
      kept++;
      part += table.importance[atom];
    }
  }
  return { mask, kept, importanceKept: whole > 0 ? part / whole : kept === table.atoms ? 1 : 0 };
}
