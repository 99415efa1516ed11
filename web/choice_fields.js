// @ts-check
/** The fields of a choice, as the atom selector lays them out: what is typed or clicked there, and what they say. Knows no dictionary. */

import { make } from "./colours.js";
import { amountOf, stopsPresets } from "./linked_choice.js";
import { SelectionError } from "./table.js";
import { t } from "./texts.js";
import { amountField, modeNames } from "./words.js";

/** @typedef {import("./table.js").Choice} Choice */
/**
 * @typedef {{
 *   change: (more: Partial<Choice>) => void,
 *   named: () => Partial<Choice>,
 *   check: (name: "atoms" | "layers", text: string) => void,
 *   complain: (text: string) => void,
 *   leave: () => void }} Panel
 * `change` takes over what a person has finished; `named` says what is kept now by its addresses; `check` throws SelectionError for a text
 * that means nothing in this dictionary; `leave` is for Escape.
 */

const PRESETS = [1, 0.5, 0.25, 0.1, 0.05];

export class ChoiceFields {
  /** @param {Panel} panel */
  constructor(panel) {
    this.panel = panel;
    /** @type {Choice | null} */
    this.choice = null;
    this.written = ""; // what the field for addresses shows while nobody types there
    const { change } = panel, stay = (/** @type {KeyboardEvent} */ event) => this.stay(event);
    this.presets = PRESETS.map((share) =>
      make("button", { type: "button", onclick: () => change({ mode: "share", share }) }, `${share * 100}%`),
    );
    this.mode = make("select", { "aria-label": t("Select by"),
      onchange: () => change({ mode: this.mode.value, ...(this.mode.value === "addresses" ? panel.named() : {}) }) });
    for (const [id, name] of Object.entries(modeNames())) this.mode.append(make("option", { value: id }, name));
    this.amount = make("input", { className: "sd-number", type: "text", inputMode: "decimal", "aria-label": t("Amount"), onchange: () => this.takeAmount(), onkeydown: stay });
    this.order = make("select", { "aria-label": t("Order"), title: t("importance: for editing; greedy: the smallest file of the same effect, needs moments in the file"),
      onchange: () => change({ order: this.order.value }) });
    this.order.append(make("option", { value: "importance" }, t("by importance")), make("option", { value: "greedy" }, t("greedy")));
    this.atoms = make("input", {
      className: "sd-grow", type: "text", spellcheck: false, "aria-label": t("Atoms by address"), placeholder: "L17[137], L3[0-15], L4-L9   ( / )",
      onchange: () => this.takeText("atoms", (text) => ({ mode: "addresses", atoms: text, invert: false, layers: "" })), onkeydown: stay,
    });
    this.layers = make("input", { type: "text", spellcheck: false, size: 9, placeholder: t("all"), "aria-label": t("Layers"), title: t("Only atoms of these layers: L4-L9"),
      onchange: () => this.takeText("layers", (text) => ({ layers: text })), onkeydown: stay });
    this.perSite = make("input", { type: "checkbox", onchange: () => change({ per_site: this.perSite.checked }) });
    this.invert = make("input", { type: "checkbox", onchange: () => change({ invert: this.invert.checked }) });
    this.refit = make("input", { type: "checkbox", onchange: () => change({ refit: this.refit.checked }) });
    this.how = make("div", { className: "sd-row sd-wrap", style: "column-gap:12px" }, this.order, make("label", {}, t("layers"), this.layers),
      make("label", { title: t("Take the share or number in every site") }, this.perSite, t("per site")),
      make("label", { title: t("Keep exactly what would have gone") }, this.invert, t("invert")),
      make("label", { title: t("Change the atoms that stay so that they come as near to the whole as they can (needs moments in the file)") }, this.refit, t("refit")));
  }

  // ---- what a person does

  takeAmount() {
    const number = Number(this.amount.value.replace("%", "").replace(",", ".").trim()), { choice } = this;
    if (!choice) return;
    if (!this.amount.value.trim() || Number.isNaN(number)) return void (this.amount.value = amountField(choice));
    if (choice.mode === "top") this.panel.change({ top: Math.max(0, Math.round(number)) });
    else if (choice.mode === "threshold") this.panel.change({ threshold: Math.max(0, number) });
    else this.panel.change({ share: Number(Math.min(1, Math.max(0, number / 100)).toPrecision(6)) });
  }

  /** @param {"atoms" | "layers"} name @param {(text: string) => Partial<Choice>} meant */
  takeText(name, meant) {
    const field = this[name], text = field.value.trim();
    try {
      this.panel.check(name, text);
    } catch (error) {
      if (!(error instanceof SelectionError)) throw error;
      field.classList.add("sd-wrong");
      return this.panel.complain(error.message);
    }
    this.panel.change(meant(text));
  }

  /** Enter takes the field; the host hears no key that is typed here. @param {KeyboardEvent} event */
  stay(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) return;
    event.stopPropagation();
    if (event.key === "Enter") /** @type {HTMLElement} */ (event.target).blur();
    if (event.key !== "Escape") return;
    // Before the field loses the focus, which would take over what was typed.
    this.atoms.value = this.written;
    this.panel.leave();
  }

  // ---- what they show

  /** @param {Choice} choice @param {Set<string>} linked names of those whose value comes over a link */
  show(choice, linked) {
    this.choice = choice;
    for (const field of [this.atoms, this.layers, this.amount]) field.classList.remove("sd-wrong");
    this.mode.value = choice.mode;
    this.order.value = choice.order;
    this.perSite.checked = choice.per_site;
    this.invert.checked = choice.invert;
    this.refit.checked = choice.refit;
    this.layers.value = choice.layers;
    this.amount.hidden = choice.mode === "addresses";
    // What the field itself says does not count beside a link.
    this.amount.value = linked.has(amountOf(choice.mode)) ? "–" : amountField(choice);
    const stopped = stopsPresets(linked);
    this.presets.forEach((button, i) => {
      button.setAttribute("aria-pressed", String(!stopped && choice.mode === "share" && choice.share === PRESETS[i]));
      button.disabled = stopped;
      button.title = stopped ? t("A value comes over a link; what is kept is known once it runs.") : t("Keep {share} % of the atoms", { share: PRESETS[i] * 100 });
    });
    for (const [field, name] of /** @type {const} */ ([
      [this.mode, "mode"], [this.amount, amountOf(choice.mode)], [this.layers, "layers"], [this.perSite, "per_site"], [this.invert, "invert"],
      [this.refit, "refit"],
    ])) {
      field.disabled = linked.has(name);
    }
    // What is typed here changes the mode too.
    this.atoms.disabled = linked.has("atoms") || linked.has("mode");
    this.order.disabled = linked.has("order") || (choice.mode !== "share" && choice.mode !== "top");
  }

  /** While a pointer moves: what changes from frame to frame. @param {Choice} choice */
  preview(choice) {
    const named = choice.mode === "addresses";
    if (this.mode.value !== choice.mode) this.mode.value = choice.mode;
    if (this.amount.hidden !== named) this.amount.hidden = named;
    if (!named) this.amount.value = amountField(choice);
  }

  /** What is kept, as addresses; not over what a person is typing. @param {string} text */
  showAtoms(text) {
    this.written = text;
    if (document.activeElement !== this.atoms) this.atoms.value = text;
  }
}
