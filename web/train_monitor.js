// @ts-check
/** The training monitor: how a run is going, drawn from its events. Knows nothing of the host. */

import { fitted, make, onThemeChange, readTheme } from "./colours.js";
import { printable, shortened } from "./shown_text.js";
import { addStyle } from "./style.js";
import { t } from "./texts.js";

/**
 * @typedef {{step: number, steps: number, loss: number, smoothed_loss: number, density: number, target_density: number,
 *   dead_atoms: number, learning_rate: number, seconds_left: number | null}} Point
 * @typedef {Record<string, any>} Run  by what the server tells its runs apart, among other things
 * @typedef {{points: Point[], stage: {stage: string, detail?: string, done?: number, total?: number, seconds_left?: number | null} | null,
 *   warnings: string[], finished: string | null, file: string | null, stopped: number | null, steps: number | null, ended: string | null,
 *   previews: number, running: boolean}} Job  as host_shared/run_state.py gives it
 */

const HEIGHT = 236, PREVIEW = 206; // without and for a preview picture
const MOST = 4000; // points kept; beyond that, every other one goes

/**
 * @param {HTMLElement} container
 * @param {{keep: (run: Run) => Promise<void>, previewUrl: (number: number) => string, resized: () => void, toggleFields: () => void}} host
 *   `keep` rejects with a sentence for the user
 */
export function mountMonitor(container, host) {
  addStyle();
  /** @type {Point[]} */
  let points = [];
  /** @type {Run} */
  let run = {};
  let running = false, theme = readTheme(), frame = 0;

  const headline = make("span", { className: "sd-headline" }, t("Not trained yet"));
  const aside = make("span", { className: "sd-aside sd-grow" });
  const stop = make("button", { type: "button", className: "sd-stop", hidden: true, title: t("Ends the run and keeps the adapter so far; resume goes on with the run"), onclick: async () => {
    stop.disabled = true;
    stop.textContent = t("stopping …");
    try {
      await host.keep(run);
    } catch (error) {
      problem.textContent = error instanceof Error ? error.message : String(error);
      if (running) setRunning(true);
    }
  } }, t("Stop and keep"));
  const more = make("button", { type: "button", style: "margin-left:auto", title: t("Shows all settings of the training; those that are not at their defaults always show"), onclick: () => host.toggleFields() });
  const losses = make("canvas", { className: "sd-canvas", style: "height:100%;position:absolute;inset:0", role: "img", "aria-label": t("Loss") });
  const densities = make("canvas", { className: "sd-canvas", style: "height:44px;flex:none", role: "img", "aria-label": t("Density against its target") });
  const empty = make("div", { className: "sd-empty" }, t("The loss is drawn here while it trains."));
  /** @type {Record<string, HTMLElement>} */
  const figures = {};
  const grid = make("div", { className: "sd-figures" });
  for (const [name, title] of [["loss", t("loss")], ["density", t("density / aim")], ["dead", t("dead atoms")], ["rate", t("rate")], ["left", t("time left")]]) {
    figures[name] = make("b", {}, "–");
    grid.append(make("div", { className: "sd-figure", title: name === "left" ? t("Of the part of the run that is named above") : "" }, figures[name], make("span", {}, title)));
  }
  const picture = make("img", { className: "sd-preview", alt: t("Newest previews, above the base's pictures of the same prompts and noise") });
  const previews = make("div", { className: "sd-previews", hidden: true }, picture, make("div", { className: "sd-small" }, t("above: with the adapter · below: the base, same noise")));
  const notice = make("div", { className: "sd-notice", role: "status" });
  const problem = make("div", { className: "sd-message", role: "alert" });
  const panel = make("div", { className: "sd-panel", role: "group", "aria-label": t("Training monitor") },
    make("div", { className: "sd-row sd-wrap" }, headline, aside, stop, more),
    make("div", { className: "sd-hold", style: "min-height:70px" }, losses, empty), densities, grid, previews, notice, problem);
  container.append(panel);
  const sizes = new ResizeObserver(later);
  sizes.observe(panel);
  const endTheme = onThemeChange(() => {
    theme = readTheme();
    later();
  });

  function later() {
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      draw();
    });
  }

  /** @param {Point} point */
  function add(point) {
    if (points.length && point.step <= points[points.length - 1].step) points = [];
    points.push(point);
    if (points.length > MOST) points = points.filter((_, i) => i % 2 === 1 || i === points.length - 1);
    show();
  }

  /** 0: none. @param {number} number @param {string[]} [prompts] */
  function showPreview(number, prompts = []) {
    if (number) picture.src = host.previewUrl(number);
    picture.title = prompts.map(printable).join("\n");
    if (previews.hidden !== !number) {
      previews.hidden = !number;
      host.resized();
    }
  }

  /** @param {boolean} now */
  function setRunning(now) {
    running = now;
    stop.hidden = !now;
    stop.disabled = false;
    stop.textContent = t("Stop and keep");
    aside.classList.toggle("sd-file", !now);
  }

  /** @param {string} text @param {number | null} [step] */
  function endedWith(text, step = points[points.length - 1]?.step ?? null) {
    headline.textContent = step === null ? t(text) : t("{text} at step {step}", { text: t(text), step });
  }

  /** @param {string} path @param {string | null} name the host's own, which tells two of one name in different folders apart
   * @param {number | null} stopped steps that were done, where it was stopped before its end @param {number | null} steps */
  function written(path, name, stopped, steps) {
    setRunning(false);
    show();
    const file = shortened(printable(name ?? path.replace(/^.*[\\/]/, "")));
    headline.textContent = stopped === null ? t("Trained") : t("Stopped at step {step} of {steps}", { step: stopped, steps: steps ?? "?" });
    aside.textContent = stopped === null ? file : t("kept as {file}", { file });
    aside.title = printable(path);
  }

  /** Stopped before there was anything to write. @param {string} text */
  function endedEmpty(text) {
    setRunning(false);
    show();
    headline.textContent = t("Stopped");
    notice.textContent = text;
  }

  function show() {
    const last = points[points.length - 1];
    empty.hidden = !!last;
    aside.textContent = aside.title = "";
    if (last) {
      headline.textContent = t("step {step} of {steps}", { step: last.step, steps: last.steps });
      figures.loss.textContent = digits(last.smoothed_loss);
      figures.density.textContent = `${digits(100 * last.density, 2)} / ${digits(100 * last.target_density, 2)} %`;
      figures.dead.textContent = String(last.dead_atoms);
      figures.rate.textContent = short(last.learning_rate);
      showLeft(last.seconds_left);
    } else {
      for (const figure of Object.values(figures)) figure.textContent = "–";
    }
    later();
  }

  /** @param {number | null} [seconds] */
  function showLeft(seconds) {
    figures.left.textContent = seconds === null || seconds === undefined || !running ? "–" : time(seconds);
  }

  /** What is not a training step: how many of all are done and how long the rest takes, where that is known. @param {NonNullable<Job["stage"]>} stage */
  function showStage({ stage, detail, done, total, seconds_left }) {
    headline.textContent = t(stage);
    aside.textContent = aside.title = total ? `${done} / ${total}` : detail ?? "";
    showLeft(seconds_left);
  }

  function draw() {
    const width = losses.offsetWidth, height = losses.offsetHeight;
    if (!width || !height) return;
    const context = fitted(losses, width, height);
    context.clearRect(0, 0, width, height);
    const below = fitted(densities, densities.offsetWidth, densities.offsetHeight);
    below.clearRect(0, 0, densities.offsetWidth, densities.offsetHeight);
    if (!points.length) return;
    const steps = points[points.length - 1].steps, x = (/** @type {Point} */ point) => 6 + (point.step / steps) * (width - 12);
    const values = points.flatMap((point) => [point.loss, point.smoothed_loss]).filter(Number.isFinite).sort((a, b) => a - b);
    // A few wild steps shall not flatten all others.
    const low = values[0], high = Math.max(values[Math.floor(0.99 * (values.length - 1))], low * 1.0001 + 1e-9);
    const y = (/** @type {number} */ value) => height - 8 - ((Math.min(value, high) - low) / (high - low)) * (height - 26);
    line(context, points, x, (point) => y(point.loss), theme.muted, 1, 0.45);
    line(context, points, x, (point) => y(point.smoothed_loss), theme.accent, 2, 1);
    label(context, `${t("loss")}  ${digits(high)}`, 8, 4);
    label(context, digits(low), 8, height - 15);
    const most = Math.max(...points.map((point) => Math.max(point.density, point.target_density)), 1e-6), tall = densities.offsetHeight;
    const at = (/** @type {number} */ value) => tall - 4 - (value / most) * (tall - 10);
    line(below, points, x, (point) => at(point.target_density), theme.muted, 1, 1, [4, 3]);
    line(below, points, x, (point) => at(point.density), theme.accent, 1.5, 1);
    label(below, t("density"), 8, tall - 15);
  }

  /** @param {CanvasRenderingContext2D} context @param {string} text @param {number} x @param {number} y */
  function label(context, text, x, y) {
    context.font = "10px sans-serif";
    context.textBaseline = "top";
    context.fillStyle = theme.muted;
    context.fillText(text, x, y);
  }

  show();
  return {
    /** An event as host_shared/run_events.py sends it. @param {any} event */
    note(event) {
      run = event;
      if (event.event === "step") {
        if (!running) setRunning(true);
        add(event);
      } else if (event.event === "stage" || event.event === "progress") {
        if (!running) {
          points = [];
          problem.textContent = notice.textContent = "";
          showPreview(0);
          setRunning(true);
        }
        if (!points.length) show();
        showStage(event);
      } else if (event.event === "preview") {
        showPreview(event.number, event.prompts);
      } else if (event.event === "warning") {
        notice.textContent = event.text;
      } else if (event.event === "finished") {
        written(event.path, event.file, event.stopped, event.steps);
      } else if (event.event === "ended") {
        endedEmpty(event.text);
      }
    },
    /** What the server remembers of a run, after a reload. @param {Job} job */
    restore(job) {
      run = job;
      points = job.points.slice();
      setRunning(job.running);
      show();
      if (job.stage && !(points.length && job.stage.stage === "training")) showStage(job.stage);
      showPreview(job.previews);
      notice.textContent = job.warnings[job.warnings.length - 1] ?? "";
      if (job.finished) {
        written(job.finished, job.file, job.stopped, job.steps);
      } else if (job.ended) {
        endedEmpty(job.ended);
      } else if (!job.running) {
        endedWith("Stopped");
      }
    },
    /** The host says that the run is over, and why. @param {string} text */
    ended(text) {
      if (!running) return;
      setRunning(false);
      show();
      endedWith(text);
    },
    /** The button for the settings. @param {boolean} all whether all are shown @param {boolean} available whether there is one, as the host may have its own */
    setSwitch(all, available) {
      more.hidden = !available;
      more.textContent = all ? t("Fewer settings") : t("All settings");
      more.setAttribute("aria-pressed", String(all));
    },
    points: () => points.length,
    height: () => HEIGHT + (previews.hidden ? 0 : PREVIEW),
    step: () => points[points.length - 1]?.step ?? 0,
    destroy() {
      sizes.disconnect();
      endTheme();
      panel.remove();
    },
  };
}

/**
 * @param {CanvasRenderingContext2D} context @param {Point[]} points @param {(point: Point) => number} x @param {(point: Point) => number} y
 * @param {string} colour @param {number} width @param {number} alpha @param {number[]} [dash]
 */
function line(context, points, x, y, colour, width, alpha, dash = []) {
  context.beginPath();
  points.forEach((point, i) => (i ? context.lineTo(x(point), y(point)) : context.moveTo(x(point), y(point))));
  context.setLineDash(dash);
  context.globalAlpha = alpha;
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.lineJoin = "round";
  context.stroke();
  context.setLineDash([]);
  context.globalAlpha = 1;
}

/** @param {number} value @param {number} [count] */
function digits(value, count = 3) {
  return Number.isFinite(value) ? String(Number(value.toPrecision(count))) : "–";
}

/** `5e-4`: short enough for its place in the narrowest node. @param {number} value */
function short(value) {
  return value > 0 && value < 0.001 ? value.toExponential(1).replace(".0e", "e") : digits(value, 2);
}

/** @param {number} seconds */
function time(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  // Short enough for its place in the narrowest node.
  if (whole < 100) return `${whole} s`;
  return whole < 5940 ? `${Math.round(whole / 60)} min` : `${Number((whole / 3600).toFixed(1))} h`;
}
