// Called by the panel below the prompt (webui_host/panel.py): the prompt with the adapter's tag written, or changed where it has one.
function sparsedictWriteTag(prompt, name, strength, share) {
    if (!name) return prompt;
    const options = share < 1 ? `:keep=${Number(share.toFixed(3))}` : "";
    const tag = `<sparsedict:${name}:${Number(strength.toFixed(3))}${options}>`;
    const escaped = name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    const old = new RegExp(`<sparsedict:${escaped}(:[^<>]*)?>`);
    return old.test(prompt) ? prompt.replace(old, () => tag) : `${prompt}${prompt && !prompt.endsWith(" ") ? " " : ""}${tag}`;
}
