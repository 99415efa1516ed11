// Graphs as the host's front end keeps them, as far as the pack's panels look at them.

const types = { d: "SPARSE_DICT", m: "MODEL", f: "FLOAT", any: "*" };
const slots = (text) => text.split(" ").filter(Boolean);

/** `takes` and `gives`: letters of `types`; `widget=f` is a field that can be linked. */
export function node(type, takes, gives, { widgets = {}, ...rest } = {}) {
  return {
    type, mode: 0, ...rest,
    inputs: slots(takes).map((each) => {
      const [name, letter = name] = each.split("=");
      return { type: types[letter], link: null, ...(name === letter ? {} : { widget: { name } }) };
    }),
    outputs: slots(gives).map((letter) => ({ type: types[letter] })),
    widgets: Object.entries(widgets).map(([name, value]) => ({ name, value })),
  };
}

/** Nodes by number; links as "1.0>2.0", from an output to an input. In a subgraph "in" and "out" are its own. */
export function graph(id, nodes, links, root = null) {
  const made = { id, links: new Map(), outputs: [], nodes: Object.values(nodes), getNodeById: (number) => nodes[number] ?? null };
  made.rootGraph = root ?? made;
  for (const [number, each] of Object.entries(nodes)) {
    Object.assign(each, { id: Number(number), graph: made });
    if (each.isVirtualNode) each.getInputLink = (slot) => made.links.get(each.inputs[slot].link) ?? null;
  }
  links.forEach((text, i) => {
    const [[from, slot], [to, input]] = text.split(">").map((end) => end.split("."));
    made.links.set(i + 1, { id: i + 1, origin_id: from === "in" ? -10 : Number(from), origin_slot: Number(slot) });
    if (to === "out") made.outputs[Number(input)] = { linkIds: [i + 1] };
    else nodes[to].inputs[input].link = i + 1;
  });
  return made;
}
