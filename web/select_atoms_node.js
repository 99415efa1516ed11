// @ts-check
/** Puts the atom selector on the nodes Select Atoms, and keeps it, the node's widgets and the file before it in step. */

import { mount } from "./atom_selector.js";
import { viewOf } from "./earlier_runs.js";
import { foldFields, hostFolds, onRendererChange } from "./fields.js";
import { fetchTable, fileChanges } from "./file_tables.js";
import { addPanel, growWith } from "./panel_widget.js";
import { DEFAULT_CHOICE, composed } from "./table.js";
import { t } from "./texts.js";
import { choiceOf, filesOf, linkedWidgets, sourceOf } from "./upstream.js";

/** @typedef {import("./upstream.js").Source} Source @typedef {import("./upstream.js").Step} Step @typedef {import("./table.js").TableJson} TableJson */

const FIELDS_SHOWN = "sparsedict_fields";
const WIDTH = 420;
const LOOK = 400; // milliseconds between looks at what is connected

/** Of compositions, by the first part. @type {WeakMap<TableJson, {parts: {name: string, json: TableJson}[], json: TableJson}>} */
const compositions = new WeakMap();

/** The same object as before where the parts are the same. @param {{name: string, json: TableJson}[]} parts */
function joined(parts) {
  const before = compositions.get(parts[0].json);
  if (before?.parts.length === parts.length && parts.every(({ name, json }, i) => name === before.parts[i].name && json === before.parts[i].json)) return before.json;
  const json = composed(parts);
  compositions.set(parts[0].json, { parts, json });
  return json;
}

/**
 * @param {any} node
 * @param {{app: any, api: any}} host
 */
export function addSelector(node, { app, api }) {
  const container = document.createElement("div");
  let greedy = false, shown = "", closed = false;
  /** What the panel has got. @type {{json: TableJson, chain: Step[]} | null} */
  let given = null;

  const nothing = t("Connect a Load Sparse Dict node: its atoms appear here.");
  const selector = mount(container, choiceOf(node), write, { needGreedy, toggleFields, resized, nothing, undoes: true });
  addPanel(node, "atom_selector", container, () => selector.height());
  node.sparsedictSelector = selector;

  /** The node grows with its rows, and keeps what a person has given it beyond that. */
  function resized() {
    growWith(node, container, selector.height());
  }

  /** The choice into the node's own widgets: that is where the workflow, the queue and the cache look. @param {import("./table.js").Choice} choice */
  function write(choice) {
    for (const [name, value] of Object.entries(choice)) {
      const field = node.widgets.find((/** @type {any} */ each) => each.name === name);
      // Not over the widget's callback, which would round the share to what the field shows.
      if (field && field.value !== value) field.value = value;
    }
    node.graph?.setDirtyCanvas?.(true, true);
    app.extensionManager?.workflow?.activeWorkflow?.changeTracker?.checkState?.();
  }

  function needGreedy() {
    if (greedy) return;
    greedy = true;
    shown = "";
  }

  function toggleFields() {
    node.properties[FIELDS_SHOWN] = !node.properties[FIELDS_SHOWN];
    showFields();
  }

  /** The plain widgets, hidden while the panel stands for them; those that are linked stay. */
  function showFields() {
    const linked = linkedWidgets(node), shown = !!node.properties[FIELDS_SHOWN];
    foldFields(node, ({ name }) => (name in DEFAULT_CHOICE ? !linked.includes(name) : null), shown);
    selector.setSwitch(!hostFolds(node));
  }

  /** @param {Source} source @returns {Promise<{json: TableJson, chain: Step[]} | {error: string}>} */
  async function load(source) {
    if ("missing" in source) return { error: source.missing };
    if ("probed" in source) return loadProbed(source.probed, source.before, source.chain);
    if ("left" in source) {
      const json = await fetchTable(api, viewOf(source.left), "the LoRA's table");
      // As after a restart of the server, which empties the folder.
      return "error" in json ? { error: t("The LoRA is taken apart when this runs. Its atoms appear here then.") } : { json, chain: source.chain };
    }
    if ("file" in source) {
      const json = await fetchTable(api, `/sparsedict/adapter?file=${encodeURIComponent(source.file)}${greedy ? "&order=greedy" : ""}`, source.file);
      return "error" in json ? json : { json, chain: source.chain };
    }
    const parts = [];
    for (const { name, source: part } of source.parts) {
      const loaded = await load(part);
      if ("error" in loaded) return loaded;
      parts.push({ name, json: loaded.json });
    }
    return { json: joined(parts), chain: source.chain };
  }

  /**
   * A probe's table; the file's, where the probe's is gone, as after a restart of the server.
   * @param {import("./upstream.js").Saved} probed @param {Source} before @param {Step[]} chain @returns {ReturnType<typeof load>}
   */
  async function loadProbed(probed, before, chain) {
    const json = await fetchTable(api, viewOf(probed), "the probe's table"), file = "error" in json || greedy ? await load(before) : null;
    if ("error" in json) return file && "json" in file ? { json: file.json, chain: [...file.chain, ...chain] } : file ?? json;
    // The greedy order is of the dictionary alone, whatever the prompt.
    const known = file && "json" in file && file.json.greedy?.order.length === json.sites.reduce((sum, site) => sum + site.atom_ids.length, 0);
    const left = json.left == null ? [] : [{ ...DEFAULT_CHOICE, mode: "addresses", atoms: json.left }];
    return { json: greedy ? { ...json, greedy: known ? file.json.greedy : null, has_moments: !!known } : json, chain: [...left, ...chain] };
  }

  async function look() {
    if (closed) return;
    const source = sourceOf(node), linked = linkedWidgets(node), key = JSON.stringify([source, greedy, linked, fileChanges()]);
    if (key !== shown) {
      shown = key;
      selector.setLinked(linked);
      if (linked.length) showFields();
      const loaded = await load(source);
      if (key !== shown || closed) return;
      if ("error" in loaded) {
        given = null;
        selector.setMessage(loaded.error);
        selector.setTable(null);
        // It may be there a little later, as after a copy.
        if (filesOf(source).length) setTimeout(() => (shown = shown === key ? "" : shown), 4000);
      } else if (loaded.json !== given?.json || JSON.stringify(loaded.chain) !== JSON.stringify(given.chain)) {
        // Not where all is as it was: somebody may have their hand on it.
        given = loaded;
        selector.setTable(loaded.json, loaded.chain);
      }
    }
    selector.setValue(choiceOf(node));
  }
  // The front end tells of changed links, but not of values that change in nodes before this one.
  const timer = setInterval(look, LOOK), endRenderer = onRendererChange(app, showFields);

  const configured = node.onConfigure, connected = node.onConnectionsChange, removed = node.onRemoved;
  node.onConfigure = function (/** @type {any[]} */ ...rest) {
    configured?.apply(this, rest);
    showFields();
    look();
  };
  node.onConnectionsChange = function (/** @type {any[]} */ ...rest) {
    connected?.apply(this, rest);
    look();
  };
  node.onRemoved = function (/** @type {any[]} */ ...rest) {
    removed?.apply(this, rest);
    closed = true;
    clearInterval(timer);
    endRenderer();
    selector.destroy();
  };
  node.size[0] = Math.max(node.size[0], WIDTH);
  showFields();
  queueMicrotask(look);
}
