// @ts-check
/** A panel as a widget of a node, in both of the host's renderers. */

/** Where panels of removed nodes still hang in the page, by node and widget. @type {Map<string, HTMLElement>} */
const left = new Map();
const FRAMES = 30; // that Nodes 2.0 gets to take a panel by itself

/** Makes the node as large as its panel needs, and leaves it what it has beyond that. @param {any} node @param {HTMLElement} container @param {number} height that the panel needs */
export function growWith(node, container, height) {
  container.style.minHeight = `${height}px`;
  const [width, needed] = node.computeSize();
  if (node.size[1] < needed) node.setSize([Math.max(width, node.size[0]), needed]);
  node.graph?.setDirtyCanvas?.(true, true);
}

/**
 * @param {any} node @param {string} name of the widget @param {HTMLElement} container
 * @param {() => number} height the least that it needs
 */
export function addPanel(node, name, container, height) {
  container.style.cssText = `width: 100%; min-width: 0; height: 100%; min-height: ${height()}px; contain: inline-size;`;
  const widget = node.addDOMWidget(name, `sparsedict_${name}`, container, {
    serialize: false, hideOnZoom: false, selectOn: [], getMinHeight: height, getValue: () => "", setValue: () => {},
  });
  widget.serialize = false;
  const key = () => `${node.id} ${name}`, removed = node.onRemoved;
  node.onRemoved = function (/** @type {any[]} */ ...rest) {
    removed?.apply(this, rest);
    left.set(key(), container);
  };
  // Nodes 2.0 hangs a panel into the page only once for a node's number. Where another workflow has a node of the same number, its
  // panel would stay out of the page, and the emptied one of the node before in it.
  let frames = 0;
  const look = () => {
    const before = left.get(key());
    if (container.isConnected || frames++ > FRAMES) left.delete(key());
    else if (frames > FRAMES / 2 && before?.isConnected) before.replaceWith(container);
    else return void requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
  return widget;
}
