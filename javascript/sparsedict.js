// Mounts the panel below the web UI's prompts and the training monitor; all of them is in webui_host/*.js and web/.
onAfterUiUpdate(() => {
    for (const container of gradioApp().querySelectorAll(":is(.sparsedict-panel, .sparsedict-monitor):not([data-mounted])")) {
        container.dataset.mounted = "";
        (container.dataset.tab ? sparsedictPanel : sparsedictMonitor)(container);
    }
});

const sparsedictRoute = (path) => new URL(`sparsedict/v1/${path}`, document.baseURI.split("?")[0]).href;
const sparsedictAsk = async (path, method = "GET") => (await fetch(sparsedictRoute(path), { method })).json();
let sparsedictThemed = false;

async function sparsedictLoad(name) {
    const [module, { setTheme }] = await Promise.all([`webui_host/${name}`, "web/style"].map((path) => import(sparsedictRoute(`js/${path}.js`))));
    if (!sparsedictThemed) {
        setTheme({
            text: "--body-text-color", muted: "--body-text-color-subdued", field: "--input-background-fill", menu: "--background-fill-primary",
            border: "--border-color-primary", accent: "--color-accent", error: "--error-text-color",
        });
    }
    sparsedictThemed = true;
    return module;
}

async function sparsedictPanel(container) {
    const { mountPanel } = await sparsedictLoad("prompt_panel");
    const prompt = gradioApp().querySelector(`#${container.dataset.tab}_prompt textarea`);
    mountPanel(container, {
        read: () => prompt.value,
        write(text) {
            prompt.value = text;
            updateInput(prompt); // the host's own: Gradio hears of it
        },
        ask: sparsedictAsk,
    });
}

async function sparsedictMonitor(container) {
    (await sparsedictLoad("training_tab")).mountTraining(container, { ask: sparsedictAsk, address: sparsedictRoute });
}
