// @ts-check
/** The look of the pack's panels, in the host's own colours: `setTheme` says which of its variables they are. */

const CSS = `
.sd-panel { box-sizing: border-box; width: 100%; height: 100%; min-width: 0; contain: inline-size; display: flex; flex-direction: column; gap: 6px; padding: 2px 0;
  font: 12px/1.35 Inter, system-ui, sans-serif; color: var(--sd-text); position: relative; user-select: none; text-align: left; }
.sd-panel * { box-sizing: border-box; }
.sd-panel [hidden] { display: none !important; }
.sd-row { display: flex; align-items: center; gap: 6px; min-width: 0; }
.sd-kept { display: flex; align-items: center; gap: 6px; flex: 1 1 0; min-width: 0; height: 22px; contain: strict; }
.sd-wrap { flex-wrap: wrap; row-gap: 5px; }
.sd-grow { flex: 1 1 0; min-width: 0; }
.sd-headline { font-size: 14px; font-weight: 600; white-space: nowrap; font-variant-numeric: tabular-nums; }
.sd-aside { color: var(--sd-muted); white-space: nowrap; overflow: hidden; text-overflow: ellipsis; font-variant-numeric: tabular-nums; }
.sd-aside.sd-file { order: 1; flex: 0 0 100%; white-space: normal; overflow-wrap: anywhere; }
.sd-file:empty { display: none; }
.sd-panel button, .sd-panel select, .sd-panel input:not([type=checkbox]) { font: inherit; color: var(--sd-text); background: var(--sd-field);
  border: 1px solid var(--sd-border); border-radius: 5px; height: 24px; padding: 0 6px; min-width: 0; }
.sd-panel button { cursor: pointer; }
.sd-panel button:hover:not(:disabled), .sd-panel select:hover, .sd-panel input:not([type=checkbox]):hover { border-color: var(--sd-muted); }
.sd-panel button:disabled { opacity: 0.35; cursor: default; }
.sd-panel button[aria-pressed=true] { border-color: var(--sd-accent); box-shadow: inset 0 0 0 1px var(--sd-accent); }
.sd-panel :is(button, select, input, canvas):focus-visible { outline: 2px solid var(--sd-accent); outline-offset: 1px; }
.sd-icon { width: 24px; padding: 0 !important; font-size: 14px !important; line-height: 1; }
.sd-panel label { display: inline-flex; align-items: center; gap: 5px; color: var(--sd-muted); white-space: nowrap; }
.sd-panel input[type=checkbox] { accent-color: var(--sd-accent); margin: 0; }
.sd-panel input.sd-number { width: 76px; text-align: right; font-variant-numeric: tabular-nums; }
.sd-panel input.sd-wrong { border-color: var(--sd-error); }
.sd-canvas { display: block; width: 100%; background: var(--sd-field); border-radius: 6px; }
.sd-slider { display: block; width: 100%; height: 64px; flex: none; background: var(--sd-field); border-radius: 6px; cursor: ew-resize; touch-action: none; }
.sd-hold { position: relative; flex: 1 1 0; min-height: 130px; background: var(--sd-field); border-radius: 6px; }
.sd-scroll { position: absolute; inset: 0; overflow: hidden auto; scrollbar-width: thin; border-radius: 6px; }
.sd-map { display: block; position: sticky; top: 0; width: 100%; height: 100%; border-radius: 6px; cursor: crosshair; touch-action: none; }
.sd-empty { position: absolute; inset: 0; display: flex; align-items: center; justify-content: center; padding: 12px 24px; text-align: center;
  color: var(--sd-muted); pointer-events: none; white-space: pre-line; }
.sd-tip { position: absolute; left: 0; top: 0; contain: layout paint; pointer-events: none; z-index: 3; padding: 5px 8px; border-radius: 5px; background: var(--sd-menu);
  border: 1px solid var(--sd-border); box-shadow: 0 2px 8px rgb(0 0 0 / 0.35); white-space: nowrap; line-height: 1.4;
  display: flex; gap: 8px; align-items: center; }
.sd-tip b { font-weight: 600; }
.sd-place { image-rendering: pixelated; border-radius: 3px; flex: none; }
.sd-tip span { color: var(--sd-muted); }
.sd-legend { width: 72px; height: 8px; border-radius: 4px; flex: none; }
.sd-small { font-size: 11px; color: var(--sd-muted); white-space: nowrap; }
.sd-message { color: var(--sd-error); font-size: 11px; min-height: 0; overflow-wrap: anywhere; }
.sd-notice { color: var(--sd-muted); font-size: 11px; overflow-wrap: anywhere; }
:is(.sd-message, .sd-notice):empty { display: none; }
.sd-spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.sd-previews { height: 200px; flex: none; display: flex; flex-direction: column; align-items: center; gap: 4px; }
.sd-preview { display: block; max-width: 100%; min-height: 0; height: 180px; object-fit: contain; }
.sd-cut { overflow: hidden; text-overflow: ellipsis; }
.sd-scrub { cursor: ew-resize; touch-action: none; overflow: hidden; }
.sd-stage img { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain; visibility: hidden; pointer-events: none; }
.sd-stage img.sd-shown { visibility: visible; }
.sd-sized { container-type: size; }
.sd-compared { position: absolute; inset: 0; margin: auto; aspect-ratio: var(--sd-ratio, 1); width: min(100cqw, 100cqh * var(--sd-ratio, 1)); overflow: hidden;
  cursor: ew-resize; touch-action: none; }
.sd-compared img { position: absolute; inset: 0; width: 100%; height: 100%; pointer-events: none; }
.sd-compared span { position: absolute; bottom: 0; padding: 2px 6px; text-align: center; white-space: nowrap; pointer-events: none; color: #fff; background: rgb(0 0 0 / 0.55); }
.sd-divider { position: absolute; top: 0; bottom: 0; width: 12px; margin-left: -6px; pointer-events: none;
  background: linear-gradient(90deg, transparent 4px, #000 4px, #fff 5px 7px, #000 8px, transparent 8px); }
.sd-divider:focus-visible { outline: 2px solid var(--sd-accent); outline-offset: -2px; }
.sd-panel input.sd-range { accent-color: var(--sd-accent); border: 0; background: none; padding: 0; margin: 0; height: 24px; cursor: ew-resize; }
.sd-stop { border-color: var(--sd-error) !important; }
.sd-figures { display: grid; grid-template-columns: 0.85fr 1.3fr 1.1fr 0.95fr 0.95fr; gap: 5px; }
.sd-figure { background: var(--sd-field); border-radius: 6px; padding: 4px 6px; min-width: 0; white-space: nowrap; overflow: hidden; }
.sd-figure b { display: block; font-size: 13px; font-weight: 600; font-variant-numeric: tabular-nums; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.sd-figure span { font-size: 11px; color: var(--sd-muted); }
`;

/** Where no host says otherwise. */
const PLAIN = ":root { --sd-text: #ddd; --sd-muted: #999; --sd-field: #222; --sd-menu: #353535; --sd-border: #4e4e4e; --sd-accent: #3b9eff; --sd-error: #e5484d; }";

/** The host's CSS variable for each colour of the panels: text, muted, field, menu, border, accent, error. Once. @param {Record<string, string>} theirs */
export function setTheme(theirs) {
  addStyle();
  const style = document.createElement("style");
  style.textContent = `body { ${Object.entries(theirs).map(([name, variable]) => `--sd-${name}: var(${variable});`).join(" ")} }`;
  document.head.append(style);
}

/** Once for the page. */
export function addStyle() {
  if (document.getElementById("sparsedict-style")) return;
  const style = document.createElement("style");
  style.id = "sparsedict-style";
  style.textContent = PLAIN + CSS;
  document.head.append(style);
}
