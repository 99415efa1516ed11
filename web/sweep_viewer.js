// @ts-check
/** The panel of Sweep Viewer: pictures in one place, a slider through them, and their GIF. Knows nothing of the host. */

import { make, place } from "./colours.js";
import { printable } from "./shown_text.js";
import { addStyle } from "./style.js";
import { t } from "./texts.js";

/** @typedef {{filename: string, subfolder: string, type: string, label: string}} Frame  as nodes/sweep_viewer.py tells of it */

export const VIEWER_HEIGHT = 300;
const PLAY = 450; // milliseconds a picture

/**
 * @param {HTMLElement} container
 * @param {{url: (frame: Frame) => string, gif: (frames: Frame[]) => Promise<Blob>}} host `gif` rejects with a sentence for the user
 */
export function mountViewer(container, host) {
  addStyle();
  /** @type {Frame[]} */
  let frames = [];
  /** @type {HTMLImageElement[]} */
  let pictures = [];
  let at = 0, timer = 0, sweeping = false;

  const stage = make("div", { className: "sd-stage" });
  const empty = make("div", { className: "sd-empty" }, t("The sweep's pictures appear here once it has run."));
  const hold = make("div", { className: "sd-hold sd-scrub" }, stage, empty);
  const slider = make("input", { type: "range", className: "sd-range sd-grow", min: "0", step: "1", "aria-label": t("Step of the sweep"), oninput: () => {
    const to = Number(slider.value);
    pause();
    go(to);
  } });
  const player = make("button", { type: "button", className: "sd-icon", onclick: () => (timer ? pause() : play()) });
  const label = make("span", { className: "sd-headline sd-grow sd-cut" });
  const count = make("span", { className: "sd-aside" });
  const save = make("button", { type: "button", title: t("Saves all steps as an animation"), onclick: () => exportGif() });
  const problem = make("div", { className: "sd-message", role: "alert" });
  const panel = make("div", { className: "sd-panel", role: "group", "aria-label": t("Sweep viewer") },
    hold,
    make("div", { className: "sd-row" }, player, slider),
    make("div", { className: "sd-row" }, label, count, save),
    problem);
  container.append(panel);

  // Across the picture too: from the left edge to the right one is the whole slider.
  hold.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || frames.length < 2) return;
    event.stopPropagation();
    hold.setPointerCapture(event.pointerId);
    sweeping = true;
    pause();
    across(event);
  });
  hold.addEventListener("pointermove", (event) => {
    if (!sweeping) return;
    event.stopPropagation();
    across(event);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    hold.addEventListener(name, (event) => {
      if (sweeping) event.stopPropagation();
      sweeping = false;
    });
  }
  // The host's own keys are not meant while the slider has the focus.
  slider.addEventListener("keydown", (event) => event.stopPropagation());
  slider.addEventListener("pointerdown", (event) => event.stopPropagation());

  /** @param {PointerEvent} event */
  function across(event) {
    const part = place(hold, event).x / hold.offsetWidth;
    go(Math.floor(part * frames.length));
  }

  /** @param {number} wanted */
  function go(wanted) {
    at = Math.max(0, Math.min(frames.length - 1, wanted));
    show();
  }

  function play() {
    if (at === frames.length - 1) go(0);
    timer = window.setInterval(() => (at < frames.length - 1 ? go(at + 1) : pause()), PLAY);
    show();
  }

  function pause() {
    window.clearInterval(timer);
    timer = 0;
    show();
  }

  async function exportGif() {
    save.disabled = true;
    save.textContent = t("making …");
    problem.textContent = "";
    try {
      const address = URL.createObjectURL(await host.gif(frames));
      make("a", { href: address, download: "sweep.gif" }).click();
      setTimeout(() => URL.revokeObjectURL(address), 60_000);
    } catch (error) {
      problem.textContent = error instanceof Error ? error.message : String(error);
    }
    save.disabled = false;
    show();
  }

  function show() {
    const some = frames.length > 0;
    // All of them stay in the page, so that none has to be fetched or decoded while the slider moves.
    pictures.forEach((picture, number) => picture.classList.toggle("sd-shown", number === at));
    empty.hidden = some;
    slider.max = String(Math.max(0, frames.length - 1));
    slider.value = String(at);
    slider.disabled = player.disabled = frames.length < 2;
    player.textContent = timer ? "❚❚" : "▶";
    player.title = timer ? t("Pause") : t("Play");
    player.setAttribute("aria-label", player.title);
    label.textContent = label.title = some ? printable(frames[at].label) || t("step {number}", { number: at + 1 }) : "";
    slider.setAttribute("aria-valuetext", label.textContent);
    count.textContent = some ? `${at + 1} / ${frames.length}` : "";
    if (save.disabled && some && save.textContent === t("making …")) return;
    save.textContent = t("Export GIF");
    save.disabled = !some;
  }

  show();
  return {
    /** The pictures of a run; the slider goes to the last one, the full concept. @param {Frame[]} next */
    set(next) {
      if (JSON.stringify(next) === JSON.stringify(frames)) return;
      frames = next;
      pictures = frames.map((frame) => make("img", {
        alt: frame.label, draggable: false, decoding: "async", src: host.url(frame),
      }));
      stage.replaceChildren(...pictures);
      problem.textContent = "";
      at = Math.max(0, frames.length - 1);
      pause();
    },
    at: () => at,
    count: () => frames.length,
    destroy() {
      window.clearInterval(timer);
      panel.remove();
    },
  };
}
