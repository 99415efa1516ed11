// @ts-check
/** The panel of Compare: two or three pictures over one another, with dividers to drag between them. Knows nothing of the host. */

import { make, place } from "./colours.js";
import { addStyle } from "./style.js";
import { t } from "./texts.js";

/** @typedef {import("./sweep_viewer.js").Frame} Frame */

export const COMPARER_HEIGHT = 300;
const KEYS = /** @type {Record<string, number>} */ ({ ArrowLeft: -0.02, ArrowRight: 0.02, PageDown: -0.1, PageUp: 0.1, Home: -1, End: 1 });

/** @param {HTMLElement} container @param {{url: (frame: Frame) => string}} host */
export function mountComparer(container, host) {
  addStyle();
  /** @type {Frame[]} */
  let frames = [];
  /** Where the dividers are, from 0 to 1, in order. @type {number[]} */
  let at = [];
  let dragged = -1;
  /** @type {HTMLImageElement[]} */
  let pictures = [];
  /** @type {HTMLElement[]} */
  let dividers = [];
  /** @type {HTMLElement[]} */
  let names = [];

  const stage = make("div", { className: "sd-compared" });
  const empty = make("div", { className: "sd-empty" }, t("The pictures appear here once they are made."));
  const hold = make("div", { className: "sd-hold sd-sized" }, stage, empty);
  const panel = make("div", { className: "sd-panel", role: "group", "aria-label": t("Compare") }, hold);
  container.append(panel);

  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !at.length) return;
    event.stopPropagation();
    stage.setPointerCapture(event.pointerId);
    const x = part(event);
    dragged = at.reduce((best, each, i) => (Math.abs(each - x) < Math.abs(at[best] - x) ? i : best), 0);
    dividers[dragged].focus({ preventScroll: true });
    move(dragged, x);
  });
  stage.addEventListener("pointermove", (event) => {
    if (dragged < 0) return;
    event.stopPropagation();
    move(dragged, part(event));
  });
  for (const name of ["pointerup", "pointercancel"]) {
    stage.addEventListener(name, (event) => {
      if (dragged >= 0) event.stopPropagation();
      dragged = -1;
    });
  }

  /** @param {PointerEvent} event */
  function part(event) {
    return place(stage, event).x / stage.offsetWidth;
  }

  /** A divider never passes its neighbour. @param {number} which @param {number} to */
  function move(which, to) {
    at[which] = Math.max(at[which - 1] ?? 0, Math.min(at[which + 1] ?? 1, to));
    show();
  }

  function show() {
    empty.hidden = frames.length > 0;
    const edges = [0, ...at, 1];
    pictures.forEach((picture, i) => (picture.style.clipPath = `inset(0 ${(1 - edges[i + 1]) * 100}% 0 ${edges[i] * 100}%)`));
    names.forEach((name, i) => Object.assign(name.style, { left: `${edges[i] * 100}%`, width: `${(edges[i + 1] - edges[i]) * 100}%` }));
    dividers.forEach((divider, i) => {
      divider.style.left = `${at[i] * 100}%`;
      divider.setAttribute("aria-valuenow", String(Math.round(at[i] * 100)));
    });
  }

  show();
  return {
    /** The pictures of a run, in the order from left to right; dividers stay where they are. @param {Frame[]} next */
    set(next) {
      if (JSON.stringify(next) === JSON.stringify(frames)) return;
      if (next.length !== frames.length) at = next.slice(1).map((_, i) => (i + 1) / next.length);
      frames = next;
      pictures = frames.map((frame) => make("img", {
        alt: t(frame.label), draggable: false, decoding: "async", src: host.url(frame),
        onload: (/** @type {Event} */ event) => {
          const { naturalWidth: width, naturalHeight: height } = /** @type {HTMLImageElement} */ (event.target);
          stage.style.setProperty("--sd-ratio", String(width / height));
        },
      }));
      names = frames.map((frame) => make("span", { className: "sd-cut" }, t(frame.label)));
      dividers = at.map((_, i) => {
        const label = t("Divider between {left} and {right}", { left: t(frames[i].label), right: t(frames[i + 1].label) });
        return make("div", { className: "sd-divider", role: "slider", tabIndex: 0, "aria-label": label, "aria-valuemin": "0", "aria-valuemax": "100",
          onkeydown: (/** @type {KeyboardEvent} */ event) => {
            event.stopPropagation(); // the host's own keys are not meant
            if (!(event.key in KEYS)) return;
            event.preventDefault();
            move(i, at[i] + KEYS[event.key]);
          } });
      });
      stage.replaceChildren(...pictures, ...names, ...dividers);
      show();
    },
    at: () => at.slice(),
    count: () => frames.length,
    destroy: () => panel.remove(),
  };
}
