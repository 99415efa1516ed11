// @ts-check
/** The panel of Select Atoms: slider, presets, map and fields over one choice. Knows nothing of the host. */

import { AtomMap } from "./atom_map.js";
import { gradient, make, onThemeChange, readTheme } from "./colours.js";
import { DensitySlider } from "./density_slider.js";
import { formatAddress, formatMask, resolve, resolveLayers } from "./addresses.js";
import { rankAtoms, select, selectionOf } from "./selection.js";
import { sliderOrder, withAmount } from "./slider_amount.js";
import { addStyle } from "./style.js";
import { DEFAULT_CHOICE, NeedsGreedyOrder, SelectionError, makeTable } from "./table.js";

/** @typedef {import("./table.js").Choice} Choice @typedef {import("./table.js").Table} Table */
/** @typedef {import("./table.js").TableJson} TableJson */
/**
 * @typedef {{
 *   setValue: (choice: Choice) => void,
 *   setTable: (json: TableJson | null, chain?: Choice[]) => void,
 *   setMessage: (text: string) => void,
 *   setLinked: (names: string[]) => void,
 *   value: () => Choice, kept: () => number | null, map: AtomMap, slider: DensitySlider, destroy: () => void }} Selector
 * `chain` are the choices of earlier Select Atoms nodes, first ones first.
 */

export const MIN_HEIGHT = 420;
const PRESETS = [1, 0.5, 0.25, 0.1, 0.05];
const HISTORY = 200;
const MODE_NAMES = {
  share: "share of atoms", "importance share": "share of importance", top: "number of atoms", threshold: "least importance", addresses: "by address",
};

/**
 * @param {HTMLElement} container
 * @param {Choice} value
 * @param {(choice: Choice) => void} onChange called once for each change that a person has finished
 * @param {{needGreedy?: () => void, toggleFields?: () => void, undoes?: boolean}} [host] what the panel asks of its surroundings;
 *   with `undoes`, Ctrl+Z is theirs and only the panel's own buttons go through its history
 * @returns {Selector}
 */
export function mount(container, value, onChange, host = {}) {
  addStyle();
  let choice = { ...DEFAULT_CHOICE, ...value };
  /** @type {Table | null} */
  let table = null;
  /** @type {Choice[]} */
  let chain = [];
  /** @type {Uint8Array | null} */
  let there = null;
  /** @type {import("./table.js").Result | null} */
  let result = null;
  /** @type {ReturnType<typeof sliderOrder> | null} */
  let order = null;
  /** @type {Map<number, number>} */
  const ranks = new Map();
  let message = "";
  /** @type {Choice[]} */
  const past = [];
  /** @type {Choice[]} */
  const future = [];
  /** @type {Set<string>} */
  let linked = new Set();

  // ---- elements

  const headline = make("span", { className: "sd-headline" });
  const aside = make("span", { className: "sd-aside sd-grow" });
  const undoButton = make("button", { className: "sd-icon", type: "button", title: "Undo here", "aria-label": "Undo", onclick: () => undo() }, "↶");
  const redoButton = make("button", { className: "sd-icon", type: "button", title: "Redo here", "aria-label": "Redo", onclick: () => redo() }, "↷");
  const fieldsButton = make("button", {
    className: "sd-icon", type: "button", title: "Show the node's plain fields, to connect them", "aria-label": "Show the plain fields",
    onclick: () => host.toggleFields?.(),
  }, "⋯");
  const presets = PRESETS.map((share) =>
    make("button", { type: "button", title: `Keep ${share * 100} % of the atoms`, onclick: () => commit({ ...choice, mode: "share", share }) }, `${share * 100}%`),
  );
  const mode = make("select", { "aria-label": "Select by", onchange: () => commit({ ...choice, mode: mode.value, ...(mode.value === "addresses" ? written() : {}) }) });
  for (const [id, name] of Object.entries(MODE_NAMES)) mode.append(make("option", { value: id }, name));
  const amount = make("input", { className: "sd-number", type: "text", inputMode: "decimal", "aria-label": "Amount", onchange: () => takeAmount(), onkeydown: stay });
  const ordering = make("select", { "aria-label": "Order", title: "importance: for editing; greedy: the smallest file of the same effect, needs moments in the file",
    onchange: () => commit({ ...choice, order: ordering.value }) });
  ordering.append(make("option", { value: "importance" }, "by importance"), make("option", { value: "greedy" }, "greedy"));
  const addresses = make("input", {
    className: "sd-grow", type: "text", spellcheck: false, "aria-label": "Atoms by address", placeholder: "L17[137], L3[0-15], L4-L9   ( / )",
    onchange: () => takeAddresses(), onkeydown: stay,
  });
  const layers = make("input", { type: "text", spellcheck: false, size: 9, placeholder: "all", "aria-label": "Layers", title: "Only atoms of these layers: L4-L9",
    onchange: () => takeLayers(), onkeydown: stay });
  const perSite = make("input", { type: "checkbox", onchange: () => commit({ ...choice, per_site: perSite.checked }) });
  const invert = make("input", { type: "checkbox", onchange: () => commit({ ...choice, invert: invert.checked }) });
  const refit = make("input", { type: "checkbox", onchange: () => commit({ ...choice, refit: refit.checked }) });
  const legend = make("span", { className: "sd-legend" });
  const lowest = make("span", { className: "sd-small" }), highest = make("span", { className: "sd-small" });
  const title = make("span", { className: "sd-small sd-grow", style: "overflow:hidden;text-overflow:ellipsis" });
  const empty = make("div", { className: "sd-empty" });
  const tip = make("div", { className: "sd-tip", hidden: true });
  const problem = make("div", { className: "sd-message", role: "alert" });
  const spoken = make("div", { className: "sd-spoken", "aria-live": "polite" });

  const slider = new DensitySlider((k, done) => {
    if (!table || !order) return;
    const next = withAmount(table, choice.mode === "addresses" ? { ...choice, mode: "share", invert: false } : choice, k, order);
    if (done) commit(next);
    else preview(next);
  });
  const map = new AtomMap({
    onEdit: (mask, done, replaces) => {
      if (!table) return;
      const next = { ...choice, mode: "addresses", atoms: formatMask(table, mask, there), invert: false, layers: "" };
      if (!done) return preview(next);
      // The two clicks of a double click have undone each other: one step of the history is left of all three.
      if (replaces && past.length >= replaces) {
        committed = past[past.length - replaces];
        past.length -= replaces;
      }
      commit(next);
    },
    onPoint: showTip,
    onSay: (atom) => (spoken.textContent = table ? `${describeAtom(atom).join(", ")}` : ""),
    onCommand: (name) => {
      if (name === "address") {
        addresses.focus();
        addresses.select();
      } else if (name === "invert") {
        commit({ ...choice, invert: !choice.invert });
      }
    },
  });

  const hold = make("div", { className: "sd-hold" }, map.canvas, empty, tip);
  const panel = make(
    "div", { className: "sd-panel", role: "group", "aria-label": "Atom selector" },
    make("div", { className: "sd-row" }, headline, aside, undoButton, redoButton, fieldsButton),
    slider.canvas,
    make("div", { className: "sd-row sd-wrap" }, ...presets, make("span", { className: "sd-grow" }), mode, amount),
    hold,
    make("div", { className: "sd-row" }, title, lowest, legend, highest),
    make("div", { className: "sd-row" }, addresses),
    make("div", { className: "sd-row sd-wrap", style: "column-gap:12px" }, ordering, make("label", {}, "layers ", layers), make("label", { title: "Take the share or number in every site" }, perSite, "per site"),
      make("label", { title: "Keep exactly what would have gone" }, invert, "invert"),
      make("label", { title: "Change the atoms that stay so that they come as near to the whole as they can (needs moments in the file)" }, refit, "refit")),
    problem, spoken,
  );
  panel.addEventListener("keydown", (event) => {
    if (host.undoes || !(event.ctrlKey || event.metaKey) || event.altKey || event.target instanceof HTMLInputElement) return;
    const key = event.key.toLowerCase();
    const act = key === "z" && !event.shiftKey ? undo : key === "y" || (key === "z" && event.shiftKey) ? redo : null;
    // With nothing left to undo here, the key is the host's.
    if (!act || !(act === undo ? past : future).length) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  });
  container.append(panel);

  const sizes = new ResizeObserver(() => {
    slider.draw();
    map.changed();
  });
  sizes.observe(hold);
  sizes.observe(slider.canvas);
  const endTheme = onThemeChange(theme);

  // ---- the choice

  /** @param {Choice} next */
  function commit(next) {
    const before = committed;
    if (same(before, next)) {
      choice = next;
      return show();
    }
    past.push(before);
    if (past.length > HISTORY) past.shift();
    future.length = 0;
    choice = committed = next;
    show();
    onChange({ ...choice });
  }
  let committed = choice;

  /** While the pointer is down. @param {Choice} next */
  function preview(next) {
    choice = next;
    show();
  }

  function undo() {
    const before = past.pop();
    if (!before) return;
    future.push(committed);
    back(before);
  }

  function redo() {
    const next = future.pop();
    if (!next) return;
    past.push(committed);
    back(next);
  }

  /** @param {Choice} next */
  function back(next) {
    choice = committed = next;
    show();
    onChange({ ...choice });
  }

  /** What is kept now, as addresses. */
  function written() {
    return table && result ? { atoms: formatMask(table, result.mask, there), invert: false, layers: "" } : {};
  }

  function takeAmount() {
    const number = Number(amount.value.replace("%", "").replace(",", ".").trim());
    if (!amount.value.trim() || Number.isNaN(number)) return show();
    const share = Math.min(1, Math.max(0, number / 100));
    if (choice.mode === "top") commit({ ...choice, top: Math.max(0, Math.round(number)) });
    else if (choice.mode === "threshold") commit({ ...choice, threshold: Math.max(0, number) });
    else commit({ ...choice, share: Number(share.toPrecision(6)) });
  }

  function takeAddresses() {
    const text = addresses.value.trim();
    try {
      const mask = table && text ? resolve(table, text, there) : null;
      if (mask) map.goTo(mask.indexOf(1));
    } catch (error) {
      return complain(addresses, error);
    }
    commit({ ...choice, mode: "addresses", atoms: text, invert: false, layers: "" });
  }

  function takeLayers() {
    try {
      if (table && layers.value.trim()) resolveLayers(table, layers.value);
    } catch (error) {
      return complain(layers, error);
    }
    commit({ ...choice, layers: layers.value.trim() });
  }

  /** @param {HTMLInputElement} field @param {unknown} error */
  function complain(field, error) {
    if (!(error instanceof SelectionError)) throw error;
    field.classList.add("sd-wrong");
    problem.textContent = error.message;
  }

  /** Enter takes the field; the host hears no key that is typed here. @param {KeyboardEvent} event */
  function stay(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) return;
    event.stopPropagation();
    if (event.key === "Enter") /** @type {HTMLElement} */ (event.target).blur();
    if (event.key === "Escape") {
      show();
      map.canvas.focus();
    }
  }

  // ---- showing

  /** Everything from the choice and the table. */
  function show() {
    problem.textContent = "";
    for (const field of [addresses, layers, amount]) field.classList.remove("sd-wrong");
    mode.value = choice.mode;
    ordering.value = choice.order;
    perSite.checked = choice.per_site;
    invert.checked = choice.invert;
    refit.checked = choice.refit;
    layers.value = choice.layers;
    amount.hidden = choice.mode === "addresses";
    ordering.disabled = choice.mode !== "share" && choice.mode !== "top";
    amount.value = choice.mode === "top" ? String(choice.top) : choice.mode === "threshold" ? String(choice.threshold) : `${tidy(choice.share * 100)} %`;
    presets.forEach((button, i) => button.setAttribute("aria-pressed", String(choice.mode === "share" && choice.share === PRESETS[i])));
    undoButton.disabled = !past.length;
    redoButton.disabled = !future.length;
    for (const [name, elements] of Object.entries({
      mode: [mode, ...presets], share: choice.mode.includes("share") ? [amount] : [], top: choice.mode === "top" ? [amount] : [],
      threshold: choice.mode === "threshold" ? [amount] : [], atoms: [addresses], order: [ordering], layers: [layers], per_site: [perSite],
      invert: [invert], refit: [refit],
    })) {
      for (const element of elements) if (linked.has(name)) element.disabled = true;
      if (!linked.has(name) && name !== "order") for (const element of elements) element.disabled = false;
    }
    result = order = null;
    if (!table) return showWithout();
    empty.textContent = "";
    try {
      result = select(table, selectionOf(choice), there);
      const counted = choice.mode === "addresses" ? { ...choice, mode: "share", layers: "", order: "importance", per_site: false } : choice;
      order = sliderOrder(table, counted, there);
    } catch (error) {
      if (error instanceof NeedsGreedyOrder) host.needGreedy?.();
      else if (!(error instanceof SelectionError)) throw error;
      problem.textContent = /** @type {Error} */ (error).message;
    }
    const total = there ? there.reduce((sum, one) => sum + one, 0) : table.atoms;
    if (!result) {
      headline.textContent = "–";
      aside.textContent = "";
      map.setMask(new Uint8Array(table.atoms), there);
      slider.set(null, 0);
      return;
    }
    const { kept, importanceKept } = result;
    headline.textContent = kept === 0 ? "the bare base" : `${kept.toLocaleString("en")} atom${kept === 1 ? "" : "s"} hold${kept === 1 ? "s" : ""} ${percent(importanceKept)}`;
    aside.textContent = `of ${total.toLocaleString("en")} · ${percent(total ? kept / total : 1)} of the atoms`;
    aside.title = "The share of the importance: the mean strength of what the atoms add.";
    if (document.activeElement !== addresses) {
      addresses.value = choice.mode === "addresses" && !choice.invert && !choice.layers ? choice.atoms : formatMask(table, result.mask, there);
    }
    if (!map.drag) map.setMask(result.mask, there);
    if (!slider.dragging) {
      const amountOnly = choice.invert && choice.mode !== "addresses" ? select(table, { ...selectionOf(choice), invert: false }, there).kept : kept;
      slider.set(order, amountOnly);
    }
  }

  /** The choice alone, where no file is known. */
  function showWithout() {
    const amounts = { share: `${tidy(choice.share * 100)} % of the atoms`, "importance share": `${tidy(choice.share * 100)} % of the importance`,
      top: `${choice.top} atoms`, threshold: `importance of ${choice.threshold} or more`, addresses: choice.atoms || "no atoms" };
    headline.textContent = "";
    aside.textContent = `keeps ${choice.invert ? "all but " : ""}${amounts[/** @type {keyof typeof amounts} */ (choice.mode)] ?? choice.mode}`;
    empty.textContent = message || "Connect a Load Sparse Dict node: its atoms appear here.";
    if (document.activeElement !== addresses) addresses.value = choice.mode === "addresses" ? choice.atoms : "";
    slider.set(null, 0);
  }

  /** @param {number} atom */
  function describeAtom(atom) {
    if (!table) return [];
    if (!ranks.size) rankAtoms(table, "importance").forEach((each, i) => ranks.set(each, i + 1));
    const importance = table.importance[atom], kept = result?.mask[atom] ? "kept" : there && !there[atom] ? "left out before" : "left out";
    return [formatAddress(table, atom), `importance ${tidy(importance)}`, `rank ${ranks.get(atom)} of ${table.atoms}`, kept];
  }

  /** @param {number} atom @param {number} x @param {number} y */
  function showTip(atom, x, y) {
    tip.hidden = atom < 0 || !table;
    if (tip.hidden) return;
    const [address, importance, rank, kept] = describeAtom(atom);
    tip.replaceChildren(make("b", {}, address), ` ${kept}`, make("br"), make("span", {}, `${importance} · ${rank}`));
    const right = x + 14 + tip.offsetWidth > hold.offsetWidth, below = y + 16 + tip.offsetHeight > hold.offsetHeight;
    tip.style.left = `${Math.max(2, right ? x - 12 - tip.offsetWidth : x + 14)}px`;
    tip.style.top = `${Math.max(2, below ? y - 12 - tip.offsetHeight : y + 16)}px`;
  }

  function theme() {
    const found = readTheme();
    slider.theme = found;
    slider.draw();
    map.setTheme(found);
    legend.style.background = gradient(found);
  }

  /** What the earlier nodes leave. Where one of them cannot be followed, all is taken to be there. */
  function follow() {
    there = null;
    if (!table) return;
    try {
      for (const earlier of chain) there = select(table, selectionOf(earlier), there).mask;
    } catch (error) {
      if (error instanceof NeedsGreedyOrder) host.needGreedy?.();
      else if (!(error instanceof SelectionError)) throw error;
      there = null;
    }
  }

  theme();
  show();
  return {
    setValue(next) {
      if (same(next, committed)) return;
      past.length = future.length = 0;
      choice = committed = { ...DEFAULT_CHOICE, ...next };
      show();
    },
    setTable(json, earlier = []) {
      table = json ? makeTable(json) : null;
      chain = earlier;
      ranks.clear();
      map.setTable(table);
      follow();
      tip.hidden = true;
      if (table) {
        const words = table.triggerWords.length ? ` · trigger ${table.triggerWords.join(", ")}` : "";
        title.textContent = `${table.title || "untitled"}${words}`;
        title.title = title.textContent;
        [lowest.textContent, highest.textContent] = [tidy(map.least ?? 0), `${tidy(map.most ?? 0)} importance`];
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
    setLinked(names) {
      linked = new Set(names);
      show();
    },
    value: () => ({ ...committed }),
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

/** @param {number} share */
function percent(share) {
  const value = 100 * share;
  if (value > 0 && value < 1) return `${Number(value.toPrecision(1))} %`;
  return `${value < 10 || (value > 99 && value < 99.95) ? Number(value.toFixed(1)) : Math.round(value)} %`;
}

/** Three digits that matter. @param {number} value */
function tidy(value) {
  return String(Number(value.toPrecision(3)));
}
