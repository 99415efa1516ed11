// @ts-check
/**
 * What the map shows: a row for each site, its atoms from the most important to the least, coloured by importance. What is left out is
 * grey, and a line runs round what is kept. The cells are in map_cells.js; what a person does with it is in atom_map.js.
 */

import { fitted, make } from "./colours.js";
import { MapCells } from "./map_cells.js";
import { t } from "./texts.js";

/** @typedef {import("./table.js").Table} Table @typedef {import("./colours.js").Theme} Theme */
/** @typedef {{row: number, column: number}} Cell */

const BARS = 40; // width of the column that shows what each site holds
const PAD = 6;
const DECADES = 3; // of importance that the colours span
const FONT = "10px sans-serif";

export class MapCanvas {
  constructor() {
    /** @type {Table | null} */
    this.table = null;
    /** @type {Theme | null} */
    this.theme = null;
    /** @type {Uint8Array} */
    this.mask = new Uint8Array();
    /** @type {Uint8Array | null} */
    this.there = null;
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
    this.canvas = make("canvas", {
      className: "sd-map", tabIndex: 0, role: "application", "aria-roledescription": t("atom map"),
      "aria-label": t("Layers by atoms. Arrows move, space keeps or drops an atom, L a whole row, slash types an address."),
    });
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
    this.repaint();
  }

  /** @param {Uint8Array} mask what is kept @param {Uint8Array | null} there what an earlier node left */
  setMask(mask, there) {
    if (there !== this.there) this.stale = true;
    this.mask = mask;
    this.there = there;
    this.changed();
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
    const width = this.canvas.offsetWidth, height = this.canvas.offsetHeight;
    return { left: this.gutter, top: PAD, width: Math.max(1, width - this.gutter - BARS - PAD), height: Math.max(1, height - 2 * PAD) };
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
      this.gutter = Math.min(96, 12 + Math.max(...table.sites.map((site) => context.measureText(site.label).width)));
      this.cells.paint(context, this.box, theme, this.mask, this.there);
    }
    if (anew || this.cells.repair(context, this.box, theme, this.mask)) this.drawBars(context);
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
    const every = Math.max(1, Math.ceil(11 / h)), pointed = this.hover?.row ?? -1;
    context.textAlign = "right";
    context.textBaseline = "middle";
    this.table.sites.forEach((site, row) => {
      const hidden = row % every !== 0 || (pointed >= 0 && row !== pointed && Math.abs(row - pointed) * h < 11);
      if (hidden && row !== pointed) return;
      context.fillStyle = /** @type {Theme} */ (this.theme)[row === pointed ? "text" : "muted"];
      context.fillText(site.label, this.gutter - 6, PAD + (row + 0.5) * h, this.gutter - 8);
    });
  }

  /** What each site holds of the importance, and how much of that is kept. @param {CanvasRenderingContext2D} context */
  drawBars(context) {
    if (!this.theme) return;
    const { held, kept } = this.cells, left = this.canvas.offsetWidth - BARS + 2, room = BARS - 6, h = this.box.height / this.rows;
    const most = Math.max(...held) || 1, thick = Math.max(1, h * 0.62);
    context.clearRect(left, 0, room, this.canvas.offsetHeight);
    for (let row = 0; row < this.rows; row++) {
      const y = PAD + row * h + (h - thick) / 2;
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
