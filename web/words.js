// @ts-check
/** Choices and numbers in the panel's words. No DOM here. */

import { t } from "./texts.js";

/** @typedef {import("./table.js").Choice} Choice */

/** The ways to choose, as the panel lists them. @returns {Record<string, string>} */
export function modeNames() {
  return {
    share: t("share of atoms"), "importance share": t("share of importance"), top: t("number of atoms"), threshold: t("least importance"),
    addresses: t("by address"),
  };
}

/** What a choice keeps, where its file is not known. @param {Choice} choice */
export function choiceInWords(choice) {
  /** @type {Record<string, string>} */
  const amounts = {
    share: t("{share} % of the atoms", { share: tidy(choice.share * 100) }), "importance share": t("{share} % of the importance", { share: tidy(choice.share * 100) }),
    top: t("{count} atoms", { count: choice.top }), threshold: t("importance of {least} or more", { least: choice.threshold }), addresses: choice.atoms || t("no atoms"),
  };
  const amount = amounts[choice.mode] ?? choice.mode;
  return choice.invert ? t("keeps all but {amount}", { amount }) : t("keeps {amount}", { amount });
}

/** @param {number} kept @param {number} share of the importance, 0 to 1 */
export function keptInWords(kept, share) {
  if (kept === 0) return t("the bare base");
  return t(kept === 1 ? "{count} atom holds {share}" : "{count} atoms hold {share}", { count: grouped(kept), share: percent(share) });
}

/** The amount's field. @param {Choice} choice */
export function amountField(choice) {
  if (choice.mode === "top") return String(choice.top);
  return choice.mode === "threshold" ? String(choice.threshold) : `${tidy(choice.share * 100)} %`;
}

const GROUPS = new Intl.NumberFormat("en"); // made once: that takes longer than its use

/** `20,480` @param {number} count */
export function grouped(count) {
  return GROUPS.format(count);
}

/** @param {number} share */
export function percent(share) {
  const value = 100 * share;
  if (value > 0 && value < 1) return `${Number(value.toPrecision(1))} %`;
  return `${value < 10 || (value > 99 && value < 99.95) ? Number(value.toFixed(1)) : Math.round(value)} %`;
}

/** Three digits that matter. @param {number} value */
export function tidy(value) {
  return String(Number(value.toPrecision(3)));
}
