// web/addresses.js and web/selection.js against the vectors that the Python core is held to as well, and what only the front end has.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import * as addresses from "../../web/addresses.js";
import { leftBy, parseGains } from "../../web/gains.js";
import * as choosing from "../../web/selection.js";
import * as slider_ from "../../web/slider_amount.js";
import * as table_ from "../../web/table.js";

const selection = { ...addresses, ...choosing, ...slider_, ...table_ };

const vectors = JSON.parse(readFileSync(new URL("../vectors/selection.json", import.meta.url), "utf8"));
const plain = selection.makeTable(vectors.plain), both = selection.makeTable(vectors.composed);
const several = selection.makeTable(vectors.several);

const atoms = (mask) => [...mask.keys()].filter((atom) => mask[atom]);

function answer(make) {
  try {
    return make();
  } catch (error) {
    if (error instanceof selection.SelectionError) return "refused";
    throw error;
  }
}

for (const [name, table, rows] of [["plain", plain, vectors.addresses], ["composed", both, vectors.composed_addresses], ["wide", several, vectors.several_addresses]]) {
  test(`addresses of the ${name} adapter`, () => {
    for (const { text, means } of rows) {
      const found = answer(() => {
        const mask = selection.resolve(table, text);
        return { atoms: atoms(mask), shortest: selection.formatMask(table, mask) };
      });
      assert.deepEqual(found, means, text);
      if (means.shortest) assert.deepEqual(atoms(selection.resolve(table, means.shortest)), means.atoms, means.shortest);
    }
  });
}

test("layers", () => {
  for (const { text, means } of vectors.layers) {
    assert.deepEqual(answer(() => [...selection.resolveLayers(plain, text)].sort((a, b) => a - b)), means, text);
  }
});

test("selections", () => {
  for (const { selection: how, keeps } of vectors.selections) {
    const found = answer(() => {
      const result = selection.select(plain, how);
      return { atoms: atoms(result.mask), importance_kept: Math.round(result.importanceKept * 1e6) };
    });
    const wanted = keeps === "refused" ? keeps : { ...keeps, importance_kept: Math.round(keeps.importance_kept * 1e6) };
    assert.deepEqual(found, wanted, JSON.stringify(how));
  }
});

test("composed tables carry the names that Compose gives", () => {
  const table = selection.makeTable(selection.composed([{ name: "cat", json: vectors.plain }, { name: "dog", json: vectors.plain }]));
  assert.deepEqual(table.sites.map((site) => site.label), both.sites.map((site) => site.label));
  assert.deepEqual(table.members, ["cat", "dog"]);
  const maps = [{ address: "L1[2]", width: 1, height: 1, grid: "/w==" }];
  const probed = selection.composed([{ name: "cat", json: { ...vectors.plain, maps } }, { name: "dog", json: selection.composed([{ name: "pup", json: { ...vectors.plain, maps } }]) }]);
  assert.deepEqual(selection.makeTable(probed).maps.map((map) => map.address), ["cat:L1[2]", "dog.pup:L1[2]"]);
  assert.equal(table.maps, null);
  assert.equal(selection.memberName("my concept!", []), "my_concept");
  assert.equal(selection.memberName("7", ["d7"]), "d7_2");
});

test("an earlier node's selection narrows what can be kept", () => {
  const there = selection.select(plain, { top: 10 }).mask;
  assert.equal(selection.select(plain, { keep: 0.5 }, there).kept, 5);
  const rest = selection.select(plain, { keep: 0.5, invert: true }, there);
  assert.equal(rest.kept, 5);
  assert.ok(atoms(rest.mask).every((atom) => there[atom]));
  const whole = selection.formatMask(plain, there, there);
  assert.deepEqual(atoms(selection.resolve(plain, whole, there)), atoms(there));
});

const modes = [
  { mode: "share" }, { mode: "top" }, { mode: "importance share" }, { mode: "threshold" }, { mode: "share", layers: "L1-L2" },
  { mode: "share", order: "greedy" }, { mode: "top", order: "greedy", layers: "L1" },
];
for (const how of modes) {
  test(`the slider says what it keeps: ${JSON.stringify(how)}`, () => {
    const choice = { ...selection.DEFAULT_CHOICE, ...how };
    const slider = selection.sliderOrder(plain, choice);
    let before = new Set();
    for (let k = 0; k <= slider.order.length; k++) {
      const next = selection.withAmount(plain, choice, k, slider);
      const result = selection.select(plain, selection.selectionOf(next));
      const value = how.mode === "threshold" || how.mode === "importance share";
      // Equal importances cannot be told apart by a number of importance.
      const ties = value && plain.importance[slider.order[k - 1]] === plain.importance[slider.order[k]];
      const nothingLeft = how.mode === "importance share" && slider.curve[k] > 1 - 1e-9;
      if (!ties && !nothingLeft) assert.equal(result.kept, k, `${k} ${JSON.stringify(next)}`);
      if (!ties && !nothingLeft) assert.deepEqual(atoms(selection.firstOf(plain, next, k, slider, null).mask), atoms(result.mask));
      const kept = new Set(atoms(result.mask));
      assert.ok([...before].every((atom) => kept.has(atom)), `nested at ${k}`);
      before = kept;
    }
  });
}

test("the slider's curve ends at everything", () => {
  const { curve, order } = selection.sliderOrder(plain, selection.DEFAULT_CHOICE);
  assert.equal(order.length, plain.atoms);
  assert.ok(Math.abs(curve[plain.atoms] - 1) < 1e-9);
});

test("a share is written with few digits", () => {
  assert.equal(selection.shareOf(32, 3072), 0.0104);
  assert.equal(selection.shareOf(0, 3072), 0);
  assert.equal(selection.shareOf(3072, 3072), 1);
  for (const n of [1, 2, 7, 100, 3072, 20480]) for (let k = 0; k <= n; k += Math.ceil(n / 97)) {
    const share = selection.shareOf(k, n);
    const kept = share > 0 ? Math.min(n, Math.max(1, Math.round(share * n))) : 0;
    assert.equal(kept, k, `${k} of ${n}`);
  }
});

test("gains of 0 take atoms out, and the last word counts", () => {
  assert.deepEqual(parseGains(" L1[0-3, 7]=1.5, L0.text=0;L2=-.5e1\n"), [
    { addresses: "L1[0-3, 7]", gain: 1.5 }, { addresses: "L0.text", gain: 0 }, { addresses: "L2", gain: -5 },
  ]);
  for (const wrong of ["L1", "L1=", "=1", "L1=x", "X=1", "L1=1 L2=0", "L1=1e999", "L1=-1e400, L2=0"]) assert.throws(() => parseGains(wrong), selection.SelectionError, wrong);
  const left = leftBy(plain, "L1=0, L1[2]=2, L2=0.5", null);
  assert.equal(atoms(left).length, plain.atoms - 7);
  const there = selection.select(plain, { top: 10 }).mask;
  assert.ok(atoms(leftBy(plain, "L0=0", there)).every((atom) => there[atom]));
  assert.deepEqual(atoms(leftBy(plain, "", there)), atoms(there));
});
