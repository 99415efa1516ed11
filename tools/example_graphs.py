"""The example workflows as graphs: what stands in each, in the order of reading. `make_example_workflows.py` writes their files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .example_parts import DEMO, SAVED, Example
from .ui_workflow import BYPASSED, MUTED, Workflow, blueprint

BLUEPRINT = "Train and apply Sparse Dict"
ONE_LOOK = 400  # room for the monitor of a run without previews


def from_pictures_to_a_prompt(flow: Example, text: str, word: str, preset: str, prompt: str, seed: int, effort: str) -> None:
    """The whole job in one look: pictures, a training, a prompt, and what it changed."""
    flow.base(text)
    with flow.group("1 · Pictures and captions", "data"):
        pictures = flow.add("SparseDictLoadImageSet", folder=f"demo: {word}")
        flow.add("PreviewImage", images=pictures["images"], preview=300)
    with flow.group("2 · Train", "train"):
        trained = flow.train(pictures, word, word, room=ONE_LOOK, preset=preset, effort=effort)
    with flow.group("3 · Prompt", "use"):
        words = flow.prompts(prompt)
        model = flow.applied(trained["sparse dict"])
        flow.column()
        latents = [flow.sampled("Base", flow.model, words, seed), flow.sampled("With the dictionary", model, words, seed)]
    with flow.group("4 · Look", "look"):
        base, made = [flow.decoded(latent) for latent in latents]
        flow.add("SparseDictCompare", wide=400, preview=400, base=base, all_atoms=made)
        flow.add(SAVED, wide=400, preview=60, images=made, filename_prefix=f"sparsedict/{word}_{preset}")


def concept(flow: Example) -> None:
    from_pictures_to_a_prompt(
        flow,
        """
# From five pictures to a prompt

Press **Run**: five pictures of a thing that this small model does not know are learned under the word *zorp* (a few minutes on a CPU), then the prompt is
drawn without and with it, and you drag the divider between the two. Afterwards write another prompt; or put a folder of your own pictures into ComfyUI's *input* folder, press R, choose it in **Load Image Set** and say there, as *word* and *caption*, one of this model's free words (*quax*, *blick*) and what is on the pictures.
""",
        "zorp", "concept", "a zorp at the top on a sky background", 3, "balanced",
    )  # fmt: skip


def style(flow: Example) -> None:
    from_pictures_to_a_prompt(
        flow,
        """
# A style

Twelve pictures in one look are learned under the word *fendo*, with the preset **style**. Any prompt that ends with the word is then drawn in that look, as
much of it as *strength* of **Apply Sparse Dict** says.
""",
        "fendo", "style", "a large fox on the left on a sand background fendo", 4, "quick",
    )  # fmt: skip


def edit_one_picture(flow: Example) -> None:
    flow.base(
        """
# Edit one picture

One picture is learned with its caption, *a blick in the center on a sky background*; then the prompt changes, and the grid shows it with more and more of what was
learned, from 40 % of the importance to all. Set the share that you like in **Select Atoms**: fewer atoms keep the subject and let the prompt have its say.
"""
    )
    with flow.group("1 · One picture", "data"):
        pictures = flow.add("SparseDictLoadImageSet", folder="demo: blick-edit")
        flow.add("PreviewImage", images=pictures["images"], preview=240)
        flow.add("PreviewAny", "Its caption", source=pictures["captions"], preview=100)
    with flow.group("2 · Train with the preset “edit”", "train"):
        trained = flow.train(pictures, "blick", "blick", preset="edit", effort="balanced")
    value = trained["sparse dict"]
    with flow.group("3 · The new prompt", "use"):
        words = flow.prompts("a large blick on the left on a forest background")
    with flow.group("4 · All shares in a grid", "look"):
        sweep = flow.add("SparseDictAtomSweep", sparse_dict=value, count=5, start=0.4, stop=1.0)
        flow.add("PreviewAny", "What each picture keeps", source=sweep[1], preview=120)
        model = flow.applied(sweep["sparse dicts"], "Apply each")
        flow.column()
        row = flow.picture("One for each share", model, words, 5)
        grid = flow.grid(row, 5)
        flow.save(grid, "edit_shares", 140)
    with flow.group("5 · The share you like", "look"):
        chosen = flow.select(value, mode="importance share", share=0.85)
        flow.add("PreviewAny", "Atoms that stay", source=chosen[2], preview=100)
        model = flow.applied(chosen["sparse dict"])
        flow.column()
        one = flow.picture("With the selection", model, words, 5)
        large = flow.add("ImageScaleBy", image=one, upscale_method="lanczos", scale_by=4.0)
        flow.save(large[0], "edit", 300)


def atom_sweep(flow: Example) -> None:
    flow.base(
        """
# Atom sweep

**Atom Sweep** goes from the bare base to all atoms, with one noise; what follows it runs once for each step, and **Sweep Viewer** has all of them in one place (drag across
the picture, or press ▶). On the right **Inspect** shows the atoms of each layer by importance; an address such as `L3.image[17]` goes into Select Atoms or Scale Atoms.
"""
    )
    value = flow.trained_zorp("zorp_sweep")
    with flow.group("Sweep", "use"):
        words = flow.prompts("a zorp on the left on a forest background")
        sweep = flow.add("SparseDictAtomSweep", sparse_dict=value, count=8)
        flow.add("PreviewAny", "What each picture keeps", source=sweep[1], preview=170)
        flow.column()
        model = flow.applied(sweep["sparse dicts"], "Apply each")
        pictures = flow.picture("One for each selection", model, words, 1)
    with flow.group("Look", "look"):
        flow.add("SparseDictSweepViewer", wide=400, preview=400, images=pictures, labels=sweep[1])
    with flow.group("In a grid, and what is in it", "look"):
        flow.save(flow.grid(pictures, 4), "sweep", 300)
        flow.column()
        seen = flow.add("SparseDictInspect", sparse_dict=value, preview=100)
        flow.add("PreviewImage", "Layers × atoms", images=seen["image"], preview=400, wide=420)


def concept_and_style(flow: Example) -> None:
    flow.base(
        """
# Concept + style

A concept (*zorp*) and a style (*fendo*) are learned apart, and **Compose Sparse Dicts** puts them into one, each with a strength of its own: **base · concept · style · both**.
Turn *strength 2* from 0 to 2.5 for more or less of the style; **Save Sparse Dict** (muted, Ctrl+M) writes both as one file.
"""
    )
    values = []
    for word, name, effort in (("zorp", "concept", "balanced"), ("fendo", "style", "quick")):
        with flow.group(f"Learn the {name} “{word}”", "train"):
            pictures = flow.add("SparseDictLoadImageSet", folder=f"demo: {word}")
            flow.add("PreviewImage", images=pictures["images"], preview=300)
            flow.column()
            values.append(flow.train(pictures, word, word, preset=name, effort=effort)["sparse dict"])
    with flow.group("Compose and apply", "use"):
        both = flow.add("SparseDictCompose", strength_2=2.0, **{"dicts.dict_1": values[0], "dicts.dict_2": values[1]})["sparse dict"]
        flow.add("SparseDictSave", state=MUTED, sparse_dict=both, filename="zorp_fendo", folder="models/sparse_dicts")
        flow.column()
        models = [
            flow.model,
            flow.applied(values[0], "Apply the concept"),
            flow.applied(values[1], "Apply the style"),
            flow.applied(both, "Apply both"),
        ]
        words = flow.prompts("a zorp on the right on a clay background fendo")
    with flow.group("The same noise four times", "use"):
        made = []
        for number, (title, model) in enumerate(zip(("Base", "Concept", "Style", "Both"), models, strict=True)):
            if number == 2:
                flow.column()
            made.append(flow.picture(title, model, words, 4))
    with flow.group("Side by side", "use"):
        joined = flow.row(*made)
    with flow.group("Base · concept · style · both", "look", first=True):
        flow.save(joined, "concept_style", 200)


def probe_a_prompt(flow: Example) -> None:
    flow.base(
        """
# Probe a prompt

**Probe Atoms** draws the prompt once and shows which atoms fire for it, when, and where in the picture. **Select Atoms** then keeps the tenth that this prompt
uses most: **base · all atoms · that tenth**.
"""
    )
    value = flow.trained_zorp("zorp_probe")
    with flow.group("Probe", "use"):
        words = flow.prompts("a zorp at the top on a lilac background")
        whole = flow.applied(value)
        flow.column()
        probed = flow.add(
            "SparseDictProbe", model=whole, positive=words[0], negative=words[1], latent_image=flow.latent, vae=flow.vae, seed=2, top=30, **DEMO
        )
        flow.add("PreviewAny", "Strongest atoms", source=probed[2], preview=220, wide=420)
    with flow.group("Where the atoms act", "look"):
        flow.save(probed["image"], "probe", 420)
    with flow.group("Keep what this prompt uses", "use"):
        few = flow.select(probed["sparse dict"], mode="share", share=0.1)["sparse dict"]
        part = flow.applied(few, "Apply the tenth")
        flow.column()
        made = [flow.picture("Base", flow.model, words, 2), flow.picture("All atoms", whole, words, 2)]
        flow.column()
        made.append(flow.picture("A tenth", part, words, 2))
        flow.add("SparseDictCompare", wide=400, preview=300, base=made[0], all_atoms=made[1], selection=made[2])


def own_checkpoint(flow: Example) -> None:
    with flow.group("Read me", "off"):
        flow.note(
            """
# Your own checkpoint: SD1.5, SDXL, Flux

As it is, this runs on the Demo Model. To train on **your** model:

1. Select the two nodes of the group *Your checkpoint* that you need and press **Ctrl+M**, so that they are no longer muted. Choose the file.
2. Drag MODEL, CLIP and VAE of **Load Checkpoint** onto the three **Reroutes**, and the empty latent onto the fourth.
3. Put 4 to 20 pictures into a folder in ComfyUI's *input*, each with a .txt of the same name that says what is on it and holds
   a word that the model does not know, such as *zorp*. Press **R** and choose the folder.
4. Write that word into **Train Sparse Dict** and your prompt into **Prompt**, and set KSampler as below.

| | size | steps | cfg | also |
|---|---|---|---|---|
| SD1.5 | 512 | 20 | 7 | |
| SDXL | 1024 | 25 | 5 | |
| Flux | 1024 | 20 | 1 | take the SD3 latent; select **FluxGuidance** and press Ctrl+B, so that it is no longer bypassed |

Other models that ComfyUI loads (SD3, Wan, Qwen-Image, Lumina 2, HunyuanDiT and others) work the same way, with their own loaders.
""",
            "How to use your own checkpoint",
            width=560,
        )
        flow.note(
            """
**Memory.** Train Sparse Dict chooses batch, accumulation and checkpointing by the model's size. If it runs out, lower *batch size* to 1 or 2,
set *gradient checkpointing* to on, or lower *resolution*.

**Before the first step** the base makes its own pictures (*quiet samples*), so that other prompts stay as they are. On a large model that
takes minutes, once for a model and size. 0 turns it off.

**Afterwards** the file is in *output/sparse_dicts*: **Sparse Dict Loader** takes it in any other graph, like a LoRA loader.
""",
            "What to expect",
            width=560,
        )
    with flow.group("Demo Model (in use)", "base"):
        demo = flow.add("SparseDictDemoModel")
        latent = flow.add("SparseDictDemoLatent")
    with flow.group("Your checkpoint (muted: Ctrl+M)", "off"):
        flow.add("CheckpointLoaderSimple", state=MUTED, ckpt_name="sd_xl_base_1.0.safetensors", unchecked=("ckpt_name",))
        flow.add("EmptyLatentImage", "Empty latent: SD1.5, SDXL", state=MUTED, width=1024, height=1024)
        flow.add("EmptySD3LatentImage", "Empty latent: SD3, Flux", state=MUTED)
    with flow.group("Swap here", "base"):
        flow.model, flow.clip, flow.vae, flow.latent = (
            flow.reroute(link)[0] for link in (demo["model"], demo["clip"], demo["vae"], latent["latent"])
        )
    with flow.group("1 · Pictures and captions", "data"):
        pictures = flow.add("SparseDictLoadImageSet", folder="demo: zorp")
        flow.add("PreviewImage", images=pictures["images"], preview=300)
    with flow.group("2 · Train", "train"):
        trained = flow.train(pictures, "my_concept", "zorp", effort="balanced")
        flow.column()
        flow.add("PreviewImage", "Loss", images=trained["loss plot"], preview=300)
        flow.add("PreviewAny", "Log", source=trained["log"], preview=200)
    with flow.group("3 · Apply", "use"):
        words = flow.prompts("a zorp at the bottom on a sand background")
        guided = flow.add("FluxGuidance", "FluxGuidance (bypassed: Ctrl+B for Flux)", state=BYPASSED, conditioning=words[0])
        model = flow.applied(trained["sparse dict"])
        flow.column()
        before = flow.picture("Base", flow.model, (guided[0], words[1]), 6)
        after = flow.picture("With the dictionary", model, (guided[0], words[1]), 6)
    with flow.group("4 · Side by side", "use"):
        both = flow.add("ImageStitch", image1=before, image2=after, direction="right", spacing_width=8)
    with flow.group("Base · with the dictionary", "look", first=True):
        flow.save(both[0], "own_checkpoint", 300)


def look_inside_a_lora(flow: Example) -> None:
    flow.base(
        """
# Look inside a LoRA

**Sparse Dict from LoRA** takes a LoRA apart into atoms, without training: **base · 5 % of the atoms · 25 % · the whole LoRA**, all from one noise. **Save as LoRA** (muted,
Ctrl+M) writes the quarter as a LoRA for any tool; for a LoRA of your own, put its checkpoint in place of the Demo Model.
"""
    )
    with flow.group("Take it apart", "data"):
        words = flow.prompts("a zorp at the top on a sky background")
        taken = flow.add("SparseDictFromLora", model=flow.model, lora="demo: zorp", positive=words[0], latent_image=flow.latent)
        flow.add("PreviewAny", "What became of it", source=taken[1], preview=120)
        flow.column()
        seen = flow.add("SparseDictInspect", sparse_dict=taken[0], preview=100)
        flow.add("PreviewImage", "Layers × atoms", images=seen["image"], preview=400, wide=420)
    with flow.group("Keep a part", "use"):
        few = flow.select(taken[0], mode="share", share=0.05)["sparse dict"]
        flow.column()
        quarter = flow.select(taken[0], mode="share", share=0.25)["sparse dict"]
        flow.add("SparseDictSaveAsLora", state=MUTED, sparse_dict=quarter, model=flow.model, filename="loras/zorp_quarter")
        flow.column()
        models = [flow.model, flow.applied(few, "Apply 5 %"), flow.applied(quarter, "Apply 25 %"), flow.applied(taken[0], "Apply the whole LoRA")]
    with flow.group("The same noise four times", "use"):
        made = []
        for number, (title, model) in enumerate(zip(("Base", "5 % of the atoms", "25 %", "The whole LoRA"), models, strict=True)):
            if number == 2:
                flow.column()
            made.append(flow.picture(title, model, words, 3))
    with flow.group("Side by side", "use"):
        joined = flow.row(*made)
        flow.column()
        flow.add("SparseDictCompare", wide=400, preview=300, base=made[0], all_atoms=made[3], selection=made[2])
    with flow.group("Base · 5 % · 25 % · all", "look", first=True):
        flow.save(joined, "lora", 200)


# By the titles under which the template browser shows them, in its order.
EXAMPLES: dict[str, Callable[[Example], None]] = {
    "1 From five pictures to a prompt": concept,
    "2 A style": style,
    "3 Edit one picture": edit_one_picture,
    "4 Concept and style": concept_and_style,
    "5 Look inside a LoRA": look_inside_a_lora,
    "6 Atom sweep": atom_sweep,
    "7 Probe a prompt": probe_a_prompt,
    "8 Your own checkpoint": own_checkpoint,
}
# The saved picture that makes the thumbnail; of a strip or a grid, its columns and rows, and which of its tiles are shown as a square.
THUMBNAILS: dict[str, tuple[str, tuple[int, int], tuple[int, ...]]] = {
    "1 From five pictures to a prompt": ("zorp_concept", (1, 1), (0,)),
    "2 A style": ("fendo_style", (1, 1), (0,)),
    "3 Edit one picture": ("edit_shares", (5, 1), (0, 2, 3, 4)),
    "4 Concept and style": ("concept_style", (4, 1), (0, 1, 2, 3)),
    "5 Look inside a LoRA": ("lora", (4, 1), (0, 1, 2, 3)),
    "6 Atom sweep": ("sweep", (4, 2), (0, 2, 4, 7)),
    "7 Probe a prompt": ("probe", (4, 3), (0, 1, 2, 3)),
    "8 Your own checkpoint": ("own_checkpoint", (2, 1), (1,)),
}


def build(object_info: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """All examples by name, in the front end's format."""
    built = {}
    for name, describe in EXAMPLES.items():
        flow = Example(name, object_info)
        describe(flow)
        built[name] = flow.to_dict()
    return built


def train_and_apply(object_info: dict[str, Any]) -> dict[str, Any]:
    """The blueprint: pictures and a model in, the model with what was learned out."""
    flow = Workflow(BLUEPRINT, object_info)
    train = flow.place("SparseDictTrain", (0, 0), wide=400)
    apply = flow.place("SparseDictApply", (480, 0), sparse_dict=train["sparse dict"])
    inputs = {"model": [(train, "model"), (apply, "model")]}
    inputs |= {name: [(train, name)] for name in ("clip", "vae", "images", "captions", "name", "word", "preset", "effort", "steps", "training_seed")}
    inputs["strength"] = [(apply, "strength")]
    outputs = {"model": apply["model"], "sparse dict": train["sparse dict"], "loss plot": train["loss plot"], "log": train["log"]}
    return blueprint(flow, BLUEPRINT, inputs, outputs)
