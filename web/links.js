// @ts-check
/** The node that an input's value comes from, as the host finds it when the graph is queued. Works on the front end's live graph. No DOM here. */

/**
 * @typedef {{node: any, within: any[]}} Place  a node, and the subgraph nodes that it was reached through, the outermost first. The nodes
 *   in a subgraph are there only once, however often it is used.
 */

const MUTED = 2, BYPASSED = 4; // the host's modes
const FAR = 50; // links; a longer way is a loop

/**
 * A node as it is reached from the top of its workflow: once for each use of the subgraph that it is in.
 * @param {any} node @returns {Place[]}
 */
export function placesOf(node) {
  const inner = node.graph, root = inner?.rootGraph ?? inner;
  if (!inner || inner === root) return [{ node, within: [] }];
  /** @type {any[][]} */
  const ways = [];
  const visit = (/** @type {any} */ graph, /** @type {any[]} */ within) => {
    for (const round of graph.nodes ?? []) {
      if (!round.subgraph || within.includes(round)) continue;
      if (round.subgraph === inner) ways.push([...within, round]);
      visit(round.subgraph, [...within, round]);
    }
  };
  visit(root, []);
  return ways.length ? ways.map((within) => ({ node, within })) : [{ node, within: [] }];
}

/**
 * `outside` where the way leads out of a subgraph that was not entered on it; null where nothing arrives.
 * @param {Place} place @param {any} input @param {string} type what the input takes @returns {Place | "outside" | null}
 */
export function originOf({ node, within }, input, type) {
  let graph = node.graph, id = input?.link;
  for (let far = 0; far < FAR; far++) {
    if (id == null) return null;
    const link = graph?.links?.get?.(id) ?? graph?.links?.[id], origin = link && graph.getNodeById(link.origin_id);
    if (!origin) {
      const round = link && within.at(-1);
      if (!round) return "outside";
      [graph, id, within] = [round.graph, round.inputs[link.origin_slot]?.link, within.slice(0, -1)];
    } else if (origin.mode === BYPASSED) {
      id = handedOn(origin, link.origin_slot, type)?.link;
    } else if (origin.subgraph) {
      [graph, id, within] = [origin.subgraph, origin.subgraph.outputs[link.origin_slot]?.linkIds[0], [...within, origin]];
    } else if (origin.isVirtualNode) {
      id = origin.getInputLink(link.origin_slot)?.id;
    } else {
      return origin.mode === MUTED ? null : { node: origin, within };
    }
  }
  return "outside";
}

/**
 * The value of a node's widget, also where it stands on the subgraph's node outside, as a promoted one does; undefined where it comes
 * over a link. @param {Place} place @param {string} name @returns {any}
 */
export function valueAt({ node, within }, name) {
  const input = node.inputs?.find((/** @type {any} */ each) => each.widget?.name === name && each.link != null);
  if (!input) return node.widgets?.find((/** @type {any} */ widget) => widget.name === name)?.value;
  const link = node.graph?.links?.get?.(input.link) ?? node.graph?.links?.[input.link], round = within.at(-1);
  if (!link || !round || node.graph.getNodeById(link.origin_id)) return undefined;
  const outer = round.inputs[link.origin_slot];
  return valueAt({ node: round, within: within.slice(0, -1) }, outer?.widget?.name ?? outer?.name);
}

/** The input that a bypassed node hands on; the host has no name for this rule that others could call. @param {any} node @param {number} slot of the output @param {string} type */
function handedOn(node, slot, type) {
  const inputs = node.inputs ?? [], wanted = [node.outputs[slot].type, type];
  const fits = (/** @type {any} */ input) => input && wanted.every((other) => input.type === other || input.type === "*" || other === "*");
  return fits(inputs[slot]) ? inputs[slot] : inputs.find((/** @type {any} */ input) => input.type === type) ?? inputs.find(fits);
}
