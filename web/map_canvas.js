// @ts-check
/**
 * What the map shows: a row for each site, its atoms from the most important to the least, coloured by importance. What is left out is
 * grey, and a line runs round what is kept. All that a moving pointer does not change is painted once, so that tens of thousands of
 * atoms stay smooth. What a person does with it is in atom_map.js.
 */

import { fitted, make } from "./colours.js";
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
    this.small = document.createElement("canvas"); // a pixel for each atom
    this.base = document.createElement("canvas"); // as large as the map: all but labels and pointer
    this.stale = true; // both
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
    this.repaint();
  }

  /** @param {Uint8Array} mask what is kept @param {Uint8Array | null} there what an earlier node left */
  setMask(mask, there) {
    this.mask = mask;
    this.there = there;
    this.repaint();
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

  /** The cells as one small picture. */
  paintCells() {
    if (!this.theme || !this.table) return;
    const { rows, columns, atomAt, mask, there, shade } = this, { scale, faded } = this.theme;
    this.small.width = columns;
    this.small.height = Math.max(1, rows);
    const context = /** @type {CanvasRenderingContext2D} */ (this.small.getContext("2d"));
    const picture = context.createImageData(columns, Math.max(1, rows)), words = new Uint32Array(picture.data.buffer);
    for (let place = 0; place < rows * columns; place++) {
      const atom = atomAt[place];
      if (atom < 0 || (there && !there[atom])) continue;
      words[place] = mask[atom] ? scale[shade[atom]] : faded[shade[atom]];
    }
    context.putImageData(picture, 0, 0);
  }

  /** The line between what is kept and what is not. @param {number} width @param {number} height */
  outlinePath(width, height) {
    const path = new Path2D(), { rows, columns, atomAt, mask } = this, w = width / columns, h = height / rows;
    /** @param {number} row @param {number} column */
    const kept = (row, column) => {
      if (row < 0 || row >= rows || column < 0 || column >= columns) return false;
      const atom = atomAt[row * columns + column];
      return atom >= 0 && mask[atom] === 1;
    };
    for (let row = 0; row <= rows; row++) {
      // Horizontal parts in runs, above the row.
      let start = -1;
      for (let column = 0; column <= columns; column++) {
        const edge = column < columns && kept(row, column) !== kept(row - 1, column);
        if (edge && start < 0) start = column;
        if (!edge && start >= 0) {
          path.moveTo(start * w, row * h);
          path.lineTo(column * w, row * h);
          start = -1;
        }
      }
      if (row === rows) break;
      for (let column = 0; column <= columns; column++) {
        if (kept(row, column) !== kept(row, column - 1)) {
          path.moveTo(column * w, row * h);
          path.lineTo(column * w, (row + 1) * h);
        }
      }
    }
    return path;
  }

  draw() {
    const wide = this.canvas.offsetWidth, high = this.canvas.offsetHeight;
    if (!this.theme || !wide || !high) return;
    const context = fitted(this.canvas, wide, high);
    context.clearRect(0, 0, wide, high);
    if (!this.table || !this.rows) return;
    if (this.stale || this.base.width !== this.canvas.width || this.base.height !== this.canvas.height) this.drawBase(context.getTransform());
    this.stale = false;
    context.drawImage(this.base, 0, 0, wide, high);
    const { left, top, width, height } = this.box, w = width / this.columns, h = height / this.rows;
    context.save();
    context.translate(left, top);
    this.drawPointer(context, w, h);
    context.restore();
    context.font = FONT;
    this.drawLabels(context, h);
  }

  /** Cells, what is kept, and the bars. @param {DOMMatrix} scale of the map's own canvas */
  drawBase(scale) {
    const { theme, table } = this;
    if (!theme || !table) return;
    Object.assign(this.base, { width: this.canvas.width, height: this.canvas.height });
    const context = /** @type {CanvasRenderingContext2D} */ (this.base.getContext("2d"));
    context.setTransform(scale);
    context.font = FONT;
    this.gutter = Math.min(96, 12 + Math.max(...table.sites.map((site) => context.measureText(site.label).width)));
    this.paintCells();
    const { left, top, width, height } = this.box, w = width / this.columns, h = height / this.rows;
    context.save();
    context.translate(left, top);
    context.imageSmoothingEnabled = w < 1 || h < 1;
    // Costly where a graphics card does not do it, and hardly to be seen where pixels and atoms are about as many.
    context.imageSmoothingQuality = w < 0.6 || h < 0.6 ? "high" : "low";
    context.drawImage(this.small, 0, 0, this.columns, this.rows, 0, 0, width, height);
    // Cells that are large enough stand apart.
    context.fillStyle = theme.field;
    if (h >= 9) for (let row = 1; row < this.rows; row++) context.fillRect(0, row * h - 0.5, width, 1);
    if (w >= 5) for (let column = 1; column < this.columns; column++) context.fillRect(column * w - 0.5, 0, 1, height);
    context.strokeStyle = theme.dark ? "rgb(255 255 255 / 0.9)" : "rgb(0 0 0 / 0.85)";
    context.lineWidth = Math.max(0.6, Math.min(1.5, w / 2, h / 4 + 0.4));
    context.stroke(this.outlinePath(width, height));
    context.restore();
    this.drawBars(context, h);
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

  /** What each site holds of the importance, and how much of that is kept. @param {CanvasRenderingContext2D} context @param {number} h */
  drawBars(context, h) {
    if (!this.theme || !this.table) return;
    const { table, mask, there } = this, left = this.canvas.offsetWidth - BARS + 2, room = BARS - 6;
    const sums = table.sites.map(({ first, size }) => {
      let whole = 0, kept = 0;
      for (let atom = first; atom < first + size; atom++) {
        if (there && !there[atom]) continue;
        whole += table.importance[atom];
        if (mask[atom]) kept += table.importance[atom];
      }
      return { whole, kept };
    });
    const most = Math.max(...sums.map((sum) => sum.whole)) || 1, thick = Math.max(1, h * 0.62);
    sums.forEach(({ whole, kept }, row) => {
      const y = PAD + row * h + (h - thick) / 2;
      context.globalAlpha = 0.22;
      context.fillStyle = /** @type {Theme} */ (this.theme).text;
      context.fillRect(left, y, (whole / most) * room, thick);
      context.globalAlpha = 0.85;
      context.fillStyle = /** @type {Theme} */ (this.theme).accent;
      context.fillRect(left, y, (kept / most) * room, thick);
    });
    context.globalAlpha = 1;
  }
}
