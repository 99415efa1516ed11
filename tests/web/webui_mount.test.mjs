// javascript/sparsedict.js as the web UI's page runs it: a plain script among the host's own.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import vm from "node:vm";

const SCRIPT = readFileSync(new URL("../../javascript/sparsedict.js", import.meta.url), "utf8");

/** @param {{className: string, dataset: Record<string, string>}[]} containers @param {string} baseURI */
function page(containers, baseURI = "http://127.0.0.1:7860/") {
  const updates = [], mounted = [], asked = [];
  const context = vm.createContext({
    URL, document: { baseURI },
    onAfterUiUpdate: (callback) => updates.push(callback),
    gradioApp: () => ({ querySelectorAll: () => containers.filter(({ dataset }) => !("mounted" in dataset)) }),
    fetch: async (address, options) => (asked.push([address, options.method]), { json: async () => ["answer"] }),
  });
  vm.runInContext(SCRIPT, context);
  context.sparsedictPanel = (container) => mounted.push(["panel", container.dataset.tab]);
  context.sparsedictMonitor = () => mounted.push(["monitor"]);
  return { update: () => updates.forEach((callback) => callback()), mounted, asked, run: (code) => vm.runInContext(code, context) };
}

test("each container is mounted once, whenever the host puts it there", () => {
  const containers = [{ dataset: { tab: "txt2img" } }, { dataset: {} }];
  const { update, mounted } = page(containers);
  update();
  update();
  assert.deepEqual(mounted, [["panel", "txt2img"], ["monitor"]]);
  containers[0] = { dataset: { tab: "txt2img" } }; // the host has drawn it anew
  update();
  assert.deepEqual(mounted.slice(2), [["panel", "txt2img"]]);
});

test("routes are asked beside the page, also below a path and with a theme in the address", async () => {
  const { run, asked } = page([], "http://host/below/?__theme=dark");
  assert.deepEqual(await run("sparsedictAsk('inspect?name=a%20b')"), ["answer"]);
  await run("sparsedictAsk('train/keep', 'POST')");
  assert.deepEqual(asked, [["http://host/below/sparsedict/v1/inspect?name=a%20b", "GET"], ["http://host/below/sparsedict/v1/train/keep", "POST"]]);
});
