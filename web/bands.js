// @ts-check
/** Where in its model a site is, in the words that people use: IN04, MID, OUT00, double, single. No DOM here. */

/** @typedef {{name: string, block: string}} Band  the stack that a row belongs to, and its block within it */

/** By what a path holds; the first that fits. `block` gives the name that block-weight tools use. @type {[RegExp, string, (found: RegExpMatchArray) => string][]} */
const STACKS = [
  [/(?:^|\.)down_blocks\.(\d+)\.attentions\.(\d+)/, "IN", ([, level, block]) => `IN${padded(1 + 3 * Number(level) + Number(block))}`],
  [/(?:^|\.)mid_block\./, "MID", () => "MID"],
  [/(?:^|\.)up_blocks\.(\d+)\.attentions\.(\d+)/, "OUT", ([, level, block]) => `OUT${padded(3 * Number(level) + Number(block))}`],
  [/(?:^|\.)single_transformer_blocks\.(\d+)/, "single", ([, block]) => `single ${block}`],
  [/(?:^|\.)single_blocks\.(\d+)/, "single", ([, block]) => `single ${block}`],
  [/(?:^|\.)(?:double_blocks|transformer_blocks)\.(\d+)/, "double", ([, block]) => `double ${block}`],
];

/** @param {number} number */
function padded(number) {
  return String(number).padStart(2, "0");
}

/**
 * Of each site in turn. Blocks are double only where there are single ones beside them; where there is one stack alone, no band says
 * anything.
 * @param {string[]} keys paths, as the server names sites @returns {(Band | null)[]}
 */
export function bandsOf(keys) {
  const found = keys.map((key) => {
    for (const [pattern, name, block] of STACKS) {
      const match = key.match(pattern);
      if (match) return { name, block: block(match) };
    }
    return null;
  });
  const names = new Set(found.map((band) => band?.name));
  return names.size > 1 ? found : keys.map(() => null);
}

/** Rows that stand together: a run of one band of one member. @param {(Band | null)[]} bands @param {(string | null)[]} members @returns {{name: string, from: number, to: number}[]} */
export function runsOf(bands, members) {
  /** @type {{name: string, from: number, to: number}[]} */
  const runs = [];
  bands.forEach((band, row) => {
    const last = runs[runs.length - 1], name = band?.name ?? "";
    if (last && last.name === name && members[row] === members[row - 1]) last.to = row;
    else runs.push({ name, from: row, to: row });
  });
  return runs;
}
