// @ts-check
/** What ComfyUI loads: puts the pack's panels on its nodes. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { addSelector, forgetFiles } from "./select_atoms_node.js";

app.registerExtension({
  name: "SparseDict",
  /** @param {any} node */
  nodeCreated(node) {
    if (node.comfyClass === "SparseDictSelectAtoms") addSelector(node, { app, api });
  },
  /** The node definitions are read anew (R): so are the files. */
  refreshComboInNodes: forgetFiles,
});
