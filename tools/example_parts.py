"""What the example graphs are made of: one base, a training, pictures from prompts, and ways to put those side by side."""

from __future__ import annotations

from typing import Any

from .ui_workflow import Link, Node, Workflow

DEMO = {"steps": 16, "cfg": 3.5, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
SAVED = "SaveImage"
TRAINING = 560  # room for the prompts of the previews and the monitor of a run


class Example(Workflow):
    """What the examples have in common: one base, a training, pictures from prompts."""

    def base(self, text: str) -> None:
        """The note that opens each graph, and the model."""
        with self.group("Read me", "off"):
            self.note(text, "What this does", width=330)
            demo = self.add("SparseDictDemoModel")
            self.latent = self.add("SparseDictDemoLatent")["latent"]
        self.model, self.clip, self.vae = demo["model"], demo["clip"], demo["vae"]

    def train(self, pictures: Node, name: str, word: str, room: int = TRAINING, **more: Any) -> Node:
        return self.add(
            "SparseDictTrain", wide=400, preview=room, folds=True, model=self.model, clip=self.clip, vae=self.vae, images=pictures["images"],
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

    def sampled(self, title: str, model: Link, words: tuple[Link, Link], seed: int) -> Link:
        return self.add("KSampler", title, model=model, positive=words[0], negative=words[1], latent_image=self.latent, seed=seed, **DEMO)[0]

    def decoded(self, latent: Link) -> Link:
        return self.add("VAEDecode", samples=latent, vae=self.vae)[0]

    def picture(self, title: str, model: Link, words: tuple[Link, Link], seed: int) -> Link:
        return self.decoded(self.sampled(title, model, words, seed))

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
