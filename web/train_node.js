// @ts-check
/** Puts the training monitor on the nodes Train Sparse Dict and feeds it. */

import { followOutput } from "./earlier_runs.js";
import { foldFields, hostFolds, onRendererChange } from "./fields.js";
import { isRunOf } from "./node_places.js";
import { addPanel, growWith } from "./panel_widget.js";
import { mountMonitor } from "./train_monitor.js";
import { t } from "./texts.js";
import { linkedWidgets } from "./upstream.js";

const FIELDS_SHOWN = "sparsedict_fields";
const ALWAYS = ["preview_prompts"]; // optional, but what a person wants to see of a run
const WIDTH = 400;
const UI = "sparsedict_file"; // as nodes/files.py names it

/** @type {Set<{node: any, monitor: ReturnType<typeof mountMonitor>}>} */
const open = new Set();

/** Once. @param {any} api */
export function listen(api) {
  api.addEventListener("sparsedict.train", (/** @type {CustomEvent} */ event) => {
    for (const { node, monitor } of open) {
      if (!isRunOf(node, event.detail)) continue;
      monitor.note(event.detail);
      if (event.detail.file) node.sparsedictTrained = event.detail.file;
    }
  });
  for (const [name, text] of [["execution_error", "Stopped"], ["execution_interrupted", "Interrupted"]]) {
    api.addEventListener(name, () => open.forEach(({ monitor }) => monitor.ended(text)));
  }
}

/** @param {any} api @param {import("./train_monitor.js").Run} run */
async function keep(api, { node, prompt }) {
  let answer;
  try {
    answer = await api.fetchApi("/sparsedict/train/keep", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ node, prompt }) });
  } catch {
    throw new Error(t("The server does not answer; start it again."));
  }
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error ?? t("The server cannot stop the run; the host's own button can."));
}

/** @param {any} node @param {{app: any, api: any}} host */
export function addMonitor(node, { app, api }) {
  const container = document.createElement("div");
  const monitor = mountMonitor(container, {
    keep: (run) => keep(api, run),
    previewUrl: (number) => api.apiURL(`/sparsedict/train/preview?number=${number}`),
    resized: fit,
    toggleFields() {
      node.properties[FIELDS_SHOWN] = !node.properties[FIELDS_SHOWN];
      fold();
    },
  });
  addPanel(node, "train_monitor", container, () => monitor.height());
  node.sparsedictMonitor = monitor;
  /** The node grows with the panel, and keeps what a person has given it beyond that. */
  function fit() {
    growWith(node, container, monitor.height());
  }
  /** Optional settings are hidden while they are at their defaults. */
  function fold() {
    const shown = !!node.properties[FIELDS_SHOWN], linked = linkedWidgets(node), optional = node.constructor.nodeData?.input?.optional ?? {};
    const folds = (/** @type {any} */ { name, value }) => {
      const options = optional[name]?.[1];
      return options?.default === undefined ? null : !ALWAYS.includes(name) && !linked.includes(name) && value === options.default;
    };
    foldFields(node, folds, shown);
    monitor.setSwitch(shown, !hostFolds(node));
  }
  const entry = { node, monitor };
  open.add(entry);
  const endRenderer = onRendererChange(app, fold);
  followOutput(node, api, UI, ([file]) => (node.sparsedictTrained = file ?? null));
  const removed = node.onRemoved, configured = node.onConfigure, connected = node.onConnectionsChange;
  node.onConfigure = function (/** @type {any[]} */ ...rest) {
    configured?.apply(this, rest);
    const size = [...node.size];
    fold();
    // A workflow keeps the size that it was saved with.
    node.setSize([Math.max(size[0], node.computeSize()[0]), Math.max(size[1], node.computeSize()[1])]);
  };
  node.onConnectionsChange = function (/** @type {any[]} */ ...rest) {
    connected?.apply(this, rest);
    fold();
  };
  node.onRemoved = function (/** @type {any[]} */ ...rest) {
    removed?.apply(this, rest);
    open.delete(entry);
    endRenderer();
    monitor.destroy();
  };
  node.size[0] = Math.max(node.size[0], WIDTH);
  fold();
  // The node has its id only after it was put into the graph.
  setTimeout(async () => {
    try {
      const job = await (await api.fetchApi("/sparsedict/train")).json();
      if (!job || !open.has(entry) || monitor.points() || !isRunOf(node, job)) return;
      monitor.restore(job);
      if (job.file) node.sparsedictTrained ??= job.file;
    } catch {
      // An older server of the pack, or none: the monitor starts with the next run.
    }
  }, 0);
}
