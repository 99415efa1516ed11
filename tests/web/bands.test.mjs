// Where in its model a site is, in the words that people use.

import assert from "node:assert/strict";
import { test } from "node:test";

import { bandsOf, runsOf } from "../../web/bands.js";

test("the blocks of SDXL have the names that block-weight tools use", () => {
  const at = (block) => `unet.${block}.transformer_blocks.0.attn1.to_out.0`;
  const blocks = ["down_blocks.1.attentions.0", "down_blocks.2.attentions.1", "mid_block.attentions.0", "up_blocks.0.attentions.0", "up_blocks.1.attentions.2"];
  const bands = bandsOf(blocks.map(at));
  assert.deepEqual(bands.map((band) => band?.block), ["IN04", "IN08", "MID", "OUT00", "OUT05"]);
  assert.deepEqual(runsOf(bands, blocks.map(() => null)), [{ name: "IN", from: 0, to: 1 }, { name: "MID", from: 2, to: 2 }, { name: "OUT", from: 3, to: 4 }]);
});

test("double and single are said where there are both, and nothing where all blocks are alike", () => {
  const flux = ["transformer.transformer_blocks.3.attn.to_out.0", "transformer.single_transformer_blocks.7.proj_out"];
  assert.deepEqual(bandsOf(flux).map((band) => band?.block), ["double 3", "single 7"]);
  assert.deepEqual(bandsOf([flux[0], flux[0]]), [null, null]);
  assert.deepEqual(bandsOf(["blocks.0.self_attn.o"]), [null]);
});

test("members of a composition have bands of their own", () => {
  const band = { name: "IN", block: "IN04" };
  assert.equal(runsOf([band, band, band], ["a", "a", "b"]).length, 2);
});
