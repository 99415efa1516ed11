// @ts-check
/** Where a node is, in the words of what the host tells of its runs: the workflow, and the node's path through subgraphs. No DOM here. */

/** The graph that all others of the node's workflow are in. @param {any} node */
function rootOf(node) {
  return node.graph?.rootGraph ?? node.graph;
}

/** @param {any} node @returns {string | null} */
export function workflowOf(node) {
  return rootOf(node)?.id ?? null;
}

/**
 * A node in a subgraph runs under its path, 12:3; outputs that the host keeps are also found under the subgraph's own id.
 * @param {any} node @param {string} place
 */
export function isAt(node, place) {
  const path = String(place).split(":"), number = path.pop();
  if (!node.graph || String(node.id) !== number) return false;
  if (path.length === 1 && path[0] === String(node.graph.id)) return true;
  let graph = rootOf(node);
  for (const round of path) graph = graph?.getNodeById(round)?.subgraph;
  return graph === node.graph;
}

/**
 * Whether a run is the node's own: other workflows have nodes of the same number. A run that names no workflow, as one that was queued without
 * its graph, can be anyone's.
 * @param {any} node @param {{node: string | null, workflow?: string | null}} run
 */
export function isRunOf(node, run) {
  return run.node !== null && isAt(node, run.node) && (run.workflow ?? workflowOf(node)) === workflowOf(node);
}
