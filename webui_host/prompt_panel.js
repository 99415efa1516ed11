// @ts-check
/** The panel below a web UI's prompt: the prompt's tags, and for one of them its strength and its atoms. The prompt holds all of its state. */

import { mount } from "../web/atom_selector.js";
import { make } from "../web/colours.js";
import { printable } from "../web/shown_text.js";
import { makeTable } from "../web/table.js";
import { t } from "../web/texts.js";
import { choiceOf, tagText, tagsIn, withChoice, withTag, without } from "./tags.js";

/** @typedef {import("../web/table.js").TableJson} TableJson */

const LOOK = 400; // milliseconds between looks at the prompt, which others write too

/**
 * @param {HTMLElement} container
 * @param {{read: () => string, write: (prompt: string) => void, ask: (route: string) => Promise<any>}} host the prompt, and the server's answers as JSON
 */
export function mountPanel(container, host) {
  let at = 0, seen = "", shownName = "";
  /** @type {Map<string, Promise<TableJson & {detail?: string}>>} */
  const tables = new Map();
  /** @type {import("../web/table.js").Table | null} */
  let table = null;

  const names = make("select", { className: "sd-grow", "aria-label": t("adapter"), onchange: () => names.value && add(names.value) });
  const refresh = make("button", { className: "sd-icon", type: "button", title: t("Look for files again"), onclick: list }, "↻");
  const chips = make("div", { className: "sd-row sd-wrap" });
  const range = make("input", { type: "range", className: "sd-range sd-grow", min: "-1", max: "2", step: "0.05", "aria-label": t("strength") });
  const number = make("input", { type: "number", className: "sd-number", step: "0.05", "aria-label": t("strength") });
  for (const field of [range, number]) field.addEventListener("input", () => field.value && change((tag) => ({ ...tag, strength: Number(field.value) })));
  const strength = make("div", { className: "sd-row" }, make("label", {}, t("strength")), range, number);
  const atoms = make("div", { className: "sd-atoms", style: "height:430px" });
  const selector = mount(atoms, choiceOf({}), (choice) => {
    const known = table;
    if (known) change((tag) => ({ ...tag, options: withChoice(tag.options, choice, known) }));
  });
  selector.setSwitch(false);
  container.classList.add("sd-panel");
  container.append(make("div", { className: "sd-row" }, names, refresh), chips, strength, atoms);

  /** @param {string} name */
  function add(name) {
    names.value = "";
    const there = tagsIn(host.read()).findIndex((tag) => tag.name === name);
    if (there < 0) host.write(withTag(host.read(), tagText({ name, strength: 1, options: {} }), null));
    at = there < 0 ? tagsIn(host.read()).length - 1 : there;
    look(true);
  }

  /** @param {(tag: import("./tags.js").Tag) => {name: string, strength: number, options: Record<string, string>}} to */
  function change(to) {
    const tag = tagsIn(host.read())[at];
    if (!tag) return;
    host.write(withTag(host.read(), tagText(to(tag)), tag));
    look(true);
  }

  async function list() {
    tables.clear();
    shownName = "";
    const found = await host.ask("list");
    names.replaceChildren(make("option", { value: "" }, t("add an adapter…")), ...found.map((/** @type {{name: string}} */ { name }) => make("option", { value: name }, printable(name))));
    look(true);
  }

  /** Shows the prompt's tags as they are now. @param {boolean} [again] also where the prompt is the same */
  async function look(again = false) {
    const prompt = host.read();
    if (prompt === seen && !again) return;
    seen = prompt;
    const tags = tagsIn(prompt);
    at = Math.max(0, Math.min(at, tags.length - 1));
    chips.replaceChildren(
      ...tags.flatMap((tag, place) => [
        make("button", { type: "button", "aria-pressed": String(place === at), onclick: () => ((at = place), look(true)) }, printable(tag.name)),
        make("button", { type: "button", className: "sd-icon", title: t("Take it out of the prompt"), onclick: () => (host.write(without(host.read(), tagsIn(host.read())[place])), look(true)) }, "×"),
      ]),
    );
    const tag = tags[at];
    strength.hidden = atoms.hidden = !tag;
    if (!tag) return void (shownName = "");
    for (const field of [range, number]) if (document.activeElement !== field) field.value = String(tag.strength);
    if (tag.name !== shownName) await show(tag.name);
    if (shownName === tag.name) selector.setValue(choiceOf(tag.options));
  }

  /** @param {string} name */
  async function show(name) {
    shownName = name;
    if (!tables.has(name)) tables.set(name, host.ask(`inspect?name=${encodeURIComponent(name)}`));
    const json = await tables.get(name);
    if (shownName !== name || !json) return;
    table = "sites" in json ? makeTable(json) : null;
    if (!table) selector.setMessage(json.detail ?? t("{name} cannot be read.", { name }));
    selector.setTable(table ? json : null);
  }

  const timer = setInterval(look, LOOK);
  list();
  return { selector, destroy: () => (clearInterval(timer), selector.destroy()) };
}
