// @ts-check
/** Text that may come from a stranger's file, or be its name, made fit to be shown: as sparsedict_core/shown_text.py does it. No DOM here. */

/** A long name without its middle: with its ending, it still tells which file it is. @param {string} name @param {number} [most] characters */
export function shortened(name, most = 48) {
  const all = [...name], half = most / 2;
  return all.length > most ? `${all.slice(0, half - 1).join("")}…${all.slice(-half).join("")}` : name;
}

/** Every character that moves a cursor, turns a line round or is not seen, written out. @param {string} text */
export function printable(text) {
  return text.replace(/(?! )[\p{C}\p{Z}]/gu, (character) => {
    const code = /** @type {number} */ (character.codePointAt(0)), digits = code.toString(16);
    const named = /** @type {Record<string, string>} */ ({ "\n": "\\n", "\r": "\\r", "\t": "\\t" })[character];
    return named ?? (code < 0x100 ? `\\x${digits.padStart(2, "0")}` : code < 0x10000 ? `\\u${digits.padStart(4, "0")}` : `\\U${digits.padStart(8, "0")}`);
  });
}
