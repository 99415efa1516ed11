// @ts-check
/** The map under the hand: pointer and keyboard change what is kept. How it looks is in map_canvas.js. */

import { place } from "./colours.js";
import { MapCanvas } from "./map_canvas.js";

/** @typedef {import("./map_canvas.js").Cell} Cell */

/**
 * @typedef {{onEdit: (mask: Uint8Array, done: boolean, replaces: number) => void, onPoint: (atom: number, x: number, y: number) => void,
 *   onSay: (atom: number) => void, onCommand: (name: string) => void}} Callbacks
 * `replaces` tells how many edits before it a double click has made undone.
 */
export class AtomMap extends MapCanvas {
  /** @param {Callbacks} callbacks */
  constructor(callbacks) {
    super();
    this.callbacks = callbacks;
    this.fixed = false; // only to look at
    const on = (/** @type {string} */ name, /** @type {(event: any) => void} */ act) => this.canvas.addEventListener(name, act);
    on("pointerdown", (event) => this.press(event));
    on("pointermove", (event) => this.move(event));
    on("pointerup", (event) => this.release(event));
    on("pointercancel", (event) => this.release(event));
    on("pointerleave", () => this.point(null, 0, 0));
    on("dblclick", (event) => this.double(event));
    on("keydown", (event) => this.key(event));
    on("focus", () => this.changed());
    on("blur", () => this.changed());
  }

  // ---- the pointer

  scrolled() {
    if (!this.drag) this.point(null, 0, 0);
  }

  /** @param {Cell | null} cell @param {number} x @param {number} y */
  point(cell, x, y) {
    const before = this.hover;
    this.hover = cell;
    this.callbacks.onPoint(cell ? this.atomOf(cell) : -1, x, y);
    if (before?.row !== cell?.row || before?.column !== cell?.column) this.changed();
  }

  /** @param {PointerEvent} event */
  press(event) {
    if (event.button !== 0 || !this.table) return;
    event.stopPropagation();
    this.canvas.focus({ preventScroll: true });
    const cell = this.cellAt(place(this.canvas, event));
    if (!cell || this.atomOf(cell) < 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.cursor = cell;
    if (this.fixed) return this.changed();
    this.drag = { from: cell, last: cell, before: this.mask, keep: !this.mask[this.atomOf(cell)], rectangle: event.shiftKey };
    this.paint([cell]);
  }

  /** @param {PointerEvent} event */
  move(event) {
    if (!this.table) return;
    const at = place(this.canvas, event);
    const cell = this.cellAt(at, this.drag !== null);
    this.point(cell, at.x, at.y);
    if (!this.drag || !cell) return;
    event.stopPropagation();
    const { from, last } = this.drag;
    this.drag.last = this.cursor = cell;
    this.bringIntoView(cell.row); // a drag over the edge scrolls
    /** @type {Cell[]} */
    const cells = [];
    if (this.drag.rectangle) {
      this.mask = this.drag.before;
      for (let row = Math.min(from.row, cell.row); row <= Math.max(from.row, cell.row); row++) {
        for (let column = Math.min(from.column, cell.column); column <= Math.max(from.column, cell.column); column++) cells.push({ row, column });
      }
    } else {
      // The pointer may have jumped over cells.
      const steps = Math.max(1, Math.abs(cell.row - last.row), Math.abs(cell.column - last.column));
      for (let step = 1; step <= steps; step++) {
        const part = step / steps;
        cells.push({ row: Math.round(last.row + (cell.row - last.row) * part), column: Math.round(last.column + (cell.column - last.column) * part) });
      }
    }
    this.paint(cells);
  }

  /** @param {Cell[]} cells */
  paint(cells) {
    if (!this.drag) return;
    const mask = this.mask.slice();
    for (const cell of cells) {
      const atom = this.atomOf(cell);
      if (atom >= 0 && (!this.available || this.available[atom])) mask[atom] = this.drag.keep ? 1 : 0;
    }
    this.mask = mask;
    this.changed();
    this.callbacks.onEdit(mask, false, 0);
  }

  /** @param {PointerEvent} event */
  release(event) {
    if (!this.drag) return;
    event.stopPropagation();
    const { before } = this.drag;
    this.drag = null;
    if (event.type === "pointercancel") this.mask = before;
    this.changed();
    this.callbacks.onEdit(this.mask, true, 0);
  }

  /** A row, or from the labels a whole layer. @param {MouseEvent} event */
  double(event) {
    if (!this.table) return;
    event.preventDefault();
    event.stopPropagation();
    const at = place(this.canvas, event), cell = this.cellAt(at), { left, width } = this.box;
    const row = this.cellAt({ x: left + 1, y: at.y })?.row;
    if (row === undefined) return;
    const inside = at.x >= left && at.x < left + width;
    const { layer, member } = this.table.sites[row];
    const rows = inside ? [row] : this.table.sites.flatMap((site, i) => (site.layer === layer && site.member === member ? [i] : []));
    this.toggleRows(rows, cell && this.atomOf(cell) >= 0 ? 2 : 0);
  }

  /** @param {number[]} rows @param {number} [replaces] */
  toggleRows(rows, replaces = 0) {
    if (!this.table || this.fixed) return;
    const mask = this.mask.slice(), atoms = [];
    for (const row of rows) {
      const { first, size } = this.table.sites[row];
      for (let atom = first; atom < first + size; atom++) if (!this.available || this.available[atom]) atoms.push(atom);
    }
    const keep = atoms.some((atom) => !mask[atom]) ? 1 : 0;
    for (const atom of atoms) mask[atom] = keep;
    this.mask = mask;
    this.changed();
    this.callbacks.onEdit(mask, true, replaces);
  }

  // ---- the keyboard

  /** @param {KeyboardEvent} event */
  key(event) {
    if (!this.table || event.ctrlKey || event.metaKey || event.altKey) return;
    const { cursor } = this, size = (/** @type {number} */ row) => this.table?.sites[row].size ?? 0;
    /** @type {Record<string, [number, number]>} */
    const moves = {
      ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], PageUp: [-10, 0], PageDown: [10, 0],
      Home: [0, -this.columns], End: [0, this.columns],
    };
    if (event.key in moves) {
      const before = this.mask[this.atomOf(cursor)];
      const [down, right] = moves[event.key];
      let row = Math.max(0, Math.min(this.rows - 1, cursor.row + down));
      while (size(row) === 0 && row + Math.sign(down) >= 0 && row + Math.sign(down) < this.rows && down) row += Math.sign(down);
      this.cursor = { row, column: Math.max(0, Math.min(size(row) - 1, cursor.column + right)) };
      const atom = this.atomOf(this.cursor);
      if (event.shiftKey && atom >= 0 && this.mask[atom] !== before) this.set(atom, before);
      this.showCursor();
    } else if (event.key === " " || event.key === "Enter") {
      const atom = this.atomOf(cursor);
      if (atom >= 0) this.set(atom, this.mask[atom] ? 0 : 1);
      this.showCursor();
    } else if (event.key === "l" || event.key === "L") {
      this.toggleRows([cursor.row]);
    } else if (event.key === "/") {
      this.callbacks.onCommand("address");
    } else if (event.key === "i" || event.key === "I") {
      this.callbacks.onCommand("invert");
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  /** @param {number} atom @param {number} keep */
  set(atom, keep) {
    if (this.fixed || (this.available && !this.available[atom])) return;
    this.mask = this.mask.slice();
    this.mask[atom] = keep;
    this.changed();
    this.callbacks.onEdit(this.mask, true, 0);
  }

  showCursor() {
    this.bringIntoView(this.cursor.row);
    const atom = this.atomOf(this.cursor);
    if (atom >= 0) {
      const { x, y } = this.centreOf(atom);
      this.callbacks.onPoint(atom, x, y);
      this.callbacks.onSay(atom);
    }
    this.changed();
  }

  /** Puts the cursor on an atom, as after an address was typed. @param {number} atom */
  goTo(atom) {
    if (this.table && atom >= 0) this.cursor = { row: this.table.siteOf[atom], column: this.columnOf[atom] };
    this.bringIntoView(this.cursor.row);
    this.changed();
  }
}
