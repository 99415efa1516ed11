// @ts-check
/** Folds a node's plain widgets away while a panel stands for them, or while nobody needs them. */

/** Nodes 2.0, the host's other renderer. */
export function inNodes2() {
  return !!(/** @type {any} */ (globalThis).LiteGraph?.vueNodesMode);
}

/** Whether the host folds such fields itself and has a switch for them: then the panel has none. @param {any} node */
export function hostFolds(node) {
  return inNodes2() && (node.widgets ?? []).some((/** @type {any} */ field) => field.options?.advanced !== undefined);
}

/**
 * The node takes the room that its fields give or need; what a person has given it beyond that stays.
 * @param {any} node
 * @param {(field: any) => boolean | null} folds whether a field is one that nobody needs now; null: not a field that is ever folded
 * @param {boolean} shown all of them, as the panel's own switch wants it
 */
export function foldFields(node, folds, shown) {
  const before = node.computeSize()[1], theirs = hostFolds(node);
  let changed = false;
  for (const field of node.widgets ?? []) {
    const folded = folds(field);
    if (folded === null) continue;
    const hidden = folded && !shown && !theirs, options = (field.options ??= {});
    // Nodes 2.0 looks at the option; so does the host's sidebar, which beside the canvas shall show what the node folds away.
    const option = hidden && inNodes2();
    changed ||= !!options.hidden !== option;
    field.hidden = hidden;
    options.hidden = option;
    if (options.advanced !== undefined) options.advanced = folded;
    // The host leaves room for hidden widgets too, unless they say that they need none.
    if (hidden) field.computeSize = () => [0, -4];
    else delete field.computeSize;
  }
  const [width, height] = node.computeSize();
  node.setSize([Math.max(width, node.size[0]), inNodes2() ? node.size[1] : Math.max(height, node.size[1] + height - before)]);
  // Older hosts' Nodes 2.0 copies the fields' options when a node comes into the graph, and looks at them no more.
  if (changed && inNodes2() && !theirs && node.graph?.getNodeById(node.id) === node) node.graph.onNodeAdded?.(node);
  node.graph?.setDirtyCanvas?.(true, true);
}

/** Calls back when a person has changed the renderer. @param {any} app @param {() => void} callback @returns {() => void} what ends it */
export function onRendererChange(app, callback) {
  const name = "Comfy.VueNodes.Enabled.change", settings = app.ui?.settings;
  // The host tells of it before it has made the change.
  const later = () => setTimeout(callback, 0);
  settings?.addEventListener?.(name, later);
  return () => settings?.removeEventListener?.(name, later);
}
