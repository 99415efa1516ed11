// @ts-check
/** What ComfyUI loads: puts the pack's panels on its nodes. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { addComparer } from "./compare_node.js";
import { showOutputs } from "./earlier_runs.js";
import { followRuns, forgetFiles } from "./file_tables.js";
import { followNewFiles, portableName } from "./new_files.js";
import { addLora, addProbe } from "./probe_node.js";
import { addSelector } from "./select_atoms_node.js";
import { addViewer } from "./sweep_node.js";
import { setTheme } from "./style.js";
import { followLocale } from "./texts.js";
import { addMonitor, listen } from "./train_node.js";

setTheme({
  text: "--input-text", muted: "--descrip-text", field: "--comfy-input-bg", menu: "--comfy-menu-bg", border: "--border-color",
  accent: "--p-primary-color", error: "--error-text",
});
followLocale(() => app.extensionManager?.setting?.get?.("Comfy.Locale"));
// At once: where a training runs while the page loads, its events come before `setup`.
listen(api);
followRuns(api);
followNewFiles(app, api);

app.registerExtension({
  name: "SparseDict",
  /** @param {any} node */
  nodeCreated(node) {
    if (node.comfyClass === "SparseDictSelectAtoms") addSelector(node, { app, api });
    if (node.comfyClass === "SparseDictProbe") addProbe(node, api);
    if (node.comfyClass === "SparseDictFromLora") addLora(node, api);
    if (node.comfyClass === "SparseDictTrain") addMonitor(node, { app, api });
    if (node.comfyClass === "SparseDictSweepViewer") addViewer(node, api);
    if (node.comfyClass === "SparseDictCompare") addComparer(node, api);
  },
  /** A workflow is loaded. @param {any} node */
  loadedGraphNode: portableName,
  onNodeOutputsUpdated: showOutputs,
  /** The node definitions are read anew (R): so are the files. */
  refreshComboInNodes: forgetFiles,
});
