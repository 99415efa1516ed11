// @ts-check
/** Hides a node's plain widgets while a panel stands for them, or while nobody needs them. */

/**
 * The node takes the room that its fields give or need; what a person has given it beyond that stays.
 * @param {any} node
 * @param {(field: any) => boolean | null} hides null: not a field that is ever hidden
 */
export function hideFields(node, hides) {
  const before = node.computeSize()[1];
  for (const field of node.widgets ?? []) {
    const hidden = hides(field);
    if (hidden === null) continue;
    field.hidden = hidden;
    (field.options ??= {}).hidden = hidden;
    // The host leaves room for hidden widgets too, unless they say that they need none.
    if (hidden) field.computeSize = () => [0, -4];
    else delete field.computeSize;
  }
  const [width, height] = node.computeSize();
  node.setSize([Math.max(width, node.size[0]), Math.max(height, node.size[1] + height - before)]);
  node.graph?.setDirtyCanvas?.(true, true);
}
