// @ts-check
/**
 * The cells of the atom map as a picture that is kept: painted whole when the table, the theme or the size is another, and repaired only
 * where an atom came or went. So a pointer that paints over tens of thousands of atoms costs what it changes, and no more.
 */

/** @typedef {import("./table.js").Table} Table @typedef {import("./colours.js").Theme} Theme */
/** @typedef {{left: number, top: number, width: number, height: number}} Box */
/** @typedef {{top: number, bottom: number}} Rows  both ends included */
/** @typedef {{top: number, bottom: number, from: number, to: number}} Patch  rows and columns, both ends included */

const MARGIN = 2; // CSS pixels that a line may reach over the edge of its cell

export class MapCells {
  constructor() {
    /** @type {Table | null} */
    this.table = null;
    this.rows = this.columns = 0;
    this.atomAt = new Int32Array(); // by row and column; -1: none
    this.columnOf = new Int32Array();
    this.shade = new Uint8Array(); // step of the colour scale
    this.mask = new Uint8Array();
    /** @type {Uint8Array | null} */
    this.available = null;
    this.held = new Float64Array(); // by row: importance of what is there
    this.kept = new Float64Array(); // by row: importance of what is kept
    this.small = document.createElement("canvas"); // a pixel for each atom
    /** @type {ImageData | null} */
    this.image = null;
    this.words = new Uint32Array();
    this.from = new Int32Array(); // by row: first and last column that changed
    this.to = new Int32Array();
  }

  /** @param {Table | null} table @param {Int32Array} atomAt @param {Int32Array} columnOf @param {Uint8Array} shade */
  setTable(table, atomAt, columnOf, shade) {
    Object.assign(this, { table, atomAt, columnOf, shade, rows: table ? table.sites.length : 0 });
    this.columns = this.rows ? atomAt.length / this.rows : 0;
    this.held = new Float64Array(this.rows);
    this.kept = new Float64Array(this.rows);
    this.from = new Int32Array(this.rows);
    this.to = new Int32Array(this.rows);
    this.image = null;
    if (!this.rows) return;
    Object.assign(this.small, { width: this.columns, height: this.rows });
    this.image = /** @type {CanvasRenderingContext2D} */ (this.small.getContext("2d")).createImageData(this.columns, this.rows);
    this.words = new Uint32Array(this.image.data.buffer);
  }

  /** Everything anew, as far as it is in sight. @param {CanvasRenderingContext2D} context @param {Box} box @param {Theme} theme @param {Uint8Array} mask @param {Uint8Array | null} available @param {Rows} seen */
  paint(context, box, theme, mask, available, seen) {
    this.mask = mask.slice();
    this.available = available;
    for (let row = 0; row < this.rows; row++) this.colour(row, 0, this.columns - 1, theme);
    this.patch(context, box, theme, { ...seen, from: 0, to: this.columns - 1 });
  }

  /** What is kept now, where it differs from what is painted; says whether it does. @param {CanvasRenderingContext2D} context @param {Box} box @param {Theme} theme @param {Uint8Array} mask @param {Rows} seen */
  repair(context, box, theme, mask, seen) {
    const { from, to, columnOf, table } = this, old = this.mask;
    if (!table) return false;
    from.fill(this.columns);
    to.fill(-1);
    let any = false;
    for (let atom = 0; atom < mask.length; atom++) {
      if (mask[atom] === old[atom]) continue;
      const row = table.siteOf[atom], column = columnOf[atom];
      if (column < from[row]) from[row] = column;
      if (column > to[row]) to[row] = column;
      old[atom] = mask[atom];
      any = true;
    }
    if (!any) return false;
    for (let row = 0; row < this.rows; row++) if (to[row] >= 0) this.colour(row, from[row], to[row], theme);
    for (const patch of patches(from, to)) {
      const { top, bottom } = patch;
      if (bottom >= seen.top && top <= seen.bottom) this.patch(context, box, theme, { ...patch, top: Math.max(top, seen.top), bottom: Math.min(bottom, seen.bottom) });
    }
    return true;
  }

  /** @param {number} row @param {number} from @param {number} to @param {Theme} theme */
  colour(row, from, to, { scale, faded }) {
    const { columns, atomAt, mask, available, shade, words, table } = this;
    if (!table) return;
    for (let place = row * columns + from; place <= row * columns + to; place++) {
      const atom = atomAt[place];
      words[place] = atom < 0 || (available && !available[atom]) ? 0 : mask[atom] ? scale[shade[atom]] : faded[shade[atom]];
    }
    let held = 0, kept = 0;
    const { first, size } = table.sites[row], { importance } = table;
    for (let atom = first; atom < first + size; atom++) {
      if (available && !available[atom]) continue;
      held += importance[atom];
      if (mask[atom]) kept += importance[atom];
    }
    this.held[row] = held;
    this.kept[row] = kept;
  }

  /** Cells, and the lines round what is kept, within a part of the map. @param {CanvasRenderingContext2D} context @param {Box} box @param {Theme} theme @param {Patch} patch */
  patch(context, box, theme, { top, bottom, from, to }) {
    if (!this.image) return;
    const w = box.width / this.columns, h = box.height / this.rows;
    const small = /** @type {CanvasRenderingContext2D} */ (this.small.getContext("2d"));
    small.putImageData(this.image, 0, 0, from, top, to - from + 1, bottom - top + 1);
    // On whole pixels of the screen: else what lies across the edge of a patch would be mixed with what was there before.
    const { a: fineX, d: fineY } = context.getTransform();
    const left = Math.floor((box.left + from * w - MARGIN) * fineX) / fineX, right = Math.ceil((box.left + (to + 1) * w + MARGIN) * fineX) / fineX;
    const upper = Math.floor((box.top + top * h - MARGIN) * fineY) / fineY, lower = Math.ceil((box.top + (bottom + 1) * h + MARGIN) * fineY) / fineY;
    context.save();
    context.beginPath();
    context.rect(left, upper, right - left, lower - upper);
    context.clip();
    context.clearRect(left, upper, right - left, lower - upper);
    context.translate(box.left, box.top);
    context.imageSmoothingEnabled = w < 1 || h < 1;
    // Costly where a graphics card does not do it, and hardly to be seen where pixels and atoms are about as many.
    context.imageSmoothingQuality = w < 0.6 || h < 0.6 ? "high" : "low";
    context.drawImage(this.small, 0, 0, this.columns, this.rows, 0, 0, box.width, box.height);
    // Cells that are large enough stand apart.
    context.fillStyle = theme.field;
    if (h >= 9) for (let row = 1; row < this.rows; row++) context.fillRect(0, row * h - 0.5, box.width, 1);
    if (w >= 5) for (let column = 1; column < this.columns; column++) context.fillRect(column * w - 0.5, 0, 1, box.height);
    context.strokeStyle = theme.dark ? "rgb(255 255 255 / 0.9)" : "rgb(0 0 0 / 0.85)";
    context.lineWidth = Math.max(0.6, Math.min(1.5, w / 2, h / 4 + 0.4));
    const far = 2 * MARGIN + 1;
    context.stroke(this.outline(w, h, {
      top: Math.max(0, top - Math.ceil(far / h)), bottom: Math.min(this.rows - 1, bottom + Math.ceil(far / h)),
      from: Math.max(0, from - Math.ceil(far / w)), to: Math.min(this.columns - 1, to + Math.ceil(far / w)),
    }));
    context.restore();
  }

  /** The line between what is kept and what is not. @param {number} w @param {number} h @param {Patch} patch */
  outline(w, h, { top, bottom, from, to }) {
    const path = new Path2D(), { rows, columns, atomAt, mask } = this;
    /** @param {number} row @param {number} column */
    const kept = (row, column) => {
      if (row < 0 || row >= rows || column < 0 || column >= columns) return 0;
      const atom = atomAt[row * columns + column];
      return atom < 0 ? 0 : mask[atom];
    };
    for (let row = top; row <= bottom + 1; row++) {
      // Horizontal parts in runs, above the row.
      let start = -1;
      for (let column = from; column <= to + 1; column++) {
        const edge = column <= to && kept(row, column) !== kept(row - 1, column);
        if (edge && start < 0) start = column;
        if (!edge && start >= 0) {
          path.moveTo(start * w, row * h);
          path.lineTo(column * w, row * h);
          start = -1;
        }
      }
      if (row > bottom) break;
      for (let column = from; column <= to + 1; column++) {
        if (kept(row, column) !== kept(row, column - 1)) {
          path.moveTo(column * w, row * h);
          path.lineTo(column * w, (row + 1) * h);
        }
      }
    }
    return path;
  }
}

/**
 * Changed columns by row, as few rectangles that are not much larger.
 * @param {Int32Array} from @param {Int32Array} to -1: nothing changed in that row @returns {Patch[]}
 */
export function patches(from, to) {
  const found = [];
  /** @type {Patch & {area: number} | null} */
  let open = null;
  for (let row = 0; row < from.length; row++) {
    if (to[row] < 0) {
      open = null;
      continue;
    }
    const own = to[row] - from[row] + 1;
    if (open) {
      const first = Math.min(open.from, from[row]), last = Math.max(open.to, to[row]);
      if ((last - first + 1) * (row - open.top + 1) <= 2 * (open.area + own)) {
        Object.assign(open, { bottom: row, from: first, to: last, area: open.area + own });
        continue;
      }
    }
    open = { top: row, bottom: row, from: from[row], to: to[row], area: own };
    found.push(open);
  }
  return found;
}
