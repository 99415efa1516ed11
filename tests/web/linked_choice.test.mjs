// A choice of which some fields come over links: what the panel can still say and do.

import assert from "node:assert/strict";
import { test } from "node:test";

import { ChoiceFields } from "../../web/choice_fields.js";
import { stopsSlider, waitsForRun } from "../../web/linked_choice.js";
import { DEFAULT_CHOICE } from "../../web/table.js";

test("what is kept is known where no field that decides it is linked", () => {
  for (const [mode, decides, rest] of [
    ["share", ["share", "order", "per_site"], ["top", "threshold", "atoms"]], ["importance share", ["share"], ["top", "threshold", "atoms"]],
    ["top", ["top", "order", "per_site"], ["share", "threshold", "atoms"]], ["threshold", ["threshold"], ["share", "top", "atoms"]],
    ["addresses", ["atoms"], ["share", "top", "threshold", "order", "per_site"]],
  ]) {
    for (const name of [...decides, "mode", "layers", "invert"]) assert.ok(waitsForRun(mode, [name]), `${mode} ${name}`);
    for (const name of [...rest, "refit"]) assert.ok(!waitsForRun(mode, [name]), `${mode} ${name}`);
  }
});

test("the slider stops where it would move what a link decides", () => {
  assert.ok(stopsSlider("top", ["top"]) && !stopsSlider("top", ["share"]) && !stopsSlider("share", []));
  // It makes a share of a choice by address.
  assert.ok(stopsSlider("addresses", ["share"]) && !stopsSlider("addresses", ["top"]));
});

test("buttons for shares do nothing beside a linked share or mode, and say why", () => {
  const { document } = globalThis;
  globalThis.document = { createElement: element };
  try {
    const fields = new ChoiceFields({ change: () => {}, named: () => ({}), check: () => {}, complain: () => {}, leave: () => {} });
    const look = (choice, ...linked) => {
      fields.show({ ...DEFAULT_CHOICE, ...choice }, new Set(linked));
      return fields.presets.map(({ disabled }) => disabled);
    };
    assert.ok(look({ share: 0.25 }).every((disabled) => !disabled));
    assert.equal(fields.presets[2].attributes["aria-pressed"], "true");
    for (const name of ["share", "mode"]) {
      assert.ok(look({ share: 0.25 }, name).every(Boolean), name);
      assert.ok(fields.presets.every(({ title, attributes }) => /over a link/.test(title) && attributes["aria-pressed"] === "false"));
    }
    assert.ok(look({ mode: "top" }, "top").every((disabled) => !disabled));
    assert.match(fields.presets[0].title, /100 %/);
    look({}, "share");
    assert.deepEqual([fields.amount.value, fields.amount.disabled, fields.atoms.disabled], ["–", true, false]);
    look({ share: 0.25 }, "mode");
    assert.deepEqual([fields.amount.value, fields.atoms.disabled], ["25 %", true]);
  } finally {
    globalThis.document = document;
  }
});

/** As much of an element as the fields ask for. */
function element() {
  const attributes = {};
  return {
    attributes, title: "", className: "", type: "", disabled: false, hidden: false, value: "", checked: false, classList: { add() {}, remove() {} },
    addEventListener() {}, append() {}, setAttribute: (name, value) => (attributes[name] = value),
  };
}
