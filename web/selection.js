// @ts-check
/**
 * Which atoms a choice keeps: the same rules as sparsedict_core/addresses.py and selection.py, on the table that the route
 * /sparsedict/adapter sends. No DOM here. tests/vectors/selection.json holds both sides to the same answers.
 *
 * Atoms are numbered through all sites in the table's order; a mask is a Uint8Array over these numbers.
 */

/**
 * @typedef {{key: string, label: string, layer: number, stream: string | null, member: string | null,
 *   atom_ids: number[], importance: number[]}} SiteRow  a site as the route sends it
 * @typedef {{title?: string, trigger_words?: string[], base_family?: string, members?: string[], has_moments?: boolean,
 *   sites: SiteRow[], greedy?: {order: number[], energy: number[]} | null}} TableJson
 * @typedef {{label: string, layer: number, stream: string | null, member: string | null, first: number, size: number}} Site
 * @typedef {{sites: Site[], members: string[], atoms: number, ids: Int32Array, importance: Float64Array, siteOf: Int32Array,
 *   hasMoments: boolean, greedy: {order: number[], energy: number[]} | null, title: string, triggerWords: string[]}} Table
 * @typedef {{text: string, first: number, last: number, stream: string | null, atoms: [number, number][] | null,
 *   member: string | null}} Address
 * @typedef {{keep?: number, top?: number, importance_share?: number, threshold?: number, atoms?: string,
 *   order?: string, per_site?: boolean, layers?: string | null, invert?: boolean}} Selection  as in selection.py
 * @typedef {{mode: string, share: number, top: number, threshold: number, atoms: string, order: string, per_site: boolean,
 *   layers: string, invert: boolean, refit: boolean}} Choice  the widgets of the node Select Atoms
 * @typedef {{mask: Uint8Array, kept: number, importanceKept: number}} Result
 */

export const MODES = ["share", "importance share", "top", "threshold", "addresses"];
export const ORDERS = ["importance", "greedy"];

/** @type {Choice} */
export const DEFAULT_CHOICE = {
  mode: "share", share: 0.25, top: 64, threshold: 0.01, atoms: "", order: "importance", per_site: false, layers: "",
  invert: false, refit: false,
};

/** What is wrong, in one sentence for people. */
export class SelectionError extends Error {}

/** The greedy order is not here yet, but the file can give it. */
export class NeedsGreedyOrder extends SelectionError {}

// ---- the table

/** @param {TableJson} json @returns {Table} */
export function makeTable(json) {
  const atoms = json.sites.reduce((sum, site) => sum + site.atom_ids.length, 0);
  const ids = new Int32Array(atoms), importance = new Float64Array(atoms), siteOf = new Int32Array(atoms);
  let first = 0;
  const sites = json.sites.map((row, number) => {
    const size = row.atom_ids.length;
    ids.set(row.atom_ids, first);
    importance.set(row.importance, first);
    siteOf.fill(number, first, first + size);
    const site = { label: row.label, layer: row.layer, stream: row.stream, member: row.member, first, size };
    first += size;
    return site;
  });
  return {
    sites, members: json.members ?? [], atoms, ids, importance, siteOf, hasMoments: json.has_moments ?? false,
    greedy: json.greedy ?? null, title: json.title ?? "", triggerWords: json.trigger_words ?? [],
  };
}

/** Several files as the node Compose Sparse Dicts joins them. @param {{name: string, json: TableJson}[]} parts @returns {TableJson} */
export function composed(parts) {
  const sites = [], members = [];
  for (const { name, json } of parts) {
    members.push(...(json.members?.length ? json.members.map((inner) => `${name}.${inner}`) : [name]));
    for (const site of json.sites) {
      const member = site.member === null ? name : `${name}.${site.member}`;
      const label = site.member === null ? site.label : site.label.slice(site.member.length + 1);
      sites.push({ ...site, member, label: `${member}:${label}` });
    }
  }
  return {
    title: parts.map((part) => part.json.title || part.name).join(" + "), trigger_words: parts.flatMap((part) => part.json.trigger_words ?? []),
    members, sites, has_moments: false, greedy: null,
  };
}

/** A member's name, as nodes/compose.py makes it. @param {string} name @param {string[]} taken */
export function memberName(name, taken) {
  name = name.replace(/[^A-Za-z0-9_-]+/g, "_").replace(/^[_-]+|[_-]+$/g, "");
  if (!/^[A-Za-z_]/.test(name)) name = `d${name}`;
  let wanted = name;
  for (let number = 2; taken.includes(wanted); number++) wanted = `${name}_${number}`;
  return wanted;
}

// ---- addresses

class Parser {
  /** @param {string} text */
  constructor(text) {
    this.text = text;
    this.at = 0;
  }

  /** @param {string} wanted */
  fail(wanted) {
    const found = this.at < this.text.length ? `'${this.text[this.at]}'` : "the end";
    return new SelectionError(
      `address '${this.text}': expected ${wanted} at position ${this.at + 1}, found ${found}; ` +
        "addresses look like L17[137], L3[0-15,40], L4-L9 or cat:L17.text[5].",
    );
  }

  spaces() {
    while (this.at < this.text.length && /\s/.test(this.text[this.at])) this.at++;
  }

  /** @param {RegExp} pattern sticky */
  take(pattern) {
    this.spaces();
    pattern.lastIndex = this.at;
    const match = pattern.exec(this.text);
    if (!match) return null;
    this.at = pattern.lastIndex;
    return match[0];
  }

  /** @param {string} what */
  number(what) {
    const digits = this.take(/[0-9]{1,9}(?![0-9])/y);
    if (digits === null) throw this.fail(what);
    return Number(digits);
  }

  /** @param {string} what @param {RegExp} [second] @returns {[number, number]} */
  range(what, second) {
    const start = this.number(what);
    if (this.take(/-/y) === null) return [start, start];
    if (second) this.take(second);
    const end = this.number(what);
    if (end < start) throw new SelectionError(`address '${this.text}': the range ${start}-${end} runs backwards; write ${end}-${start}.`);
    return [start, end];
  }

  /** @returns {Address} */
  address() {
    this.spaces();
    const begin = this.at;
    const member = this.take(/[A-Za-z_][A-Za-z0-9_.-]*(?=\s*:)/y);
    if (member !== null) this.take(/:/y);
    if (this.take(/[Ll](?=[0-9])/y) === null) throw this.fail("a layer such as L17");
    const [first, last] = this.range("a layer number", /[Ll]/y);
    let stream = null;
    if (this.take(/\./y) !== null) {
      stream = this.take(/[A-Za-z_][A-Za-z0-9_]*/y);
      if (stream === null) throw this.fail("a stream such as text or image");
    }
    /** @type {[number, number][] | null} */
    let atoms = null;
    if (this.take(/\[/y) !== null) {
      atoms = [this.range("an atom number")];
      while (this.take(/,/y) !== null) atoms.push(this.range("an atom number"));
      if (this.take(/\]/y) === null) throw this.fail("a comma or ]");
    }
    return { text: this.text.slice(begin, this.at).trim(), first, last, stream, atoms, member };
  }

  addresses() {
    const found = [this.address()];
    while (this.take(/,/y) !== null) found.push(this.address());
    this.spaces();
    if (this.at < this.text.length) throw this.fail("a comma or the end");
    return found;
  }
}

/** @param {string} text @returns {Address[]} */
export function parseAddresses(text) {
  return new Parser(text).addresses();
}

/** `0-15,40` @param {number[]} numbers ascending @param {string} [prefix] */
function ranges(numbers, prefix = "") {
  const parts = [];
  for (let i = 0; i < numbers.length; ) {
    let j = i;
    while (j + 1 < numbers.length && numbers[j + 1] === numbers[j] + 1) j++;
    parts.push(i === j ? `${prefix}${numbers[i]}` : `${prefix}${numbers[i]}-${prefix}${numbers[j]}`);
    i = j + 1;
  }
  return parts.join(",");
}

/** Numbers of the sites that an address names. @param {Table} table @param {Address} address */
function sitesOf(table, address) {
  let numbers = table.sites.map((_, number) => number);
  if (address.member !== null) {
    if (!table.members.includes(address.member)) {
      const known = table.members.length ? `its members are ${table.members.join(", ")}` : "the adapter is not composed and has no members";
      throw new SelectionError(`address '${address.text}': no member '${address.member}'; ${known}.`);
    }
    numbers = numbers.filter((number) => table.sites[number].member === address.member);
  }
  const layers = [...new Set(numbers.map((number) => table.sites[number].layer))].sort((a, b) => a - b);
  for (const wanted of [address.first, address.last]) {
    if (!layers.includes(wanted)) {
      throw new SelectionError(`address '${address.text}': there is no layer L${wanted}; the layers are ${ranges(layers, "L")}.`);
    }
  }
  numbers = numbers.filter((number) => table.sites[number].layer >= address.first && table.sites[number].layer <= address.last);
  if (address.stream !== null) {
    const streams = [...new Set(numbers.map((number) => table.sites[number].stream).filter((stream) => stream !== null))].sort();
    numbers = numbers.filter((number) => table.sites[number].stream === address.stream);
    if (!numbers.length) {
      const known = streams.join(", ") || "none, leave it out";
      throw new SelectionError(`address '${address.text}': no stream '${address.stream}' there; the streams are ${known}.`);
    }
  }
  if (address.atoms !== null) {
    for (const number of numbers) {
      const alike = numbers.filter((other) => table.sites[other].layer === table.sites[number].layer);
      if (alike.length > 1) {
        const options = alike.map((other) => `${table.sites[other].label}[…]`).join(", ");
        throw new SelectionError(`address '${address.text}' is ambiguous; write one of ${options}.`);
      }
    }
  }
  return numbers;
}

/**
 * The atoms that `text` names. Throws SelectionError for what is ambiguous or not there.
 * @param {Table} table @param {string} text @param {Uint8Array | null} [there] atoms that an earlier node left @returns {Uint8Array}
 */
export function resolve(table, text, there = null) {
  const mask = new Uint8Array(table.atoms);
  for (const address of parseAddresses(text)) {
    for (const number of sitesOf(table, address)) {
      const { first, size, label } = table.sites[number];
      for (const [start, end] of address.atoms ?? [[-1, Infinity]]) {
        let any = false;
        for (let atom = first; atom < first + size; atom++) {
          if (table.ids[atom] >= start && table.ids[atom] <= end && (!there || there[atom])) {
            mask[atom] = 1;
            any = true;
          }
        }
        if (!any && address.atoms) {
          const what = start === end ? `atom ${start}` : `atom from ${start} to ${end}`;
          const left = [];
          for (let atom = first; atom < first + size; atom++) if (!there || there[atom]) left.push(table.ids[atom]);
          const has = left.length ? `its atoms are ${ranges(left.sort((a, b) => a - b))}` : "it has no atoms left";
          throw new SelectionError(`address '${address.text}': ${label} has no ${what}; ${has}.`);
        }
      }
    }
  }
  return mask;
}

/** Numbers of the sites that `text`, such as `L4-L9` or `L0.text`, names. @param {Table} table @param {string} text @returns {Set<number>} */
export function resolveLayers(table, text) {
  const found = new Set();
  for (const address of parseAddresses(text)) {
    if (address.atoms !== null) throw new SelectionError(`address '${address.text}' names atoms where layers are wanted; leave the bracket out.`);
    for (const number of sitesOf(table, address)) found.add(number);
  }
  return found;
}

/** @param {Table} table @param {number} atom */
export function formatAddress(table, atom) {
  return `${table.sites[table.siteOf[atom]].label}[${table.ids[atom]}]`;
}

/** The shortest addresses of a mask; `resolve` is the inverse. @param {Table} table @param {Uint8Array} mask @param {Uint8Array | null} [there] */
export function formatMask(table, mask, there = null) {
  const parts = [];
  for (const { label, first, size } of table.sites) {
    const ids = [];
    let left = 0;
    for (let atom = first; atom < first + size; atom++) {
      if (there && !there[atom]) continue;
      left++;
      if (mask[atom]) ids.push(table.ids[atom]);
    }
    if (!ids.length) continue;
    parts.push(ids.length === left ? label : `${label}[${ranges(ids.sort((a, b) => a - b))}]`);
  }
  return parts.join(",");
}

// ---- selections

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
function roundHalfEven(value) {
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
function consideredSites(table, selection) {
  return selection.layers ? resolveLayers(table, selection.layers) : new Set(table.sites.keys());
}

/**
 * The atoms that a selection keeps. Throws SelectionError for one that cannot be made.
 * @param {Table} table @param {Selection} selection @param {Uint8Array | null} [there] atoms that an earlier node left @returns {Result}
 */
export function select(table, selection, there = null) {
  check(selection);
  const considered = consideredSites(table, selection);
  /** @param {number} atom */
  const counts = (atom) => considered.has(table.siteOf[atom]) && (!there || !!there[atom]);
  let mask = new Uint8Array(table.atoms);
  if (selection.atoms !== undefined) {
    mask = resolve(table, selection.atoms, there).map((kept, atom) => (kept && counts(atom) ? 1 : 0));
  } else if (selection.threshold !== undefined) {
    // The host compares in float32.
    const least = Math.fround(selection.threshold);
    for (let atom = 0; atom < table.atoms; atom++) if (counts(atom) && table.importance[atom] >= least) mask[atom] = 1;
  } else if (selection.keep === 1 || selection.importance_share === 1) {
    for (let atom = 0; atom < table.atoms; atom++) if (counts(atom)) mask[atom] = 1;
  } else {
    take(table, selection, counts, considered, mask);
  }
  if (selection.invert) mask = mask.map((kept, atom) => (!kept && (!there || there[atom]) ? 1 : 0));
  return describe(table, mask);
}

/** @param {Selection} selection */
function check(selection) {
  const { keep, top, importance_share: share, threshold, order = "importance", per_site } = selection;
  if (keep !== undefined && !(keep > 0 && keep <= 1)) throw new SelectionError(`keep is ${keep}; give a share above 0 and at most 1.`);
  if (top !== undefined && !(top >= 0)) throw new SelectionError(`top is ${top}; give a number of atoms, 0 or more.`);
  if (share !== undefined && !(share >= 0 && share <= 1)) throw new SelectionError(`importance_share is ${share}; give a share from 0 to 1.`);
  if (threshold !== undefined && Number.isNaN(threshold)) throw new SelectionError("threshold is not a number.");
  if (!ORDERS.includes(order)) throw new SelectionError(`order '${order}' is unknown; choose importance or greedy.`);
  if ((threshold !== undefined || share !== undefined) && order !== "importance") {
    throw new SelectionError("thresholds and shares of the importance go with the order “importance”; leave the order as it is.");
  }
  if (share !== undefined && per_site) throw new SelectionError("a share of the importance is over all sites together; leave per site off.");
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

// ---- the slider: a number of atoms, in the words of the choice's own mode

/**
 * The atoms that the slider runs over, best first, and what the first k of them hold (curve[k], 0 to 1).
 * @param {Table} table @param {Choice} choice @param {Uint8Array | null} [there]
 * @returns {{order: Int32Array, curve: Float64Array, what: string}}
 */
export function sliderOrder(table, choice, there = null) {
  const selection = selectionOf(choice);
  const considered = consideredSites(table, selection);
  const by = choice.mode === "share" || choice.mode === "top" ? choice.order : "importance";
  let order = Int32Array.from(rankAtoms(table, by)).filter((atom) => considered.has(table.siteOf[atom]) && (!there || there[atom]));
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
