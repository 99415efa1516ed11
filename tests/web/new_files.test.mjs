// The lists of the loaders: files that were just written, and names from another system.

import assert from "node:assert/strict";
import { test } from "node:test";

import { followNewFiles, portableName } from "../../web/new_files.js";

test("the lists are read anew once for each file that a node has written", () => {
  const api = new EventTarget(), say = (kind, detail) => api.dispatchEvent(Object.assign(new Event(kind), { detail }));
  let read = 0;
  followNewFiles({ reloadNodeDefs: async () => read++ }, api);
  say("executed", { output: { text: ["hello"] } });
  say("executed", { output: null });
  say("sparsedict.train", { event: "step" });
  assert.equal(read, 0);
  say("sparsedict.train", { event: "finished", file: "one.safetensors" });
  say("executed", { output: { sparsedict_file: ["one.safetensors"] } });
  assert.equal(read, 1);
  say("executed", { output: { sparsedict_file: ["two.safetensors"] } });
  assert.equal(read, 2);
});

test("hosts that have no quiet way are asked in the usual one", () => {
  const api = new EventTarget();
  let read = 0;
  followNewFiles({ refreshComboInNodes: async () => read++ }, api);
  api.dispatchEvent(Object.assign(new Event("executed"), { detail: { output: { sparsedict_file: ["three.safetensors"] } } }));
  assert.equal(read, 1);
});

test("a name from Windows is the same name in the list of another system, and the other way round", () => {
  const loaded = (value, values, comfyClass = "SparseDictLoad", name = "file") => {
    const node = { comfyClass, widgets: [{ name, value, options: { values } }] };
    portableName(node);
    return node.widgets[0].value;
  };
  assert.equal(loaded("sub dir\\x.safetensors", ["a", "sub dir/x.safetensors"]), "sub dir/x.safetensors");
  assert.equal(loaded("sub dir/x.safetensors", ["sub dir\\x.safetensors"], "SparseDictLoader"), "sub dir\\x.safetensors");
  assert.equal(loaded("my\\pictures", ["my/pictures"], "SparseDictLoadImageSet", "folder"), "my/pictures");
  assert.equal(loaded("gone\\x", ["a"]), "gone\\x");
  assert.equal(loaded("a\\b", ["a/b"], "CheckpointLoaderSimple"), "a\\b");
});
