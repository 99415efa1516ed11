// @ts-check
/**
 * The colours of the host's theme, and a scale for importance. The scale goes evenly in OKLab lightness, from near the background
 * to its opposite, so that more important is further from the background in either theme, also to the colour-blind.
 */

/**
 * @typedef {{dark: boolean, background: string, field: string, text: string, muted: string, border: string, accent: string,
 *   scale: Uint32Array, faded: Uint32Array}} Theme  `scale` and `faded` have 256 packed pixels each
 */

const STEPS = 256;

/** Lightness, chroma and hue (degrees) of a few anchors, evenly spaced. */
const DARK = [[0.33, 0.06, 285], [0.47, 0.13, 285], [0.6, 0.14, 235], [0.76, 0.13, 165], [0.93, 0.15, 105]];
const LIGHT = [[0.9, 0.05, 110], [0.79, 0.11, 160], [0.62, 0.12, 220], [0.46, 0.16, 275], [0.29, 0.12, 295]];

/** The theme as it is now. @returns {Theme} */
export function readTheme() {
  const style = getComputedStyle(document.body);
  /** @param {string} name @param {string} fallback */
  const get = (name, fallback) => style.getPropertyValue(name).trim() || fallback;
  const field = get("--sd-field", "#222");
  const background = get("--sd-menu", "#353535");
  const [red, green, blue] = pixel(field);
  const dark = 0.299 * red + 0.587 * green + 0.114 * blue < 128;
  const { scale, faded } = scales(dark, pixel(field));
  return {
    dark, background, field, scale, faded,
    text: get("--sd-text", dark ? "#ddd" : "#222"), muted: get("--sd-muted", "#999"), border: get("--sd-border", "#4e4e4e"),
    accent: get("--sd-accent", "#3b9eff"),
  };
}

/** Any CSS colour as 0 to 255. @param {string} colour @returns {[number, number, number]} */
export function pixel(colour) {
  probe ??= /** @type {CanvasRenderingContext2D} */ (
    Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true })
  );
  probe.fillStyle = "#888";
  probe.fillStyle = colour;
  probe.clearRect(0, 0, 1, 1);
  probe.fillRect(0, 0, 1, 1);
  const [red, green, blue] = probe.getImageData(0, 0, 1, 1).data;
  return [red, green, blue];
}
/** @type {CanvasRenderingContext2D | undefined} */
let probe;

/** @param {boolean} dark @param {[number, number, number]} behind */
function scales(dark, behind) {
  const scale = new Uint32Array(STEPS), faded = new Uint32Array(STEPS);
  const anchors = (dark ? DARK : LIGHT).map(([lightness, chroma, hue]) => {
    const angle = (hue * Math.PI) / 180;
    return [lightness, chroma * Math.cos(angle), chroma * Math.sin(angle)];
  });
  for (let step = 0; step < STEPS; step++) {
    const at = (step / (STEPS - 1)) * (anchors.length - 1), low = Math.min(anchors.length - 2, Math.floor(at)), part = at - low;
    const lab = anchors[low].map((value, i) => value + (anchors[low + 1][i] - value) * part);
    const rgb = oklab(lab[0], lab[1], lab[2]);
    scale[step] = packed(rgb);
    // What is left out keeps a trace of its lightness, and no hue.
    const grey = oklab(lab[0], 0, 0), weight = 0.14 + 0.26 * (step / (STEPS - 1));
    faded[step] = packed(grey.map((value, i) => value * weight + behind[i] * (1 - weight)));
  }
  return { scale, faded };
}

/** @param {number[]} rgb */
function packed(rgb) {
  const [red, green, blue] = rgb.map((value) => Math.max(0, Math.min(255, Math.round(value))));
  // Pixels of an ImageData as little-endian words; all browsers' machines are.
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

/** OKLab → sRGB, 0 to 255. @param {number} lightness @param {number} a @param {number} b */
function oklab(lightness, a, b) {
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s, -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ].map((value) => 255 * (value <= 0.0031308 ? 12.92 * Math.max(0, value) : 1.055 * value ** (1 / 2.4) - 0.055));
}

/** For CSS: the scale as a gradient. @param {Theme} theme */
export function gradient(theme) {
  const stops = [0, 64, 128, 192, 255].map((step) => {
    const word = theme.scale[step];
    return `rgb(${word & 255} ${(word >> 8) & 255} ${(word >> 16) & 255})`;
  });
  return `linear-gradient(to right, ${stops.join(", ")})`;
}

/** Calls back after the host has changed its theme; returns what ends it. @param {() => void} callback */
export function onThemeChange(callback) {
  let waiting = 0;
  const observer = new MutationObserver(() => {
    waiting ||= requestAnimationFrame(() => {
      waiting = 0;
      callback();
    });
  });
  const what = { attributes: true, attributeFilter: ["class", "style"] };
  observer.observe(document.body, what);
  observer.observe(document.documentElement, what);
  return () => observer.disconnect();
}

/** Makes the canvas as fine as the screen shows it; returns its context in CSS pixels. @param {HTMLCanvasElement} canvas @param {number} width @param {number} height */
export function fitted(canvas, width, height) {
  // The host scales the node with the graph's zoom; twice as fine is enough for a zoomed-in graph.
  const shown = canvas.offsetWidth ? canvas.getBoundingClientRect().width / canvas.offsetWidth : 1;
  const fine = (window.devicePixelRatio || 1) * Math.max(1, Math.min(2, shown));
  const wide = Math.max(1, Math.round(width * fine)), high = Math.max(1, Math.round(height * fine));
  if (canvas.width !== wide || canvas.height !== high) Object.assign(canvas, { width: wide, height: high });
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.setTransform(wide / width, 0, 0, high / height, 0, 0);
  return context;
}

/** Where a pointer is in an element's own CSS pixels, whatever the graph's zoom. @param {Element & {offsetWidth: number}} element @param {MouseEvent} event */
export function place(element, event) {
  const box = element.getBoundingClientRect();
  const zoom = box.width / element.offsetWidth || 1;
  return { x: (event.clientX - box.left) / zoom, y: (event.clientY - box.top) / zoom };
}

/** @template {keyof HTMLElementTagNameMap} T @param {T} tag @param {Record<string, any>} [properties] @param {(Node | string)[]} children @returns {HTMLElementTagNameMap[T]} */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && name !== "style" && name !== "list") /** @type {any} */ (element)[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/**
 * For texts that change from frame to frame. The host's styles have rules with :has(): where a child comes or goes, as with textContent,
 * the browser looks at the styles of the whole page again; where only a text changes, it does not.
 * @param {HTMLElement} element with nothing but text in it @param {string} text
 */
export function write(element, text) {
  const node = element.firstChild;
  if (!(node instanceof Text)) element.textContent = text;
  else if (node.data !== text) node.data = text;
}
