// @ts-check
/** Puts the viewer on the nodes Sweep Viewer and hands it what they have made. */

import { followPictures, viewOf } from "./earlier_runs.js";
import { addPanel } from "./panel_widget.js";
import { VIEWER_HEIGHT, mountViewer } from "./sweep_viewer.js";
import { t } from "./texts.js";

/** @typedef {import("./sweep_viewer.js").Frame} Frame */

const UI = "sparsedict_sweep";
const WIDTH = 340;

/** @param {any} node @param {any} api */
export function addViewer(node, api) {
  const container = document.createElement("div");
  const viewer = mountViewer(container, {
    url: (frame) => api.apiURL(viewOf(frame)),
    gif: (frames) => gif(api, frames),
  });
  addPanel(node, "sweep_viewer", container, () => VIEWER_HEIGHT);
  node.sparsedictViewer = viewer;
  followPictures(node, api, UI, viewer.set);
  const removed = node.onRemoved;
  node.onRemoved = function (/** @type {any[]} */ ...rest) {
    removed?.apply(this, rest);
    viewer.destroy();
  };
  const [width, height] = node.computeSize();
  node.setSize([Math.max(width, node.size[0], WIDTH), Math.max(height, node.size[1])]);
}

/** @param {any} api @param {Frame[]} frames @returns {Promise<Blob>} */
async function gif(api, frames) {
  let answer;
  try {
    answer = await api.fetchApi("/sparsedict/sweep_gif", {
      method: "POST", headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ frames: frames.map((frame) => frame.filename), labels: frames.map((frame) => frame.label) }),
    });
  } catch {
    throw new Error(t("The server does not answer; start it again."));
  }
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error ?? t("The server could not make the GIF; its log says why."));
  return answer.blob();
}
