// Which run is a node's own, and which of the outputs that the host keeps.

import assert from "node:assert/strict";
import { test } from "node:test";

import { isAt, isRunOf, workflowOf } from "../../web/node_places.js";
import { graph, node } from "./graphs.mjs";

test("a run is a node's own in its workflow and at its place alone", () => {
  const inner = node("SparseDictTrain", "", "d"), first = node("SparseDictTrain", "", "d");
  const root = graph("mine", { 1: first, 12: node("round", "", ""), 13: node("round", "", "") }, []);
  const subgraph = graph("definition", { 1: inner }, [], root);
  root.getNodeById(12).subgraph = root.getNodeById(13).subgraph = subgraph;
  assert.equal(workflowOf(inner), "mine");
  assert.ok(isRunOf(first, { node: "1", workflow: "mine" }));
  assert.ok(!isRunOf(first, { node: "1", workflow: "another" }));
  assert.ok(!isRunOf(first, { node: "2", workflow: "mine" }));
  assert.ok(isRunOf(first, { node: "1", workflow: null }) && isRunOf(first, { node: "1" }));
  assert.ok(!isRunOf(first, { node: null, workflow: "mine" }));
  assert.ok(isRunOf(inner, { node: "12:1", workflow: "mine" }) && isRunOf(inner, { node: "13:1", workflow: "mine" }));
  assert.ok(!isRunOf(first, { node: "12:1", workflow: "mine" }));
  for (const place of ["1", "14:1", "1:1", "12:2", "12:12:1"]) assert.ok(!isRunOf(inner, { node: place, workflow: "mine" }), place);
  assert.ok(isAt(inner, "definition:1") && !isAt(first, "definition:1") && !isAt(inner, "another:1"));
});
