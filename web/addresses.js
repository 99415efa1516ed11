// @ts-check
/**
 * Addresses such as `L3[0-15]` and `cat:L17.text[5]`: the rules of sparsedict_core/addresses.py. No DOM here.
 * tests/vectors/selection.json holds both sides to the same answers.
 */

import { SelectionError } from "./table.js";

/** @typedef {import("./table.js").Table} Table @typedef {import("./table.js").Address} Address */

/** The stream of a site that has none, where its layer has others. */
const UNNAMED = "out";

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
      stream = this.take(/[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*/y);
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
    /** @param {number} number */
    const streamOf = (number) => table.sites[number].stream ?? UNNAMED;
    const streams = [...new Set(numbers.map(streamOf))].sort();
    const named = numbers.filter((number) => streamOf(number) === address.stream);
    numbers = named.length ? named : numbers.filter((number) => (table.sites[number].stream ?? "").startsWith(`${address.stream}.`));
    if (!numbers.length) {
      const known = streams.every((stream) => stream === UNNAMED) ? "none, leave it out" : streams.join(", ");
      throw new SelectionError(`address '${address.text}': no stream '${address.stream}' there; the streams are ${known}.`);
    }
  }
  if (address.atoms !== null) {
    for (const number of numbers) {
      const ofLayer = numbers.filter((other) => table.sites[other].layer === table.sites[number].layer);
      if (ofLayer.length > 1) {
        const options = ofLayer.map((other) => `${table.sites[other].label}[…]`).join(", ");
        throw new SelectionError(`address '${address.text}' is ambiguous; write one of ${options}.`);
      }
    }
  }
  return numbers;
}

/**
 * The atoms that `text` names. Throws SelectionError for what is ambiguous or not there.
 * @param {Table} table @param {string} text @param {Uint8Array | null} [available] atoms that an earlier node left @returns {Uint8Array}
 */
export function resolve(table, text, available = null) {
  const mask = new Uint8Array(table.atoms);
  for (const address of parseAddresses(text)) {
    for (const number of sitesOf(table, address)) {
      const { first, size, label } = table.sites[number];
      for (const [start, end] of address.atoms ?? [[-1, Infinity]]) {
        let any = false;
        for (let atom = first; atom < first + size; atom++) {
          if (table.ids[atom] >= start && table.ids[atom] <= end && (!available || available[atom])) {
            mask[atom] = 1;
            any = true;
          }
        }
        if (!any && address.atoms) {
          const what = start === end ? `atom ${start}` : `atom from ${start} to ${end}`;
          const left = [];
          for (let atom = first; atom < first + size; atom++) if (!available || available[atom]) left.push(table.ids[atom]);
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

/** The shortest addresses of a mask; `resolve` is the inverse. @param {Table} table @param {Uint8Array} mask @param {Uint8Array | null} [available] */
export function formatMask(table, mask, available = null) {
  const parts = [];
  for (const { label, first, size } of table.sites) {
    const ids = [];
    let left = 0;
    for (let atom = first; atom < first + size; atom++) {
      if (available && !available[atom]) continue;
      left++;
      if (mask[atom]) ids.push(table.ids[atom]);
    }
    if (!ids.length) continue;
    parts.push(ids.length === left ? label : `${label}[${ranges(ids.sort((a, b) => a - b))}]`);
  }
  return parts.join(",");
}
