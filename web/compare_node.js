// @ts-check
/** Puts the panel on the nodes Compare and hands it what they have shown. */

import { COMPARER_HEIGHT, mountComparer } from "./comparer.js";
import { followPictures, viewOf } from "./earlier_runs.js";
import { addPanel } from "./panel_widget.js";

const UI = "sparsedict_compare";
const WIDTH = 340;

/** @param {any} node @param {any} api */
export function addComparer(node, api) {
  const container = document.createElement("div");
  const comparer = mountComparer(container, { url: (frame) => api.apiURL(viewOf(frame)) });
  addPanel(node, "comparer", container, () => COMPARER_HEIGHT);
  node.sparsedictComparer = comparer;
  followPictures(node, api, UI, comparer.set);
  const removed = node.onRemoved;
  node.onRemoved = function (/** @type {any[]} */ ...rest) {
    removed?.apply(this, rest);
    comparer.destroy();
  };
  const [width, height] = node.computeSize();
  node.setSize([Math.max(width, node.size[0], WIDTH), Math.max(height, node.size[1])]);
}
