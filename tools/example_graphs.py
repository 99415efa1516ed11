"""The example workflows as graphs: what stands in each, in the order of reading. `make_example_workflows.py` writes their files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .ui_workflow import BYPASSED, MUTED, Link, Node, Workflow, blueprint

BLUEPRINT = "Train and apply Sparse Dict"
DEMO = {"steps": 16, "cfg": 3.5, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
SAVED = "SaveImage"
TRAINING = 560  # room for the prompts of the previews and the monitor of a run


class Example(Workflow):
    """What the examples have in common: one base, a training, pictures from prompts."""

    def base(self, text: str) -> None:
        """The note that opens each graph, and the model."""
        with self.group("Read me", "off"):
            self.note(text, "What this does")
        with self.group("Base model", "base"):
            demo = self.add("SparseDictDemoModel")
            self.latent = self.add("SparseDictDemoLatent")["latent"]
        self.model, self.clip, self.vae = demo["model"], demo["clip"], demo["vae"]

    def train(self, pictures: Node, name: str, word: str, **more: Any) -> Node:
        return self.add(
            "SparseDictTrain", wide=400, preview=TRAINING, folds=True, model=self.model, clip=self.clip, vae=self.vae, images=pictures["images"],
            captions=pictures["captions"], name=name, word=word, **{"effort": "quick", **more},
        )  # fmt: skip

    def trained_zorp(self, name: str, **more: Any) -> Link:
        """Pictures of the demo's concept and a short training on them."""
        with self.group("Learn “zorp”", "train"):
            pictures = self.add("SparseDictLoadImageSet", folder="demo: zorp")
            self.add("PreviewImage", images=pictures["images"], preview=240)
            self.column()
            node = self.train(pictures, name, "zorp", **more)
        return node["sparse dict"]

    def prompts(self, text: str) -> tuple[Link, Link]:
        positive = self.add("CLIPTextEncode", "Prompt", clip=self.clip, text=text)
        negative = self.add("CLIPTextEncode", "Negative prompt", clip=self.clip, text="")
        return positive[0], negative[0]

    def applied(self, value: Link, title: str | None = None, **more: Any) -> Link:
        return self.add("SparseDictApply", title, model=self.model, sparse_dict=value, **more)["model"]

    def select(self, value: Link, **more: Any) -> Node:
        # Its picker of atoms takes more room than its widgets.
        return self.add("SparseDictSelectAtoms", wide=400, preview=370, sparse_dict=value, **more)

    def picture(self, title: str, model: Link, words: tuple[Link, Link], seed: int, **more: Any) -> Link:
        settings = {**DEMO, **more}
        latent = self.add("KSampler", title, model=model, positive=words[0], negative=words[1], latent_image=self.latent, seed=seed, **settings)
        return self.add("VAEDecode", samples=latent[0], vae=self.vae)[0]

    def row(self, *pictures: Link, enlarged: float = 3.0) -> Link:
        """Several pictures side by side, enlarged: those of the Demo Model are small."""
        first, *rest = pictures
        for other in rest:
            first = self.add("ImageStitch", image1=first, image2=other, direction="right", match_image_size=True, spacing_width=2)[0]
        return self.add("ImageScaleBy", image=first, upscale_method="nearest-exact", scale_by=enlarged)[0]

    def grid(self, pictures: Link, columns: int, cell: int = 192) -> Link:
        return self.add("ImageGrid", images=pictures, columns=columns, cell_width=cell, cell_height=cell)[0]

    def singles(self, batch: Link) -> Link:
        return self.add("RebatchImages", "Batch → list", images=batch, batch_size=1)[0]

    def save(self, pictures: Link, prefix: str, height: int = 300) -> None:
        self.add(SAVED, wide=520, preview=height, images=pictures, filename_prefix=f"sparsedict/{prefix}")


def train_apply_compare(flow: Example) -> None:
    flow.base(
        """
# Train → apply → compare

Runs as it is, without a download: **Demo Model** is a small picture model that comes with SparseDict.

1. Five pictures of a thing that the model does not know are loaded with their captions. Their word is *zorp*.
2. **Train Sparse Dict** learns it in 300 steps (*balanced*): one to three minutes on a CPU. *quick* is 100.
3. **Apply Sparse Dict** puts the result onto the model.
4. Four pictures are made twice, with the same noise. **Top: the base. Bottom: with the dictionary.**

Try: another prompt, *strength* 0 to 1.5 (only the bottom row is made again, nothing is trained again).

The Demo Model knows about fifty words: shapes, colours, sizes, places and the backgrounds night, sand, forest, sky, stone and clay.
An unknown word is refused with the list of those it knows.

The trained file is in *output/sparse_dicts* and in the list of **Load Sparse Dict** (press R).
"""
    )
    flow.latent[0].values["batch_size"] = 4
    with flow.group("1 · Pictures and captions", "data"):
        pictures = flow.add("SparseDictLoadImageSet", folder="demo: zorp")
        flow.add("PreviewImage", images=pictures["images"], preview=300)
    with flow.group("2 · Train", "train"):
        shown = "a zorp at the top on a sky background\na red circle on the left on a sand background"
        trained = flow.train(pictures, "zorp", "zorp", effort="balanced", preview_prompts=shown)
        flow.column()
        flow.add("PreviewImage", "Loss", images=trained["loss plot"], preview=300)
        flow.add("PreviewAny", "Log", source=trained["log"], preview=200)
    with flow.group("3 · Apply, and make the same pictures twice", "use"):
        words = flow.prompts("a zorp at the top on a sky background")
        model = flow.applied(trained["sparse dict"])
        flow.column()
        before = flow.picture("Base", flow.model, words, 3)
        after = flow.picture("With the dictionary", model, words, 3)
    with flow.group("4 · Compare", "look"):
        rows = [flow.grid(flow.singles(row), 4) for row in (before, after)]
        flow.column()
        both = flow.add("ImageStitch", image1=rows[0], image2=rows[1], direction="down", spacing_width=8)
        flow.save(both[0], "1_compare", 360)


def edit_one_picture(flow: Example) -> None:
    flow.base(
        """
# Edit one picture

The dictionary learns **one** picture with its caption, *a blick in the center on a sky background*. Then the prompt changes and the subject stays.

With all atoms the model holds on to that picture, background included. With **fewer atoms** the subject stays and the prompt gets its say:
the grid shows growing shares of the importance, from 40 % to all, for the new prompt.

Choose the share you like in the grid and set it in **Select Atoms**; only that one picture is made again.

Your own picture: put it into a folder in *input*, with a .txt of the same name that says what is on it, press R and choose the folder.
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
        words = flow.prompts("a blick on the left on a forest background")
    with flow.group("4 · All shares in a grid", "look"):
        sweep = flow.add("SparseDictAtomSweep", sparse_dict=value, count=5, start=0.4, stop=1.0)
        flow.add("PreviewAny", "What each picture keeps", source=sweep[1], preview=120)
        model = flow.applied(sweep["sparse dicts"], "Apply each")
        flow.column()
        row = flow.picture("One for each share", model, words, 5)
        grid = flow.grid(row, 5)
        flow.save(grid, "2_edit_shares", 140)
    with flow.group("5 · The share you like", "look"):
        chosen = flow.select(value, mode="importance share", share=0.85)
        flow.add("PreviewAny", "Atoms that stay", source=chosen[2], preview=100)
        model = flow.applied(chosen["sparse dict"])
        flow.column()
        one = flow.picture("With the selection", model, words, 5)
        large = flow.add("ImageScaleBy", image=one, upscale_method="lanczos", scale_by=4.0)
        flow.save(large[0], "2_edit", 300)


def atom_sweep(flow: Example) -> None:
    flow.base(
        """
# Atom sweep

**Atom Sweep** makes a list of selections, from no atoms (the bare base) to all. What follows it runs once for each, with the same noise:
the grid is the slider from the base to the concept.

*spacing: importance* steps by what the atoms carry, so that each picture changes about as much as the last; *atoms* by their number.
Selections are nested: a larger one holds all atoms of a smaller one.

**Sweep Viewer** has the same pictures in one place: drag across the picture, or press ▶. *Export GIF* saves them as an animation.

On the right: **Inspect** shows the atoms of each layer by importance. An address such as `L3.image[17]` can be given to Select Atoms or Scale Atoms.
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
        flow.column()
        flow.save(flow.grid(pictures, 4), "3_sweep", 300)
        flow.column()
        seen = flow.add("SparseDictInspect", sparse_dict=value, preview=100)
        flow.add("PreviewImage", "Layers × atoms", images=seen["image"], preview=400, wide=420)


def concept_and_style(flow: Example) -> None:
    flow.base(
        """
# Concept + style

Two dictionaries are trained apart: a **concept** (*zorp*, five pictures) and a **style** (*fendo*, six pictures in one look).
**Compose Sparse Dicts** puts them into one; no atom of either is changed, and each keeps its own strength.

The grid, all from the same noise: **base · concept · style · both**.

The style is added at 0.7, so that it leaves the concept its colours. Try: *strength 2* of Compose from 0 to 1.5. In addresses the parts are told apart by their names: `zorp:L3.image[17]`.
**Save Sparse Dict** writes both as one file; it is muted here (select it and press Ctrl+M).
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
        both = flow.add("SparseDictCompose", strength_2=0.7, **{"dicts.dict_1": values[0], "dicts.dict_2": values[1]})["sparse dict"]
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
    with flow.group("Base · concept · style · both", "look"):
        joined = flow.row(*made)
        flow.column()
        flow.save(joined, "4_concept_style", 200)


def probe_a_prompt(flow: Example) -> None:
    flow.base(
        """
# Probe a prompt

**Probe Atoms** makes the picture once and watches the dictionary: which atoms fire for *this* prompt, in which part of the sampling, and **where in the picture**.

The maps show the picture first, then the strongest atoms, each with its address. The list below says how much each adds.

What comes out on the right is the same dictionary with the importance **for this prompt**: Select Atoms keeps a tenth of its atoms by that.
The last grid: **base · all atoms · the tenth that this prompt uses**.

Try: a prompt without *zorp*: far less fires.
"""
    )
    value = flow.trained_zorp("zorp_probe")
    with flow.group("Probe", "use"):
        words = flow.prompts("a zorp at the top on a stone background")
        whole = flow.applied(value)
        flow.column()
        probed = flow.add(
            "SparseDictProbe", model=whole, positive=words[0], negative=words[1], latent_image=flow.latent, vae=flow.vae, seed=2, top=30, **DEMO
        )
        flow.add("PreviewAny", "Strongest atoms", source=probed[2], preview=220, wide=420)
    with flow.group("Where the atoms act", "look"):
        flow.save(probed["image"], "5_probe", 420)
    with flow.group("Keep what this prompt uses", "use"):
        few = flow.select(probed["sparse dict"], mode="share", share=0.1)["sparse dict"]
        part = flow.applied(few, "Apply the tenth")
        flow.column()
        made = [flow.picture("Base", flow.model, words, 2), flow.picture("All atoms", whole, words, 2)]
        flow.column()
        made.append(flow.picture("A tenth", part, words, 2))
        joined = flow.row(*made)
        flow.save(joined, "5_tenth", 180)


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
    with flow.group("4 · Compare: base, with the dictionary", "look"):
        both = flow.add("ImageStitch", image1=before, image2=after, direction="right", spacing_width=8)
        flow.save(both[0], "6_compare", 300)


def look_inside_a_lora(flow: Example) -> None:
    flow.base(
        """
# Look inside a LoRA

**Sparse Dict from LoRA** takes a LoRA apart into atoms. Nothing is trained here: the LoRA *zorp* comes with SparseDict, for the Demo Model. It changes 33 Linears at rank 8.

1. The prompt and the latent order its atoms by what they do for that prompt. The text says what became of the file.
2. **Inspect** shows which layers the LoRA really uses.
3. The grid, all from the same noise: **base · 5 % of the atoms · 25 % · the whole LoRA**.
4. **Save as LoRA** writes the chosen quarter as a LoRA that any tool loads; it is muted here (select it and press Ctrl+M).

Try: another share in **Select Atoms**; **Scale Atoms** in between, such as `L2=1.5`; a LoRA of your own, with its checkpoint in place of the Demo Model.
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
    with flow.group("Base · 5 % · 25 % · all", "look"):
        joined = flow.row(*made)
        flow.column()
        flow.save(joined, "7_lora", 200)


EXAMPLES: dict[str, Callable[[Example], None]] = {
    "1_train_apply_compare": train_apply_compare,
    "2_edit_one_picture": edit_one_picture,
    "3_atom_sweep": atom_sweep,
    "4_concept_and_style": concept_and_style,
    "5_probe_a_prompt": probe_a_prompt,
    "6_your_own_checkpoint": own_checkpoint,
    "7_look_inside_a_lora": look_inside_a_lora,
}
# Which saved pictures make the thumbnail, below one another.
THUMBNAILS = {
    "1_train_apply_compare": ("1_compare",),
    "2_edit_one_picture": ("2_edit_shares",),
    "3_atom_sweep": ("3_sweep",),
    "4_concept_and_style": ("4_concept_style",),
    "5_probe_a_prompt": ("5_probe",),
    "6_your_own_checkpoint": ("6_compare",),
    "7_look_inside_a_lora": ("7_lora",),
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
