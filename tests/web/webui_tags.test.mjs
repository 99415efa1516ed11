// The web UI panel's reading and writing of prompt tags; tests/webui holds the core's parser to the same texts.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { DEFAULT_CHOICE, makeTable } from "../../web/table.js";
import { choiceOf, tagText, tagsIn, withChoice, withTag, without } from "../../webui_host/tags.js";

const site = (key, layer, atom_ids) => ({ key, label: `L${layer}`, layer, stream: null, member: null, atom_ids, importance: atom_ids.map((id) => id + 1) });
const table = makeTable({ sites: [site("a.0.to_out.0", 0, [0, 1, 2, 3]), site("a.1.to_out.0", 1, [0, 1, 2, 3])] });

test("tags are read with their options, wherever they stand", () => {
  const [cat, style] = tagsIn("a <sparsedict:animals/cat:0.8:keep=25%> on <lora:x:1> a beach <sparsedict:style:gain=cat:L1[2]*1.5:start=0.2>");
  assert.deepEqual([cat.name, cat.strength, cat.options], ["animals/cat", 0.8, { keep: "25%" }]);
  assert.deepEqual([style.name, style.strength, style.options], ["style", 1, { gain: "cat:L1[2]*1.5", start: "0.2" }]);
});

test("numbers are what the parser in Python takes for numbers, and small ones stay", () => {
  for (const [written, strength] of [["0.0004", 0.0004], ["-.5", -0.5], ["2e-1", 0.2], ["0x10", 1], ["0_8", 1], ["١", 1], ["", 1], ["Infinity", 1]]) {
    assert.equal(tagsIn(`<sparsedict:zorp:${written}>`)[0].strength, strength, written);
  }
  assert.equal(tagText(tagsIn("<sparsedict:zorp:0.0004>")[0]), "<sparsedict:zorp:0.0004>");
});

test("a choice becomes the shortest words of the grammar, and what it does not touch stays", () => {
  const rest = { gain: "L1*2", end: "0.9" };
  assert.deepEqual(withChoice({ top: "3", ...rest }, { ...DEFAULT_CHOICE, share: 0.25, layers: "L0, L1" }, table), { keep: "0.25", layers: "L0+L1", ...rest });
  assert.deepEqual(withChoice(rest, DEFAULT_CHOICE, table), rest);
  assert.deepEqual(withChoice({}, { ...DEFAULT_CHOICE, mode: "top", top: 5 }, table), { top: "5" });
  assert.deepEqual(withChoice({}, { ...DEFAULT_CHOICE, mode: "addresses", atoms: "L0[0-1,3], L1[2]" }, table), { atoms: "L0[0-1,3]+L1[2]" });
  assert.deepEqual(withChoice({}, { ...DEFAULT_CHOICE, share: 0.5, per_site: true }, table), { atoms: "L0[2-3]+L1[2-3]" });
  assert.deepEqual(withChoice({}, { ...DEFAULT_CHOICE, mode: "addresses", atoms: "" }, table), { keep: "0" });
});

test("the panel shows what a tag says", () => {
  assert.equal(choiceOf({ keep: "25%" }).share, 0.25);
  assert.deepEqual([choiceOf({ top: "9" }).mode, choiceOf({ top: "9" }).top], ["top", 9]);
  assert.deepEqual([choiceOf({ atoms: "L0[0-1,3]+L1[2]", layers: "L0+L1" }).atoms, choiceOf({ layers: "L0+L1" }).layers], ["L0[0-1,3], L1[2]", "L0, L1"]);
});

test("tags are written in their place, added, and taken out", () => {
  const prompt = "a cat <sparsedict:zorp:1> here", [tag] = tagsIn(prompt);
  assert.equal(withTag(prompt, tagText({ ...tag, strength: 0.75, options: { keep: "0.5" } }), tag), "a cat <sparsedict:zorp:0.75:keep=0.5> here");
  assert.equal(withTag("a cat", "<sparsedict:b:1>", null), "a cat <sparsedict:b:1>");
  assert.equal(without(prompt, tag), "a cat here");
});

test("what the panel writes is in the file that the core's parser is tried on", () => {
  const written = JSON.parse(readFileSync(new URL("../vectors/webui_tags.json", import.meta.url), "utf8"));
  for (const { text, choice } of written) assert.equal(tagText({ name: "zorp", strength: 0.8, options: withChoice({}, { ...DEFAULT_CHOICE, ...choice }, table) }), text);
});
