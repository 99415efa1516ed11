// @ts-check
/** Gains in words, `L17[137]=1.5, L3=0`: the rules of sparsedict_core/gains.py, as far as they take atoms out. No DOM here. */

import { parseAddresses, resolve } from "./addresses.js";
import { SelectionError } from "./table.js";

/** @typedef {import("./table.js").Table} Table */

const NUMBER = /^\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(?:[,;\n]\s*|$)/;

/** @param {string} text @returns {{addresses: string, gain: number}[]} */
export function parseGains(text) {
  const found = [];
  for (let rest = text.trim(); rest; ) {
    const equals = rest.indexOf("="), number = equals < 0 ? null : NUMBER.exec(rest.slice(equals + 1));
    if (!number) throw new SelectionError(`'${rest}' sets no gain; write addresses and a number, such as L17[137]=1.5, L3=0.`);
    const addresses = rest.slice(0, equals).trim(), gain = Number(number[1]);
    if (!Number.isFinite(gain)) throw new SelectionError(`'${number[1]}' is too large for a gain; 1 leaves an atom as it is and 0 removes it.`);
    parseAddresses(addresses);
    found.push({ addresses, gain });
    rest = rest.slice(equals + 1 + number[0].length).trim();
  }
  return found;
}

/** The atoms of `available` that gains leave a gain other than 0. @param {Table} table @param {string} text @param {Uint8Array | null} available @returns {Uint8Array} */
export function leftBy(table, text, available) {
  const left = new Uint8Array(table.atoms).fill(1);
  // Where two name the same atom, the last one counts.
  for (const { addresses, gain } of parseGains(text)) resolve(table, addresses).forEach((named, atom) => named && (left[atom] = gain === 0 ? 0 : 1));
  return left.map((one, atom) => (one && (!available || available[atom]) ? 1 : 0));
}
