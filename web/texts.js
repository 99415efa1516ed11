// @ts-check
/** The panels' words in the host's languages. The English sentence is the key; what has no translation stays English. */

/** @type {() => string | undefined} */
let locale = () => undefined;

/** Where the host's language is to be asked for; it may change. @param {() => string | undefined} ask */
export function followLocale(ask) {
  locale = ask;
}

/** @param {string} english @param {Record<string, string | number>} [values] for `{name}` in the sentence */
export function t(english, values = {}) {
  const text = TEXTS[locale() ?? ""]?.[english] ?? english;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/** @type {Record<string, Record<string, string>>} */
export const TEXTS = {
  zh: {},
  ja: {},
};
