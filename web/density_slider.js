// @ts-check
/** From the bare base to everything: a slider with a logarithmic scale, over the curve of what the atoms hold together. */

import { fitted, make, place } from "./colours.js";
import { t } from "./texts.js";

/** @typedef {import("./colours.js").Theme} Theme */

const BASE = 16; // pixels that belong to 0 atoms, as a logarithm has none
const EDGE = 9;
const SCALE = 15; // height of the numbers below

export class DensitySlider {
  /** @param {(k: number, done: boolean) => void} onInput called while it moves, and with `done` at the end */
  constructor(onInput) {
    this.onInput = onInput;
    this.total = 0;
    this.k = 0;
    /** @type {Float64Array} */
    this.curve = new Float64Array(1);
    /** @type {Theme | null} */
    this.theme = null;
    this.enabled = false;
    /** @type {{curve: Float64Array, width: number, whole: Path2D, filled: Path2D} | null} */
    this.drawn = null;
    this.canvas = make("canvas", { className: "sd-slider", tabIndex: 0, role: "slider", "aria-label": t("Atoms kept"), "aria-valuemin": "0" });
    this.canvas.addEventListener("pointerdown", (event) => this.press(event));
    this.canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const name of /** @type {const} */ (["pointerup", "pointercancel"])) this.canvas.addEventListener(name, (event) => this.release(event));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.canvas.addEventListener("focus", () => this.draw());
    this.canvas.addEventListener("blur", () => this.draw());
    this.dragging = false;
  }

  /** @param {{order: Int32Array, curve: Float64Array} | null} slider as selection.sliderOrder gives it @param {number} k @param {string} [why] why it cannot be moved */
  set(slider, k, why = "") {
    this.enabled = slider !== null && slider.order.length > 0;
    this.total = slider ? slider.order.length : 0;
    this.curve = slider ? slider.curve : new Float64Array(1);
    this.k = Math.max(0, Math.min(this.total, k));
    const percent = Math.round(100 * this.curve[this.k]);
    this.canvas.setAttribute("aria-valuemax", String(this.total));
    this.canvas.setAttribute("aria-valuenow", String(this.k));
    this.canvas.setAttribute("aria-valuetext", t("{kept} of {total} atoms, {share} % of the importance", { kept: this.k, total: this.total, share: percent }));
    this.canvas.setAttribute("aria-disabled", String(!this.enabled));
    this.canvas.title = why;
    this.draw();
  }

  /** Width of the scale from one atom to all. */
  get span() {
    return Math.max(1, this.canvas.offsetWidth - 2 * EDGE - BASE);
  }

  /** @param {number} k */
  xOf(k) {
    if (k <= 0) return EDGE;
    return EDGE + BASE + (this.total > 1 ? Math.log(k) / Math.log(this.total) : 1) * this.span;
  }

  /** @param {number} x */
  kOf(x) {
    const at = x - EDGE - BASE;
    if (at < -BASE / 2) return 0;
    return Math.max(1, Math.min(this.total, Math.round(Math.exp((at / this.span) * Math.log(Math.max(1, this.total))))));
  }

  /** @param {PointerEvent} event */
  press(event) {
    if (event.button !== 0 || !this.enabled) return;
    event.stopPropagation();
    this.canvas.setPointerCapture(event.pointerId);
    this.canvas.focus({ preventScroll: true });
    this.dragging = true;
    this.slide(this.kOf(place(this.canvas, event).x), false);
  }

  /** @param {PointerEvent} event */
  move(event) {
    if (!this.dragging) return;
    event.stopPropagation();
    this.slide(this.kOf(place(this.canvas, event).x), false);
  }

  /** @param {PointerEvent} event */
  release(event) {
    if (!this.dragging) return;
    event.stopPropagation();
    this.dragging = false;
    this.slide(this.k, true);
  }

  /** @param {number} k @param {boolean} done */
  slide(k, done) {
    this.k = Math.max(0, Math.min(this.total, k));
    this.draw();
    this.onInput(this.k, done);
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.enabled) return;
    const k = this.k, times = event.shiftKey ? 2 : 1.1;
    /** @type {Record<string, number>} */
    const to = {
      ArrowRight: Math.max(k + 1, Math.round(k * times)), ArrowUp: Math.max(k + 1, Math.round(k * times)),
      ArrowLeft: Math.min(k - 1, Math.round(k / times)), ArrowDown: Math.min(k - 1, Math.round(k / times)),
      PageUp: Math.max(k + 1, k * 2), PageDown: Math.floor(k / 2), Home: 0, End: this.total,
    };
    if (!(event.key in to)) return;
    event.preventDefault();
    event.stopPropagation();
    this.slide(to[event.key], true);
  }

  draw() {
    const width = this.canvas.offsetWidth, height = this.canvas.offsetHeight;
    if (!this.theme || !width || !height) return;
    const { theme, total } = this, context = fitted(this.canvas, width, height);
    const bottom = height - SCALE, top = 5, right = this.xOf(total);
    context.clearRect(0, 0, width, height);
    if (!this.enabled) {
      context.fillStyle = theme.border;
      context.fillRect(EDGE, bottom - 2, width - 2 * EDGE, 2);
      return;
    }
    const yOf = (/** @type {number} */ share) => bottom - share * (bottom - top);
    const at = this.xOf(this.k);
    // What the atoms hold: all of them, and the kept ones.
    if (this.drawn?.curve !== this.curve || this.drawn.width !== width) {
      const whole = new Path2D();
      whole.moveTo(this.xOf(0), bottom);
      for (let x = this.xOf(1); x <= right + 0.5; x++) whole.lineTo(x, yOf(this.curve[this.kOf(x)]));
      const filled = new Path2D(whole);
      filled.lineTo(right, bottom);
      filled.closePath();
      this.drawn = { curve: this.curve, width, whole, filled };
    }
    const { whole, filled } = this.drawn;
    context.globalAlpha = 0.16;
    context.fillStyle = theme.text;
    context.fill(filled);
    if (this.k > 0) {
      context.save();
      context.beginPath();
      context.rect(0, 0, at, height);
      context.clip();
      context.globalAlpha = 0.55;
      context.fillStyle = theme.accent;
      context.fill(filled);
      context.restore();
    }
    context.globalAlpha = 1;
    context.lineWidth = 1.25;
    context.strokeStyle = theme.muted;
    context.stroke(whole);
    // The scale.
    context.fillStyle = theme.border;
    context.fillRect(EDGE, bottom, width - 2 * EDGE, 1);
    context.font = "10px sans-serif";
    context.textBaseline = "top";
    context.fillStyle = theme.muted;
    context.textAlign = "left";
    context.fillText(t("base"), 2, bottom + 4);
    const lastLabel = number(total), lastWide = context.measureText(lastLabel).width + 14;
    for (let power = 1, free = 30; power < total; power *= 10) {
      for (let times = 2; times < 10 && power * times < total; times++) context.fillRect(this.xOf(power * times), bottom, 1, 2.5);
      const x = this.xOf(power), text = number(power);
      context.fillRect(x, bottom, 1, 4);
      const half = context.measureText(text).width / 2;
      if (x - half > free && x + half < width - lastWide) {
        context.textAlign = "center";
        context.fillText(text, x, bottom + 4);
        free = x + half + 8;
      }
    }
    context.textAlign = "right";
    context.fillText(lastLabel, width - 2, bottom + 4);
    // The thumb.
    const held = yOf(this.curve[this.k]);
    context.strokeStyle = theme.text;
    context.lineWidth = 1.5;
    context.beginPath();
    context.moveTo(at, bottom);
    context.lineTo(at, top);
    context.stroke();
    context.fillStyle = theme.accent;
    context.beginPath();
    context.arc(at, held, 5.5, 0, 2 * Math.PI);
    context.fill();
    context.strokeStyle = theme.dark ? "#fff" : "#000";
    context.lineWidth = document.activeElement === this.canvas ? 2.5 : 1.25;
    context.stroke();
  }
}

/** @param {number} value */
function number(value) {
  return value >= 10000 ? `${Math.round(value / 1000)}k` : String(value);
}
