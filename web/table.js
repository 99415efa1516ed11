// @ts-check
/**
 * A file's atoms as the route /sparsedict/adapter sends them, and the words for a choice among them. Atoms are numbered through all
 * sites in the table's order; a mask is a Uint8Array over these numbers. No DOM here.
 */

import { bandsOf } from "./bands.js";

/**
 * @typedef {{key: string, label: string, layer: number, stream: string | null, member: string | null,
 *   atom_ids: number[], importance: number[], firing?: number[] | null}} SiteRow  a site as the route sends it
 * @typedef {{title?: string, trigger_words?: string[], base_family?: string, members?: string[], has_moments?: boolean,
 *   sites: SiteRow[], greedy?: {order: number[], energy: number[]} | null, left?: string | null, maps?: AtomPlace[]}} TableJson
 *   `left` and `maps` come from a probe: what it has found left, as addresses, and where the strongest atoms fire
 * @typedef {{address: string, width: number, height: number, grid: string}} AtomPlace  `grid`: a byte for each place, row by row, in base64
 * @typedef {{label: string, layer: number, stream: string | null, member: string | null, first: number, size: number, band: import("./bands.js").Band | null}} Site
 * @typedef {{sites: Site[], members: string[], atoms: number, ids: Int32Array, importance: Float64Array, firing: Float64Array, siteOf: Int32Array,
 *   hasMoments: boolean, greedy: {order: number[], energy: number[]} | null, title: string, triggerWords: string[], maps: AtomPlace[] | null}} Table
 *   `firing` is NaN where the file doesn't know; `maps` is null where importance and firing are the file's, not a probe's
 * @typedef {{text: string, first: number, last: number, stream: string | null, atoms: [number, number][] | null,
 *   member: string | null}} Address
 * @typedef {{keep?: number, top?: number, importance_share?: number, threshold?: number, atoms?: string,
 *   order?: string, per_site?: boolean, layers?: string | null, invert?: boolean}} Selection  as in selection.py
 * @typedef {{mode: string, share: number, top: number, threshold: number, atoms: string, order: string, per_site: boolean,
 *   layers: string, invert: boolean, refit: boolean}} Choice  the widgets of the node Select Atoms
 * @typedef {{mask: Uint8Array, kept: number, importanceKept: number}} Result
 */
/** @type {Choice} */
export const DEFAULT_CHOICE = {
  mode: "share", share: 1, top: 64, threshold: 0.01, atoms: "", order: "importance", per_site: false, layers: "",
  invert: false, refit: false,
};

/** What is wrong, in one sentence for people. */
export class SelectionError extends Error {}

/** The greedy order is not here yet, but the file can give it. */
export class NeedsGreedyOrder extends SelectionError {}

/** @param {TableJson} json @returns {Table} */
export function makeTable(json) {
  const atoms = json.sites.reduce((sum, site) => sum + site.atom_ids.length, 0);
  const ids = new Int32Array(atoms), importance = new Float64Array(atoms), firing = new Float64Array(atoms).fill(NaN), siteOf = new Int32Array(atoms);
  let first = 0;
  const bands = bandsOf(json.sites.map((row) => row.key));
  const sites = json.sites.map((row, number) => {
    const size = row.atom_ids.length;
    ids.set(row.atom_ids, first);
    importance.set(row.importance, first);
    if (row.firing) firing.set(row.firing, first);
    siteOf.fill(number, first, first + size);
    const site = { label: row.label, layer: row.layer, stream: row.stream, member: row.member, first, size, band: bands[number] };
    first += size;
    return site;
  });
  return {
    sites, members: json.members ?? [], atoms, ids, importance, firing, siteOf, hasMoments: json.has_moments ?? false,
    greedy: json.greedy ?? null, title: json.title ?? "", triggerWords: json.trigger_words ?? [], maps: json.maps ?? null,
  };
}

/** Several files as the node Compose Sparse Dicts joins them. @param {{name: string, json: TableJson}[]} parts @returns {TableJson} */
export function composed(parts) {
  const sites = [], members = [];
  /** @type {AtomPlace[]} */
  const maps = [];
  for (const { name, json } of parts) {
    for (const map of json.maps ?? []) maps.push({ ...map, address: `${name}${map.address.includes(":") ? "." : ":"}${map.address}` });
    members.push(...(json.members?.length ? json.members.map((inner) => `${name}.${inner}`) : [name]));
    for (const site of json.sites) {
      const member = site.member === null ? name : `${name}.${site.member}`;
      const label = site.member === null ? site.label : site.label.slice(site.member.length + 1);
      sites.push({ ...site, member, label: `${member}:${label}` });
    }
  }
  return {
    title: parts.map((part) => part.json.title || part.name).join(" + "), trigger_words: parts.flatMap((part) => part.json.trigger_words ?? []),
    members, sites, has_moments: false, greedy: null, ...(parts.some((part) => part.json.maps) ? { maps } : {}),
  };
}

/** A member's name, as nodes/compose.py makes it. @param {string} name @param {string[]} taken */
export function memberName(name, taken) {
  name = name.replace(/[^A-Za-z0-9_-]+/g, "_").replace(/^[_-]+|[_-]+$/g, "");
  if (!/^[A-Za-z_]/.test(name)) name = `d${name}`;
  let wanted = name;
  for (let number = 2; taken.includes(wanted); number++) wanted = `${name}_${number}`;
  return wanted;
}
