import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import { printable } from "../../web/shown_text.js";

test("text of files is made fit to be shown as in Python", () => {
  const vectors = JSON.parse(readFileSync(new URL("../vectors/shown_text.json", import.meta.url), "utf8"));
  for (const [text, shown] of vectors) assert.equal(printable(text), shown);
});
