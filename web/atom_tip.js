// @ts-check
/** What is known of the atom under the pointer, as words and as a picture of where it fires. Knows nothing of what the map looks like. */

import { formatAddress } from "./addresses.js";
import { make, write } from "./colours.js";
import { rankAtoms } from "./selection.js";
import { t } from "./texts.js";
import { percent, tidy } from "./words.js";

/** @typedef {import("./table.js").Table} Table @typedef {import("./table.js").AtomPlace} AtomPlace @typedef {import("./colours.js").Theme} Theme */

const SIDE = 64; // CSS pixels of the picture

export class AtomTip {
  constructor() {
    /** @type {Table | null} */
    this.table = null;
    /** @type {Map<string, AtomPlace>} */
    this.places = new Map();
    /** @type {Int32Array | null} */
    this.ranks = null;
    /** @type {Theme | null} */
    this.theme = null;
    this.shown = "";
    this.room = { width: 1, height: 1 };
    this.title = make("b", {});
    this.state = make("span", {});
    this.amounts = make("span", {});
    this.fires = make("span", {});
    this.picture = make("canvas", { className: "sd-place", role: "img", "aria-label": t("Where in the picture the atom fires for the probed prompt") });
    this.element = make("div", { className: "sd-tip", hidden: true }, this.picture,
      make("div", {}, this.title, " ", this.state, make("br"), this.amounts, make("br"), this.fires));
  }

  /** @param {Table | null} table */
  setTable(table) {
    this.table = table;
    this.ranks = null;
    this.places = new Map((table?.maps ?? []).map((each) => [each.address, each]));
    this.shown = "";
    this.element.hidden = true;
  }

  /** @param {Theme} theme */
  setTheme(theme) {
    this.theme = theme;
    this.shown = "";
  }

  /** Address, importance, rank, firing rate. @param {Table} table @param {number} atom */
  words(table, atom) {
    if (!this.ranks) {
      const ranks = (this.ranks = new Int32Array(table.atoms));
      // A file without importance has no ranks.
      if (table.importance.some((value) => value > 0)) rankAtoms(table, "importance").forEach((each, i) => (ranks[each] = i + 1));
    }
    const block = table.sites[table.siteOf[atom]].band?.block;
    return [
      formatAddress(table, atom) + (block ? ` · ${block}` : ""), t("importance {value}", { value: tidy(table.importance[atom]) }),
      t("rank {rank} of {atoms}", { rank: this.ranks[atom] || "–", atoms: table.atoms }),
      Number.isNaN(table.firing[atom]) ? "" : t("fires at {share} of the tokens", { share: percent(table.firing[atom]) }),
    ];
  }

  /** For a screen reader. @param {number} atom @param {string} state */
  spoken(atom, state) {
    return this.table ? [...this.words(this.table, atom), state].filter(Boolean).join(", ") : "";
  }

  /** @param {number} atom -1: none @param {string} state whether it is kept, in words @param {number} x @param {number} y */
  show(atom, state, x, y) {
    const hidden = atom < 0 || !this.table;
    if (this.element.hidden !== hidden) this.element.hidden = hidden;
    if (hidden || !this.table) return;
    const key = `${atom} ${state}`;
    if (key !== this.shown) {
      this.shown = key;
      const [title, importance, rank, fires] = this.words(this.table, atom);
      write(this.title, title);
      write(this.state, state);
      write(this.amounts, `${importance} · ${rank}`);
      write(this.fires, fires);
      this.draw(this.places.get(formatAddress(this.table, atom)));
    }
    // On the side where there is more room. Nothing is measured here: that would lay the page out anew in every frame.
    const right = x > this.room.width / 2, below = y > this.room.height / 2;
    this.element.style.transform = `translate(${x + (right ? -12 : 14)}px, ${y + (below ? -12 : 16)}px) translate(${right ? "-100%" : "0"}, ${below ? "-100%" : "0"})`;
  }

  /** @param {AtomPlace | undefined} place */
  draw(place) {
    if (this.picture.hidden !== !place) this.picture.hidden = !place;
    if (!place || !this.theme) return;
    const { width, height, grid } = place, { scale } = this.theme, longest = Math.max(width, height);
    Object.assign(this.picture, { width, height });
    Object.assign(this.picture.style, { width: `${(SIDE * width) / longest}px`, height: `${(SIDE * height) / longest}px` });
    const bytes = atob(grid), image = new ImageData(width, height), words = new Uint32Array(image.data.buffer);
    for (let i = 0; i < words.length; i++) words[i] = scale[bytes.charCodeAt(i)];
    this.picture.getContext("2d")?.putImageData(image, 0, 0);
  }
}
