// What the panels are made of and needs no page: steps back and forth, words, languages.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";

import { patches } from "../../web/map_cells.js";
import { History } from "../../web/history.js";
import { TEXTS, followLocale, t } from "../../web/texts.js";
import { choiceInWords, keptInWords } from "../../web/words.js";
import { DEFAULT_CHOICE } from "../../web/table.js";

const WEB = new URL("../../web/", import.meta.url);
const sources = readdirSync(WEB).filter((name) => name.endsWith(".js") && name !== "texts.js").map((name) => readFileSync(new URL(name, WEB), "utf8"));

test("steps go back and forth, and a new one ends the way forward", () => {
  const history = new History(1);
  [2, 3, 4].forEach((step) => history.add(step));
  assert.equal(history.undo(), 3);
  assert.equal(history.undo(), 2);
  assert.equal(history.redo(), 3);
  history.add(5);
  assert.equal(history.redo(), undefined);
  history.drop(1);
  assert.deepEqual([history.now, history.undo(), history.undo(), history.undo()], [3, 2, 1, undefined]);
  history.reset(9);
  assert.deepEqual([history.now, history.past, history.future], [9, [], []]);
});

test("what changed in the map is painted in few rectangles, none of them far too large", () => {
  const none = [9, -1];
  const of = (/** @type {number[][]} */ rows) => patches(Int32Array.from(rows, ([from]) => from), Int32Array.from(rows, ([, to]) => to));
  const plain = (/** @type {number[][]} */ rows) => of(rows).map(({ top, bottom, from, to }) => [top, bottom, from, to]);
  assert.deepEqual(plain([none, none]), []);
  assert.deepEqual(plain([none, [2, 4], [2, 4], [2, 5], none, [0, 0]]), [[1, 3, 2, 5], [5, 5, 0, 0]]);
  assert.deepEqual(plain([[0, 0], [8, 8]]), [[0, 0, 0, 0], [1, 1, 8, 8]]);
  for (let turn = 0, state = 7; turn < 200; turn++) {
    const rows = Array.from({ length: 12 }, () => {
      const [a, b, some] = [0, 0, 0].map(() => (state = (state * 48271) % 2147483647) % 9);
      return some < 3 ? none : [Math.min(a, b), Math.max(a, b)];
    });
    const found = of(rows);
    rows.forEach(([from, to], row) => to >= 0 && assert.ok(found.some((each) => each.top <= row && row <= each.bottom && each.from <= from && to <= each.to)));
  }
});

test("every sentence of the panels is there in each language, and none that is not used", () => {
  const used = new Set();
  for (const text of sources) for (const [, sentence] of text.matchAll(/\bt\("((?:[^"\\]|\\.)+)"/g)) used.add(JSON.parse(`"${sentence}"`));
  // Sentences that come as values: the trainer's stages, the end of a run, one and several.
  for (const sentence of ["quiet samples", "training", "importance", "input statistics", "encoding images", "the adapter's own pictures", "Stopped", "Interrupted", "{count} atom holds {share}", "{count} atoms hold {share}",
    "base", "all atoms", "selection"]) used.add(sentence);
  for (const [language, texts] of Object.entries(TEXTS)) {
    assert.deepEqual(Object.keys(texts).sort(), [...used].sort(), language);
    for (const [english, text] of Object.entries(texts)) {
      const names = (/** @type {string} */ of) => [...of.matchAll(/\{\w+\}/g)].map(String).sort();
      assert.deepEqual(names(text), names(english), `${language}: ${english}`);
    }
  }
});

test("the words follow the host's language", () => {
  assert.equal(keptInWords(1, 0.005), "1 atom holds 0.5 %");
  assert.equal(choiceInWords({ ...DEFAULT_CHOICE, share: 0.1, invert: true }), "keeps all but 10 % of the atoms");
  followLocale(() => "ja");
  assert.notEqual(t("the bare base"), "the bare base");
  followLocale(() => "nowhere");
  assert.equal(t("the bare base"), "the bare base");
  followLocale(() => undefined);
});
