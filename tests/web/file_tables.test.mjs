// Tables of files: asked for once, and again where files may have changed.

import assert from "node:assert/strict";
import { test } from "node:test";

import { fetchTable, fileChanges, followRuns, forgetFiles } from "../../web/file_tables.js";

/** A server with one file. */
function server() {
  const api = new EventTarget();
  return Object.assign(api, {
    asked: 0, tag: "1", title: "first",
    async fetchApi() {
      api.asked++;
      return new Response(JSON.stringify({ title: api.title, sites: [] }), { headers: api.tag ? { ETag: api.tag } : {} });
    },
  });
}

test("a file is asked for once, and again after a refresh", async () => {
  const api = server(), before = fileChanges();
  const [one, other] = await Promise.all([fetchTable(api, "/a", "a"), fetchTable(api, "/a", "a")]);
  assert.ok(one === other && api.asked === 1);
  Object.assign(api, { tag: "2", title: "second" });
  assert.equal((await fetchTable(api, "/a", "a")).title, "first");
  forgetFiles();
  assert.ok(fileChanges() !== before);
  assert.equal((await fetchTable(api, "/a", "a")).title, "second");
});

test("the table of a file that has not changed stays the same object", async () => {
  const api = server(), before = await fetchTable(api, "/b", "b");
  forgetFiles();
  assert.equal(await fetchTable(api, "/b", "b"), before);
  assert.equal(api.asked, 2);
  api.tag = "";
  forgetFiles();
  assert.notEqual(await fetchTable(api, "/b", "b"), before);
});

test("the end of a run may leave other files", () => {
  const api = server();
  followRuns(api);
  for (const name of ["execution_success", "execution_error", "execution_interrupted"]) {
    const before = fileChanges();
    api.dispatchEvent(new Event(name));
    assert.notEqual(fileChanges(), before, name);
  }
});

test("what cannot be read is asked for again after a while", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const api = server(), { fetchApi } = api;
  api.fetchApi = async () => {
    throw new TypeError("failed to fetch");
  };
  assert.match((await fetchTable(api, "/c", "c.safetensors")).error, /c\.safetensors cannot be read/);
  api.fetchApi = fetchApi;
  assert.ok((await fetchTable(api, "/c", "c.safetensors")).error);
  context.mock.timers.tick(5000);
  assert.equal((await fetchTable(api, "/c", "c.safetensors")).title, "first");
});
