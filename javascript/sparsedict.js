// Mounts the panel below the web UI's prompts; all of it is in webui_host/prompt_panel.js.
onAfterUiUpdate(() => {
    for (const container of gradioApp().querySelectorAll(".sparsedict-panel:not([data-mounted])")) {
        container.dataset.mounted = "";
        sparsedictMount(container);
    }
});

async function sparsedictMount(container) {
    const route = (path) => new URL(`sparsedict/v1/${path}`, document.baseURI.split("?")[0]).href;
    const [{ mountPanel }, { setTheme }] = await Promise.all(["webui_host/prompt_panel", "web/style"].map((name) => import(route(`js/${name}.js`))));
    setTheme({
        text: "--body-text-color", muted: "--body-text-color-subdued", field: "--input-background-fill", menu: "--background-fill-primary",
        border: "--border-color-primary", accent: "--color-accent", error: "--error-text-color",
    });
    const prompt = gradioApp().querySelector(`#${container.dataset.tab}_prompt textarea`);
    container.sparsedict = mountPanel(container, {
        read: () => prompt.value,
        write(text) {
            prompt.value = text;
            updateInput(prompt); // the host's own: Gradio hears of it
        },
        ask: async (path) => (await fetch(route(path))).json(),
    });
}
