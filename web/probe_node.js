// @ts-check
/** Remembers what the nodes Probe Atoms and Sparse Dict from LoRA have found out, for the Select Atoms after them. */

import { followOutput } from "./earlier_runs.js";
import { beforeProbe } from "./upstream.js";

const UI = "sparsedict_probe", LORA = "sparsedict_lora";

/** @param {any} node @param {any} api */
export function addProbe(node, api) {
  followOutput(node, api, UI, ([saved]) => {
    // It says nothing of what is connected later.
    node.sparsedictProbed = { saved, before: JSON.stringify(beforeProbe(node)) };
  });
}

/** @param {any} node @param {any} api */
export function addLora(node, api) {
  followOutput(node, api, LORA, ([taken]) => (node.sparsedictTaken = taken));
}
