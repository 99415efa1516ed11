// @ts-check
/** What a node gave to the front end when it last ran: as it runs, after a change of tabs, and after a reload from the host's history. */

import { isAt, workflowOf } from "./node_places.js";

/** @typedef {{prompt: [number, string, Record<string, {class_type: string}>, any], outputs?: Record<string, any>}} Entry  of the history */

const LOOKED_AT = 32; // newest prompts of the history
const FRESH = 3000; // milliseconds for which one answer serves all nodes of a page that is being loaded

/** @type {Map<any, {key: string, show: (output: any[]) => void}>} */
const open = new Map();
/** @type {{at: number, entries: Promise<Entry[]>} | null} */
let asked = null;

/**
 * Calls back with the node's output under `key` whenever there is a new one, or one from before the page was loaded.
 * @param {any} node @param {any} api @param {string} key @param {(output: any[]) => void} show
 */
export function followOutput(node, api, key, show) {
  let seen = false;
  const entry = {
    key,
    show: (/** @type {any[]} */ output) => {
      seen = true;
      show(output);
    },
  };
  open.set(node, entry);
  const executed = node.onExecuted, removed = node.onRemoved;
  node.onExecuted = function (/** @type {any} */ output, /** @type {any[]} */ ...rest) {
    executed?.call(this, output, ...rest);
    if (output?.[key]) entry.show(output[key]);
  };
  node.onRemoved = function (/** @type {any[]} */ ...rest) {
    removed?.apply(this, rest);
    open.delete(node);
  };
  // The node has its id only after it was put into the graph.
  setTimeout(async () => {
    const before = newest(await history(api), node, key);
    if (before && !seen && open.has(node)) entry.show(before);
  }, 0);
}

/**
 * As `followOutput`, for pictures in the host's temp folder. Those of an earlier run may be gone; then nothing is shown.
 * @param {any} node @param {any} api @param {string} key @param {(frames: any[]) => void} show
 */
export function followPictures(node, api, key, show) {
  /** @type {any[]} */
  let newest = [];
  followOutput(node, api, key, async (frames) => {
    newest = frames;
    if (frames.length && (await isThere(api, frames[0])) && newest === frames && open.has(node)) show(frames);
  });
}

/** Asks the server, as the browser may still have a copy. @param {any} api @param {{filename: string, subfolder: string, type: string}} file @returns {Promise<boolean>} */
function isThere(api, file) {
  return api.fetchApi(viewOf(file), { method: "HEAD", cache: "no-store" }).then((/** @type {Response} */ answer) => answer.ok, () => false);
}

/** The host brings the outputs of earlier runs back, as for another tab of the workflow. @param {Record<string, any>} outputs by the node's place in the graph */
export function showOutputs(outputs) {
  for (const [node, { key, show }] of open) {
    const entry = Object.entries(outputs ?? {}).find(([place]) => isAt(node, place));
    if (entry?.[1]?.[key]) show(entry[1][key]);
  }
}

/** The route of a file that a node has left in one of the host's folders. @param {{filename: string, subfolder: string, type: string}} file */
export function viewOf({ filename, subfolder, type }) {
  return `/view?${new URLSearchParams({ filename, subfolder, type })}`;
}

/** Newest last; nothing where the server does not answer. @param {any} api @returns {Promise<Entry[]>} */
function history(api) {
  if (!asked || Date.now() - asked.at > FRESH) {
    const entries = api
      .fetchApi(`/history?max_items=${LOOKED_AT}`)
      .then((/** @type {Response} */ answer) => answer.json())
      .then((/** @type {Record<string, Entry>} */ all) => Object.values(all).sort((a, b) => a.prompt[0] - b.prompt[0]))
      .catch(() => []);
    asked = { at: Date.now(), entries };
  }
  return asked.entries;
}

/** What the node itself has given last, in this workflow: others have nodes of the same number. @param {Entry[]} entries @param {any} node @param {string} key */
function newest(entries, node, key) {
  const workflow = workflowOf(node);
  if (!workflow) return null;
  for (const { prompt, outputs } of entries.slice().reverse()) {
    if (prompt[3]?.extra_pnginfo?.workflow?.id !== workflow) continue;
    const place = Object.keys(outputs ?? {}).find((each) => isAt(node, each) && prompt[2][each]?.class_type === node.comfyClass);
    if (place && outputs?.[place][key]) return outputs[place][key];
  }
  return null;
}
