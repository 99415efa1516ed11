// @ts-check
/** The tables of files as the server gives them, each asked for once until files may have changed. No DOM here. */

/** @typedef {import("./table.js").TableJson} TableJson */

const AGAIN = 3000; // milliseconds after which what could not be read is asked for again

/** By the address they come from. @type {Map<string, {asked: number, tag: string | null, table: Promise<TableJson | {error: string}>}>} */
const cache = new Map();
let changes = 0;

/** Files may be others now, as after a run: whoever shows a table asks for it again. */
export function forgetFiles() {
  changes++;
}

/** How often files may have changed. */
export function fileChanges() {
  return changes;
}

/** Runs may write over files. Once. @param {any} api */
export function followRuns(api) {
  for (const end of ["execution_success", "execution_error", "execution_interrupted"]) api.addEventListener(end, forgetFiles);
}

/** The same object as before where the file is the same. @param {any} api @param {string} route @param {string} name @returns {Promise<TableJson | {error: string}>} */
export function fetchTable(api, route, name) {
  const before = cache.get(route);
  if (before?.asked === changes) return before.table;
  const entry = { asked: changes, tag: /** @type {string | null} */ (null), table: ask() };
  cache.set(route, entry);
  return entry.table;

  async function ask() {
    /** @type {TableJson | {error: string}} */
    let json;
    try {
      const answer = await api.fetchApi(route), tag = answer.headers.get("ETag");
      json = await (before && tag && tag === before.tag ? before.table : answer.json());
      if (!("error" in json)) entry.tag = tag;
    } catch {
      json = { error: `${name} cannot be read: the server does not answer.` };
    }
    if ("error" in json) setTimeout(() => cache.get(route) === entry && cache.delete(route), AGAIN);
    return json;
  }
}
