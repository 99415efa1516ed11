// Which files reach a node, as far as the host's graph tells it before anything has run.

import assert from "node:assert/strict";
import { test } from "node:test";

import { DEFAULT_CHOICE } from "../../web/table.js";
import { beforeProbe, sourceOf } from "../../web/upstream.js";
import { graph, node } from "./graphs.mjs";

const load = (file, more = {}) => node("SparseDictLoad", "file=any", "d", { widgets: { file }, ...more });
const select = (share = 0.5, more = {}) => node("SparseDictSelectAtoms", "d share=f top=f threshold=f layers=f refit=f", "d", { widgets: { ...DEFAULT_CHOICE, share }, ...more });
const apply = (more = {}) => node("SparseDictApply", "m d", "m", more);
const probe = (which = -1) => node("SparseDictProbe", "m which=f", "d", { widgets: { which } });
const shares = (source) => source.chain.map((step) => step.share);
const unknown = (source) => /once it runs/.test(source.missing ?? "");
const BYPASSED = { mode: 4 }, MUTED = { mode: 2 };

test("bypassed nodes hand on what reaches them, muted ones nothing", () => {
  const through = (more) => {
    const last = select();
    graph("g", { 1: load("a"), 2: select(0.1, more), 3: select(0.2), 4: last }, ["1.0>2.0", "2.0>3.0", "3.0>4.0"]);
    return sourceOf(last);
  };
  assert.deepEqual(shares(through({})), [0.1, 0.2]);
  assert.deepEqual(shares(through(BYPASSED)), [0.2]);
  assert.deepEqual(through(MUTED), { missing: "" });
  const last = select();
  graph("g", { 1: load("a", BYPASSED), 2: last }, ["1.0>2.0"]);
  assert.deepEqual(sourceOf(last), { missing: "" });
});

test("a composition has no part from a node that gives none", () => {
  const compose = node("SparseDictCompose", "d d d", "d"), last = select();
  graph("g", { 1: load("a"), 2: load("b", BYPASSED), 3: load("c", MUTED), 4: compose, 5: last }, ["1.0>4.0", "2.0>4.1", "3.0>4.2", "4.0>5.0"]);
  assert.deepEqual(sourceOf(last).parts.map((part) => part.name), ["a"]);
  compose.mode = 4;
  assert.deepEqual(sourceOf(last), { file: "a", chain: [] });
});

test("a probe watches the dictionaries that are applied, not the bypassed ones", () => {
  const build = (which, more) => {
    const last = probe(which), base = node("CheckpointLoaderSimple", "", "m");
    graph("g", { 1: load("a"), 2: load("b"), 3: base, 4: apply(), 5: apply(more), 6: node("LoraLoaderModelOnly", "m", "m"), 7: last },
      ["1.0>4.1", "2.0>5.1", "3.0>4.0", "4.0>5.0", "5.0>6.0", "6.0>7.0"]);
    return beforeProbe(last);
  };
  assert.equal(build(-1, {}).file, "b");
  assert.equal(build(-1, BYPASSED).file, "a");
  assert.equal(build(1, BYPASSED).file, "a");
  assert.deepEqual(build(2, BYPASSED), { missing: "" });
});

test("a LoRA's atoms are known once it has run, until another one is chosen", () => {
  const last = select(), taken = node("SparseDictFromLora", "m lora=any", "d", { widgets: { lora: "a.safetensors" } });
  const compose = node("SparseDictCompose", "d", "d"), after = select();
  graph("g", { 1: taken, 2: last, 3: compose, 4: after }, ["1.0>2.0", "1.0>3.0", "3.0>4.0"]);
  assert.match(sourceOf(last).missing, /when this runs/);
  taken.sparsedictTaken = { filename: "x.json", subfolder: "", type: "temp", lora: "a.safetensors", name: "a" };
  assert.deepEqual(sourceOf(last), { left: { filename: "x.json", subfolder: "", type: "temp" }, name: "a", chain: [] });
  assert.deepEqual(sourceOf(after).parts.map((part) => part.name), ["a"]);
  taken.widgets[0].value = "b.safetensors";
  assert.match(sourceOf(last).missing, /when this runs/);
});

test("the front end's own reroutes are followed, and nodes that take anything", () => {
  const last = select(), reroute = node("Reroute", "any", "any", { isVirtualNode: true });
  graph("g", { 1: load("a"), 2: reroute, 3: node("any", "f any", "any"), 4: last }, ["1.0>2.0", "2.0>3.1", "3.0>4.0"]);
  assert.equal(sourceOf(last).file, "a");
});

test("a node that was taken out of its graph asks nothing of it", () => {
  const last = select();
  graph("g", { 1: load("a"), 2: last }, ["1.0>2.0"]);
  last.graph = null;
  assert.ok(unknown(sourceOf(last)));
});

test("links in a circle end", () => {
  const last = select();
  graph("g", { 1: select(0.1, BYPASSED), 2: select(0.1, BYPASSED), 3: last }, ["1.0>2.0", "2.0>1.0", "2.0>3.0"]);
  assert.ok(unknown(sourceOf(last)));
});

test("a dictionary from a node that takes none is known once it runs", () => {
  const last = select();
  graph("g", { 1: node("Another", "m", "d"), 2: last }, ["1.0>2.0"]);
  assert.ok(unknown(sourceOf(last)));
});

test("a dictionary is followed into a subgraph and out of it again", () => {
  const build = (inner, links) => {
    const last = select(), round = node("round", "d", "d"), root = graph("g", { 1: load("a"), 2: round, 3: last }, ["1.0>2.0", "2.0>3.0"]);
    round.subgraph = graph("s", inner, links, root);
    return { last, round };
  };
  const inside = { 1: select(0.1), 2: load("b") };
  assert.deepEqual(shares(sourceOf(build(inside, ["in.0>1.0", "1.0>out.0"]).last)), [0.1]);
  assert.equal(sourceOf(build(inside, ["in.0>1.0", "1.0>out.0"]).last).file, "a");
  assert.equal(sourceOf(build(inside, ["2.0>out.0"]).last).file, "b");
  assert.deepEqual(sourceOf(build(inside, ["in.0>out.0"]).last), { file: "a", chain: [] });
  assert.deepEqual(sourceOf(build({ 1: select() }, []).last), { missing: "" });
  const { last, round } = build({ 1: node("SparseDictTrain", "m", "d") }, ["1.0>out.0"]);
  assert.match(sourceOf(last).missing, /trained when this runs/);
  round.mode = 4;
  assert.deepEqual(sourceOf(last), { file: "a", chain: [] });
});

test("a node in a subgraph knows what comes from outside of it, also from two levels up", () => {
  const inner = select(), round = () => node("round", "d", ""), root = graph("g", { 1: load("a"), 2: select(0.3), 3: round() }, ["1.0>2.0", "2.0>3.0"]);
  const middle = graph("m", { 1: round() }, ["in.0>1.0"], root);
  root.getNodeById(3).subgraph = middle;
  middle.getNodeById(1).subgraph = graph("s", { 1: inner }, ["in.0>1.0"], root);
  assert.deepEqual([sourceOf(inner).file, shares(sourceOf(inner))], ["a", [0.3]]);
});

test("a file's field that is promoted to the subgraph's node is read there, unless it comes over a link there too", () => {
  const build = (outer, links = []) => {
    const inner = select(), round = node("round", "file=any", "", { widgets: outer }), nodes = { 1: node("PrimitiveString", "", "any"), 2: round };
    const root = graph("g", nodes, links);
    round.subgraph = graph("s", { 1: load("inner"), 2: inner }, ["in.0>1.0", "1.0>2.0"], root);
    return sourceOf(inner);
  };
  assert.equal(build({ file: "outer" }).file, "outer");
  assert.ok(unknown(build({ file: "outer" }, ["1.0>2.0"])));
});

test("where a subgraph is used several times, a node in it knows what all uses have in common", () => {
  const inner = select(), build = (...files) => {
    const nodes = { 1: load(files[0]), 2: load(files[1]), 3: node("round", "d", ""), 4: node("round", "d", "") };
    const root = graph("g", nodes, ["1.0>3.0", "2.0>4.0"]);
    nodes[3].subgraph = nodes[4].subgraph = graph("s", { 1: inner }, ["in.0>1.0"], root);
    return sourceOf(inner);
  };
  assert.equal(build("a", "a").file, "a");
  assert.match(build("a", "b").missing, /several times/);
});

test("a node in a subgraph that nobody uses knows nothing of what is outside", () => {
  const inner = select(), root = graph("g", { 1: load("a") }, []);
  graph("s", { 1: inner }, ["in.0>1.0"], root);
  assert.ok(unknown(sourceOf(inner)));
});

test("after a training in the same graph, its file is known", () => {
  const last = select(), train = node("SparseDictTrain", "m", "d");
  graph("g", { 1: train, 2: select(0.2), 3: last }, ["1.0>2.0", "2.0>3.0"]);
  assert.match(sourceOf(last).missing, /trained when this runs/);
  train.sparsedictTrained = "concept.safetensors";
  assert.deepEqual([sourceOf(last).file, shares(sourceOf(last))], ["concept.safetensors", [0.2]]);
});

test("a probe in a subgraph does not know how many dictionaries come from outside of it", () => {
  const last = probe(), root = graph("g", {}, []);
  graph("s", { 1: load("a"), 2: apply(), 3: last }, ["in.0>2.0", "1.0>2.1", "2.0>3.0"], root);
  const at = (which) => {
    last.widgets[0].value = which;
    return beforeProbe(last);
  };
  assert.equal(at(-1).file, "a");
  assert.ok(unknown(at(1)) && unknown(at(-2)));
});

test("what an earlier node keeps by a linked value is known once it runs", () => {
  const build = (input, mode) => {
    const last = select(), earlier = select(0.1);
    earlier.widgets.find(({ name }) => name === "mode").value = mode;
    graph("g", { 1: load("a"), 2: earlier, 3: node("PrimitiveFloat", "", "f"), 4: last }, ["1.0>2.0", "2.0>4.0", `3.0>2.${input}`]);
    return sourceOf(last);
  };
  assert.ok(unknown(build(1, "share")) && unknown(build(1, "importance share")) && unknown(build(2, "top")) && unknown(build(3, "threshold")) && unknown(build(4, "addresses")));
  for (const [input, mode] of [[1, "top"], [2, "share"], [5, "share"], [1, "addresses"]]) assert.deepEqual(shares(build(input, mode)), [0.1], `${input} ${mode}`);
});

test("a probe whose dictionary or its share comes over a link does not know it", () => {
  const last = probe(), loader = node("SparseDictLoader", "m share=f", "m", { widgets: { file: "a", share: 0.5 } });
  const build = (...links) => {
    for (const each of [last, loader]) each.inputs.forEach((input) => (input.link = null));
    graph("g", { 1: loader, 2: last, 3: node("PrimitiveFloat", "", "f") }, ["1.0>2.0", ...links]);
    return beforeProbe(last);
  };
  assert.deepEqual(shares(build()), [0.5]);
  assert.ok(unknown(build("3.0>1.1")) && unknown(build("3.0>2.1")));
});
