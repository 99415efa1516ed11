// @ts-check
/** Files in the lists of the loaders: those that a node has just written, and names from another system. */

const UI = "sparsedict_file"; // as nodes/files.py names it
const FIELDS = { SparseDictLoad: "file", SparseDictLoader: "file", SparseDictLoadImageSet: "folder" };

/** Names that the lists have been read for. @type {Set<string>} */
const listed = new Set();

/** Reads the lists anew when a node has written a file that they may not have yet. Once. @param {any} app @param {any} api */
export function followNewFiles(app, api) {
  /** @param {string | null | undefined} file */
  const note = (file) => {
    if (!file || listed.has(file)) return;
    listed.add(file);
    // Newer hosts do it without a message on the screen.
    Promise.resolve(app.reloadNodeDefs ? app.reloadNodeDefs() : app.refreshComboInNodes()).catch(() => listed.delete(file));
  };
  api.addEventListener("executed", (/** @type {CustomEvent} */ event) => note(event.detail?.output?.[UI]?.[0]));
  // A run that was cancelled has written its file too, but the node gives no output.
  api.addEventListener("sparsedict.train", (/** @type {CustomEvent} */ event) => note(event.detail?.file));
}

/** `sub\\x.safetensors` of a workflow from Windows is `sub/x.safetensors` in this system's list, and the other way round. @param {any} node */
export function portableName(node) {
  const name = FIELDS[/** @type {keyof typeof FIELDS} */ (node.comfyClass)];
  const field = name && node.widgets?.find((/** @type {any} */ each) => each.name === name), values = field?.options?.values;
  if (!Array.isArray(values) || typeof field.value !== "string" || values.includes(field.value)) return;
  const plain = (/** @type {unknown} */ value) => String(value).replaceAll("\\", "/");
  const same = values.find((value) => plain(value) === plain(field.value));
  if (same !== undefined) field.value = same;
}
