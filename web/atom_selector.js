// @ts-check
/** The panel of Select Atoms: slider, presets, map and fields over one choice. Knows nothing of the host. */

import { AtomMap } from "./atom_map.js";
import { AtomTip } from "./atom_tip.js";
import { ChoiceFields } from "./choice_fields.js";
import { gradient, make, onThemeChange, readTheme, write } from "./colours.js";
import { DensitySlider } from "./density_slider.js";
import { formatMask, resolve, resolveLayers } from "./addresses.js";
import { leftBy } from "./gains.js";
import { History } from "./history.js";
import { stopsSlider, waitsForRun } from "./linked_choice.js";
import { describe, select, selectionOf } from "./selection.js";
import { printable } from "./shown_text.js";
import { firstOf, sliderOrder, withAmount } from "./slider_amount.js";
import { addStyle } from "./style.js";
import { DEFAULT_CHOICE, NeedsGreedyOrder, SelectionError, makeTable } from "./table.js";
import { t } from "./texts.js";
import { choiceInWords, grouped, keptInWords, percent, tidy } from "./words.js";

/** @typedef {import("./table.js").Choice} Choice @typedef {import("./table.js").Table} Table */
/** @typedef {import("./table.js").TableJson} TableJson @typedef {import("./upstream.js").Step} Step */
/**
 * @typedef {{
 *   setValue: (choice: Choice) => void,
 *   setTable: (json: TableJson | null, chain?: Step[]) => void,
 *   setMessage: (text: string) => void,
 *   setLinked: (names: string[]) => void,
 *   setSwitch: (available: boolean) => void,
 *   height: () => number,
 *   value: () => Choice, kept: () => number | null, map: AtomMap, slider: DensitySlider, destroy: () => void }} Selector
 * `chain` is what earlier nodes take out, first ones first; `setSwitch` says whether the panel has a button for the plain fields; `height` is the least that it needs.
 */

const FRAME = 290; // all but the map
const LEAST_MAP = 130;

/**
 * @param {HTMLElement} container
 * @param {Choice} value
 * @param {(choice: Choice) => void} onChange called once for each change that a person has finished
 * @param {{needGreedy?: () => void, toggleFields?: () => void, resized?: () => void, nothing?: string, undoes?: boolean}} [host] what the panel asks of its surroundings;
 *   `nothing` is shown where no file is known; with `undoes`, Ctrl+Z is theirs and only the panel's own buttons go through its history
 * @returns {Selector}
 */
export function mount(container, value, onChange, host = {}) {
  addStyle();
  let choice = { ...DEFAULT_CHOICE, ...value };
  /** @type {Table | null} */
  let table = null;
  /** @type {Step[]} */
  let chain = [];
  /** @type {Uint8Array | null} */
  let available = null;
  /** @type {import("./table.js").Result | null} */
  let result = null;
  /** @type {ReturnType<typeof sliderOrder> | null} */
  let order = null;
  let orderKey = ""; // of what `order` was made from, beside the table
  let message = "";
  const history = new History(choice);
  /** @type {Set<string>} */
  let linked = new Set();

  // ---- elements

  const headline = make("span", { className: "sd-headline", title: t("The share of the importance: the mean strength of what the atoms add.") });
  const aside = make("span", { className: "sd-aside sd-grow" });
  const undoButton = make("button", { className: "sd-icon", type: "button", title: t("Undo here"), "aria-label": t("Undo"), onclick: () => back(history.undo()) }, "↶");
  const redoButton = make("button", { className: "sd-icon", type: "button", title: t("Redo here"), "aria-label": t("Redo"), onclick: () => back(history.redo()) }, "↷");
  const fieldsButton = make("button", {
    className: "sd-icon", type: "button", title: t("Show the plain fields, to connect them"), "aria-label": t("Show the plain fields"),
    onclick: () => host.toggleFields?.(),
  }, "⋯");
  const fields = new ChoiceFields({
    change: (more) => commit({ ...choice, ...more }),
    named: () => (table && result ? { atoms: formatMask(table, result.mask, available), invert: false, layers: "" } : {}),
    check(name, text) {
      if (!table || !text) return;
      if (name === "layers") resolveLayers(table, text);
      else map.goTo(resolve(table, text, available).indexOf(1));
    },
    complain: (text) => (problem.textContent = text),
    leave() {
      show();
      map.canvas.focus();
    },
  });
  const legend = make("span", { className: "sd-legend" });
  const lowest = make("span", { className: "sd-small" }), highest = make("span", { className: "sd-small" });
  const title = make("span", { className: "sd-small sd-grow", style: "overflow:hidden;text-overflow:ellipsis" });
  const empty = make("div", { className: "sd-empty" });
  const tip = new AtomTip();
  const problem = make("div", { className: "sd-message", role: "alert" });
  const spoken = make("div", { className: "sd-spoken", "aria-live": "polite" });

  const slider = new DensitySlider((k, done) => {
    if (!table || !order) return;
    const next = withAmount(table, choice.mode === "addresses" ? { ...choice, mode: "share", invert: false } : choice, k, order);
    if (done) return commit(next);
    preview(next, firstOf(table, next, k, order, available));
    if (result) map.setMask(result.mask, available);
  });
  const map = new AtomMap({
    onEdit: (mask, done, replaces) => {
      if (!table) return;
      const next = { ...choice, mode: "addresses", invert: false, layers: "" };
      if (!done) return preview(next, describe(table, mask));
      next.atoms = formatMask(table, mask, available);
      // The two clicks of a double click have undone each other: one step of the history is left of all three.
      history.drop(replaces);
      commit(next, describe(table, mask));
    },
    onPoint: (atom, x, y) => tip.show(atom, stateOf(atom), x, y),
    onSay: (atom) => (spoken.textContent = tip.spoken(atom, stateOf(atom))),
    onCommand: (name) => {
      if (name === "address") {
        fields.atoms.focus();
        fields.atoms.select();
      } else if (name === "invert") {
        commit({ ...choice, invert: !choice.invert });
      }
    },
  });

  const hold = make("div", { className: "sd-hold" }, map.element, empty, tip.element);
  const panel = make(
    "div", { className: "sd-panel", role: "group", "aria-label": t("Atom selector") },
    make("div", { className: "sd-row" }, make("div", { className: "sd-kept" }, headline, aside), undoButton, redoButton, fieldsButton),
    slider.canvas,
    make("div", { className: "sd-row sd-wrap" }, ...fields.presets, make("span", { className: "sd-grow" }), make("div", { className: "sd-row" }, fields.mode, fields.amount)),
    hold,
    make("div", { className: "sd-row" }, title, lowest, legend, highest),
    make("div", { className: "sd-row" }, fields.atoms), fields.how,
    problem, spoken,
  );
  panel.addEventListener("keydown", (event) => {
    if (host.undoes || !(event.ctrlKey || event.metaKey) || event.altKey || event.target instanceof HTMLInputElement) return;
    const key = event.key.toLowerCase();
    const undo = key === "z" && !event.shiftKey, redo = key === "y" || (key === "z" && event.shiftKey);
    // With nothing left to undo here, the key is the host's.
    if (!(undo && history.past.length) && !(redo && history.future.length)) return;
    event.preventDefault();
    event.stopPropagation();
    back(undo ? history.undo() : history.redo());
  });
  container.append(panel);

  const sizes = new ResizeObserver(() => {
    tip.room = { width: hold.offsetWidth, height: hold.offsetHeight };
    slider.draw();
    map.changed();
  });
  sizes.observe(hold);
  sizes.observe(slider.canvas);
  const endTheme = onThemeChange(theme);

  // ---- the choice

  /** @param {Choice} next @param {import("./table.js").Result | null} [found] what it keeps, where that is known already */
  function commit(next, found = null) {
    choice = next;
    if (same(history.now, next)) return show(found);
    history.add(next);
    show(found);
    onChange({ ...choice });
  }

  /** While the pointer is down: what a frame has time for; the rest is shown at the end. @param {Choice} next @param {import("./table.js").Result} found */
  function preview(next, found) {
    choice = next;
    result = found;
    fields.preview(choice);
    showKept(found);
  }

  /** @param {Choice | undefined} next */
  function back(next) {
    if (!next) return;
    choice = next;
    show();
    onChange({ ...choice });
  }

  // ---- showing

  /** Everything from the choice and the table. @param {import("./table.js").Result | null} [found] what the choice keeps, where that is known already */
  function show(found = null) {
    problem.textContent = "";
    fields.show(choice, linked);
    undoButton.disabled = !history.past.length;
    redoButton.disabled = !history.future.length;
    result = null;
    const waits = waitsForRun(choice.mode, linked), why = t("A value comes over a link; what is kept is known once it runs.");
    map.fixed = waits;
    aside.title = waits ? why : "";
    if (!table) return showWithout(waits ? why : choiceInWords(choice));
    empty.textContent = "";
    if (waits) return showWaiting(table, why);
    try {
      result = found ?? select(table, selectionOf(choice), available);
      const counted = choice.mode === "addresses" ? { ...choice, mode: "share", layers: "", order: "importance", per_site: false } : choice;
      const key = [counted.mode, counted.order, counted.per_site, counted.layers].join();
      if (!order || key !== orderKey) order = sliderOrder(table, counted, available);
      orderKey = key;
    } catch (error) {
      order = null;
      if (error instanceof NeedsGreedyOrder) host.needGreedy?.();
      else if (!(error instanceof SelectionError)) throw error;
      problem.textContent = printable(/** @type {Error} */ (error).message);
    }
    if (!result) {
      write(headline, "–");
      write(aside, "");
      map.setMask(new Uint8Array(table.atoms), available);
      slider.set(null, 0);
      return;
    }
    showKept(result);
    fields.showAtoms(choice.mode === "addresses" && !choice.invert && !choice.layers ? choice.atoms : formatMask(table, result.mask, available));
    if (!map.drag) map.setMask(result.mask, available);
    if (!slider.dragging) {
      const amountOnly = choice.invert && choice.mode !== "addresses" ? select(table, { ...selectionOf(choice), invert: false }, available).kept : result.kept;
      if (stopsSlider(choice.mode, linked)) slider.set(null, 0, why);
      else slider.set(order, amountOnly);
    }
  }

  /** All that is there, where nobody knows yet what is kept of it. @param {Table} table @param {string} why */
  function showWaiting(table, why) {
    order = null;
    write(headline, "–");
    write(aside, why);
    fields.showAtoms(choice.mode === "addresses" && !linked.has("atoms") ? choice.atoms : "");
    map.setMask(available ?? new Uint8Array(table.atoms).fill(1), available);
    slider.set(null, 0, why);
  }

  /** @param {import("./table.js").Result} found */
  function showKept({ kept, importanceKept }) {
    const total = available ? available.reduce((sum, one) => sum + one, 0) : table?.atoms ?? 0;
    write(headline, keptInWords(kept, importanceKept));
    write(aside, t("of {total} · {share} of the atoms", { total: grouped(total), share: percent(total ? kept / total : 1) }));
  }

  /** The choice alone, where no file is known. @param {string} words */
  function showWithout(words) {
    write(headline, "");
    write(aside, words);
    empty.textContent = printable(message) || (host.nothing ?? "");
    fields.showAtoms(choice.mode === "addresses" ? choice.atoms : "");
    slider.set(null, 0);
  }

  /** @param {number} atom */
  function stateOf(atom) {
    if (available && !available[atom]) return t("left out before");
    return !result ? "" : result.mask[atom] ? t("kept") : t("left out");
  }

  function theme() {
    const found = readTheme();
    slider.theme = found;
    slider.draw();
    map.setTheme(found);
    tip.setTheme(found);
    legend.style.background = gradient(found);
  }

  /** What the earlier nodes leave. Where one of them cannot be followed, all is taken to be there. */
  function follow() {
    available = order = null;
    if (!table) return;
    try {
      for (const earlier of chain) available = "gains" in earlier ? leftBy(table, earlier.gains, available) : select(table, selectionOf(earlier), available).mask;
    } catch (error) {
      if (error instanceof NeedsGreedyOrder) host.needGreedy?.();
      else if (!(error instanceof SelectionError)) throw error;
      available = null;
    }
  }

  theme();
  show();
  return {
    setValue(next) {
      if (same(next, history.now)) return;
      choice = { ...DEFAULT_CHOICE, ...next };
      history.reset(choice);
      show();
    },
    setTable(json, earlier = []) {
      table = json ? makeTable(json) : null;
      chain = earlier;
      tip.setTable(table);
      map.setTable(table);
      host.resized?.();
      follow();
      if (table) {
        const words = table.triggerWords.length ? ` · ${t("trigger")} ${table.triggerWords.join(", ")}` : "";
        title.textContent = printable(`${table.title || t("untitled")}${words}`);
        title.title = title.textContent;
        const most = tidy(map.most ?? 0);
        [lowest.textContent, highest.textContent] = [tidy(map.least ?? 0), table.maps ? t("{most} importance for the prompt", { most }) : t("{most} importance", { most })];
      } else {
        title.textContent = lowest.textContent = highest.textContent = "";
      }
      legend.hidden = !table;
      legend.style.visibility = table ? "visible" : "hidden";
      show();
    },
    setMessage(text) {
      message = text;
      if (!table) show();
    },
    setSwitch(available) {
      fieldsButton.hidden = !available;
    },
    setLinked(names) {
      linked = new Set(names);
      show();
    },
    height: () => FRAME + Math.max(LEAST_MAP, table ? map.height() : 0),
    value: () => ({ ...history.now }),
    kept: () => result?.kept ?? null,
    map,
    slider,
    destroy() {
      sizes.disconnect();
      endTheme();
      panel.remove();
    },
  };
}

/** @param {Choice} one @param {Choice} other */
function same(one, other) {
  return /** @type {(keyof Choice)[]} */ (Object.keys(DEFAULT_CHOICE)).every((name) => one[name] === other[name]);
}
