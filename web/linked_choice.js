// @ts-check
/** What a panel can say and do of a choice of which some fields come over links, so that their values are known only in the run. No DOM here. */

/** The field that has a mode's amount. @param {string} mode */
export function amountOf(mode) {
  return { "importance share": "share", addresses: "atoms" }[mode] ?? mode;
}

/** Whether what a mode keeps is known only in the run. @param {string} mode @param {Iterable<string>} linked names of the fields */
export function waitsForRun(mode, linked) {
  const ranked = mode === "addresses" ? [] : ["order", "per_site"], decide = ["mode", amountOf(mode), "layers", "invert", ...ranked];
  return [...linked].some((name) => decide.includes(name));
}

/** Whether the slider would move nothing: it turns a choice by address into a share. @param {string} mode @param {Iterable<string>} linked */
export function stopsSlider(mode, linked) {
  return waitsForRun(mode, linked) || (mode === "addresses" && waitsForRun("share", linked));
}

/** Whether the buttons for shares would change nothing. @param {Set<string>} linked */
export function stopsPresets(linked) {
  return linked.has("mode") || linked.has("share");
}
