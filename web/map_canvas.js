// @ts-check
/**
 * What the map shows: a row for each site, its atoms from the most important to the least, coloured by importance. What is left out is
 * grey, and a line runs round what is kept. Where available are more rows than there is room, the map scrolls. The cells are in map_cells.js; what a person does with it is in atom_map.js.
 */

import { runsOf } from "./bands.js";
import { fitted, make } from "./colours.js";
import { MapCells } from "./map_cells.js";
import { t } from "./texts.js";

/** @typedef {import("./table.js").Table} Table @typedef {import("./colours.js").Theme} Theme */
/** @typedef {{row: number, column: number}} Cell */

const BARS = 40; // width of the column that shows what each site holds
const PAD = 6;
const DECADES = 3; // of importance that the colours span
const FONT = "10px sans-serif";
const ROW = 11; // the least height of a row: that of its label
const BAND = 14; // width of the strip that names the stacks of the model
const SEEN = 40; // rows that the map shows before it scrolls

export class MapCanvas {
  constructor() {
    /** @type {Table | null} */
    this.table = null;
    /** @type {Theme | null} */
    this.theme = null;
    /** @type {Uint8Array} */
    this.mask = new Uint8Array();
    /** @type {Uint8Array | null} */
    this.available = null;
    this.rows = this.columns = 0;
    this.atomAt = new Int32Array(); // by row and column; -1: none
    this.columnOf = new Int32Array();
    this.shade = new Uint8Array(); // step of the colour scale
    /** @type {Cell} */
    this.cursor = { row: 0, column: 0 };
    /** @type {Cell | null} */
    this.hover = null;
    /** @type {{from: Cell, last: Cell, before: Uint8Array, keep: boolean, rectangle: boolean} | null} */
    this.drag = null;
    this.cells = new MapCells();
    this.base = document.createElement("canvas"); // as large as the map: all but labels and pointer
    this.stale = true; // all of it
    this.frame = 0;
    this.gutter = 40;
    /** @type {{name: string, from: number, to: number}[]} */
    this.bands = [];
    this.canvas = make("canvas", {
      className: "sd-map", tabIndex: 0, role: "application", "aria-roledescription": t("atom map"),
      "aria-label": t("Layers by atoms. Arrows move, space keeps or drops an atom, L a whole row, slash types an address."),
    });
    this.rowsHeight = make("div", { className: "sd-rows" }); // as tall as all rows; the canvas stays in view
    this.element = make("div", { className: "sd-scroll" }, this.canvas, this.rowsHeight);
    this.element.addEventListener("scroll", () => {
      this.scrolled();
      this.repaint();
    });
    this.element.addEventListener("wheel", (event) => {
      // The host zooms its graph with the wheel; where rows are out of sight, it is the map's.
      if (!event.ctrlKey && this.scrolls) event.stopPropagation();
    }, { passive: true });
  }

  /** @param {Table | null} table */
  setTable(table) {
    this.table = table;
    this.drag = null;
    this.rows = table ? table.sites.length : 0;
    this.columns = table ? Math.max(1, ...table.sites.map((site) => site.size)) : 0;
    this.atomAt = new Int32Array(this.rows * this.columns).fill(-1);
    this.columnOf = new Int32Array(table ? table.atoms : 0);
    this.shade = new Uint8Array(table ? table.atoms : 0);
    this.cursor = { row: 0, column: 0 };
    this.hover = null;
    this.mask = new Uint8Array(table ? table.atoms : 0);
    if (table) {
      const most = table.importance.reduce((a, b) => Math.max(a, b), 0), { importance } = table;
      table.sites.forEach(({ first, size }, row) => {
        const atoms = Int32Array.from({ length: size }, (_, i) => first + i).sort((a, b) => importance[b] - importance[a] || a - b);
        this.atomAt.set(atoms, row * this.columns);
        atoms.forEach((atom, column) => (this.columnOf[atom] = column));
      });
      this.least = Math.max(most * 10 ** -DECADES, Number.MIN_VALUE);
      this.most = most || 1;
      for (let atom = 0; atom < table.atoms; atom++) {
        const part = importance[atom] > 0 ? Math.log10(importance[atom] / this.least) / DECADES : 0;
        this.shade[atom] = Math.max(0, Math.min(255, Math.round(255 * part)));
      }
    }
    this.cells.setTable(table, this.atomAt, this.columnOf, this.shade);
    const sites = table?.sites ?? [], bands = runsOf(sites.map((site) => site.band), sites.map((site) => site.member));
    this.bands = bands.some((band) => band.name) ? bands : [];
    this.element.scrollTop = 0;
    this.repaint();
  }

  /** The least that the map needs: all its rows, up to a sensible number of them. */
  height() {
    return 2 * PAD + ROW * Math.min(SEEN, this.rows);
  }

  get scrolls() {
    return this.rows * ROW + 2 * PAD > this.element.clientHeight + 1;
  }

  /** Height of all rows. */
  get tall() {
    return Math.max(this.element.clientHeight - 2 * PAD, this.rows * ROW);
  }

  /** Rows that are in sight, both ends included. */
  get seen() {
    const { top, height } = this.box, h = height / this.rows, high = this.canvas.offsetHeight;
    return { top: Math.max(0, Math.floor(-top / h)), bottom: Math.min(this.rows - 1, Math.ceil((high - top) / h)) };
  }

  /** @param {number} row */
  bringIntoView(row) {
    const h = this.tall / this.rows, high = this.element.clientHeight, { scrollTop } = this.element;
    if (row * h < scrollTop) this.element.scrollTop = row * h;
    else if ((row + 1) * h + 2 * PAD > scrollTop + high) this.element.scrollTop = (row + 1) * h + 2 * PAD - high;
  }

  /** @param {Uint8Array} mask what is kept @param {Uint8Array | null} available what an earlier node left */
  setMask(mask, available) {
    if (available !== this.available) this.stale = true;
    this.mask = mask;
    this.available = available;
    this.changed();
  }

  /** What was under the pointer is elsewhere now. */
  scrolled() {
    this.hover = null;
  }

  /** @param {Theme} theme */
  setTheme(theme) {
    this.theme = theme;
    this.repaint();
  }

  repaint() {
    this.stale = true;
    this.changed();
  }

  changed() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.draw();
    });
  }

  // ---- geometry

  get box() {
    const width = this.canvas.offsetWidth;
    return {
      left: this.gutter, top: PAD - this.element.scrollTop, width: Math.max(1, width - this.gutter - BARS - PAD), height: Math.max(1, this.tall),
    };
  }

  /** @param {{x: number, y: number}} at @param {boolean} [nearest] also from outside */
  cellAt({ x, y }, nearest = false) {
    const { left, top, width, height } = this.box;
    let column = Math.floor(((x - left) / width) * this.columns), row = Math.floor(((y - top) / height) * this.rows);
    if (nearest) {
      column = Math.max(0, Math.min(this.columns - 1, column));
      row = Math.max(0, Math.min(this.rows - 1, row));
    }
    if (row < 0 || row >= this.rows || column < 0 || column >= this.columns) return null;
    return { row, column };
  }

  /** @param {Cell} cell */
  atomOf(cell) {
    return this.atomAt[cell.row * this.columns + cell.column] ?? -1;
  }

  /** Where an atom is on the screen. @param {number} atom */
  centreOf(atom) {
    const { left, top, width, height } = this.box, row = this.table ? this.table.siteOf[atom] : 0;
    return { x: left + ((this.columnOf[atom] + 0.5) / this.columns) * width, y: top + ((row + 0.5) / this.rows) * height };
  }

  // ---- drawing

  draw() {
    this.element.dataset.captureWheel = String(this.scrolls); // for Nodes 2.0, which takes the wheel first
    this.rowsHeight.style.height = `${Math.max(0, this.tall + 2 * PAD - this.element.clientHeight)}px`;
    const wide = this.canvas.offsetWidth, high = this.canvas.offsetHeight;
    if (!this.theme || !wide || !high) return;
    const context = fitted(this.canvas, wide, high);
    context.clearRect(0, 0, wide, high);
    if (!this.table || !this.rows) return;
    this.drawBase();
    context.drawImage(this.base, 0, 0, wide, high);
    const { left, top, width, height } = this.box, w = width / this.columns, h = height / this.rows;
    context.save();
    context.translate(left, top);
    this.drawPointer(context, w, h);
    context.restore();
    context.font = FONT;
    this.drawLabels(context, h);
  }

  /** Cells, what is kept, and the bars, as far as they are not there yet. */
  drawBase() {
    const { theme, table, base } = this;
    if (!theme || !table) return;
    const anew = this.stale || base.width !== this.canvas.width || base.height !== this.canvas.height;
    const context = /** @type {CanvasRenderingContext2D} */ (base.getContext("2d"));
    if (anew) {
      Object.assign(base, { width: this.canvas.width, height: this.canvas.height });
      context.setTransform(this.canvas.width / this.canvas.offsetWidth, 0, 0, this.canvas.height / this.canvas.offsetHeight, 0, 0);
      context.font = FONT;
      const widest = table.sites.reduce((most, site) => Math.max(most, context.measureText(site.label).width), 0);
      this.gutter = Math.min(96, 12 + widest) + (this.bands.length ? BAND : 0);
      this.cells.paint(context, this.box, theme, this.mask, this.available, this.seen);
    }
    if (anew || this.cells.repair(context, this.box, theme, this.mask, this.seen)) this.drawBars(context);
    this.stale = false;
  }

  /** @param {CanvasRenderingContext2D} context @param {number} w @param {number} h */
  drawPointer(context, w, h) {
    if (!this.theme) return;
    const { accent } = this.theme;
    /** @param {Cell} cell @param {number} grow */
    const frame = (cell, grow) => context.strokeRect(cell.column * w - grow, cell.row * h - grow, w + 2 * grow, h + 2 * grow);
    if (this.drag?.rectangle) {
      const { from, last } = this.drag;
      const column = Math.min(from.column, last.column), row = Math.min(from.row, last.row);
      context.strokeStyle = accent;
      context.lineWidth = 2;
      context.strokeRect(column * w, row * h, (Math.abs(from.column - last.column) + 1) * w, (Math.abs(from.row - last.row) + 1) * h);
    }
    if (this.hover && this.atomOf(this.hover) >= 0) {
      context.lineWidth = 3;
      context.strokeStyle = this.theme.dark ? "#000" : "#fff";
      frame(this.hover, 1.5);
      context.lineWidth = 1.5;
      context.strokeStyle = this.theme.dark ? "#fff" : "#000";
      frame(this.hover, 1.5);
    }
    if (document.activeElement === this.canvas && this.canvas.matches(":focus-visible")) {
      context.lineWidth = 2;
      context.strokeStyle = accent;
      frame(this.cursor, 2.5);
    }
  }

  /** @param {CanvasRenderingContext2D} context @param {number} h */
  drawLabels(context, h) {
    if (!this.theme || !this.table) return;
    const every = Math.max(1, Math.ceil(ROW / h - 0.01)), pointed = this.hover?.row ?? -1;
    const { top } = this.box, { sites } = this.table, seen = this.seen;
    this.drawBands(context, h);
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (let row = seen.top; row <= seen.bottom; row++) {
      const hidden = row % every !== 0 || (pointed >= 0 && row !== pointed && Math.abs(row - pointed) * h < 11);
      if (hidden && row !== pointed) continue;
      context.fillStyle = /** @type {Theme} */ (this.theme)[row === pointed ? "text" : "muted"];
      context.fillText(sites[row].label, this.gutter - 6, top + (row + 0.5) * h, this.gutter - 8 - (this.bands.length ? BAND : 0));
    }
  }

  /** The stacks of the model, as strips beside the labels. @param {CanvasRenderingContext2D} context @param {number} h */
  drawBands(context, h) {
    if (!this.theme) return;
    const { top } = this.box, high = this.canvas.offsetHeight;
    context.textAlign = "center";
    context.textBaseline = "middle";
    this.bands.forEach(({ name, from, to }, number) => {
      const upper = Math.max(0, top + from * h), lower = Math.min(high, top + (to + 1) * h), size = lower - upper;
      if (!name || size < 2) return;
      const { text, field } = /** @type {Theme} */ (this.theme);
      context.globalAlpha = number % 2 ? 0.1 : 0.2;
      context.fillStyle = text;
      context.fillRect(1, upper + 0.5, BAND - 2, size - 1);
      context.globalAlpha = 1;
      context.fillStyle = field;
      if (number) context.fillRect(0, upper - 0.5, this.canvas.offsetWidth, 1);
      if (size < context.measureText(name).width + 4) return;
      context.save();
      context.translate(BAND / 2, (upper + lower) / 2);
      context.rotate(-Math.PI / 2);
      context.fillStyle = text;
      context.fillText(name, 0, 0.5);
      context.restore();
    });
  }

  /** What each site holds of the importance, and how much of that is kept. @param {CanvasRenderingContext2D} context */
  drawBars(context) {
    if (!this.theme) return;
    const { held, kept } = this.cells, left = this.canvas.offsetWidth - BARS + 2, room = BARS - 6, h = this.box.height / this.rows;
    const { top } = this.box, seen = this.seen;
    const most = Math.max(...held) || 1, thick = Math.max(1, h * 0.62);
    context.clearRect(left, 0, room, this.canvas.offsetHeight);
    for (let row = seen.top; row <= seen.bottom; row++) {
      const y = top + row * h + (h - thick) / 2;
      context.globalAlpha = 0.22;
      context.fillStyle = this.theme.text;
      context.fillRect(left, y, (held[row] / most) * room, thick);
      context.globalAlpha = 0.85;
      context.fillStyle = this.theme.accent;
      context.fillRect(left, y, (kept[row] / most) * room, thick);
    }
    context.globalAlpha = 1;
  }
}
