"""Random graphs of the pack's nodes: each as a prompt for the host, and as what the core alone makes of it on the demo base."""

from __future__ import annotations

import random
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...demo_model.pipeline import DemoPipeline
from ...sparsedict_core.adapter import SparseAdapter
from ...sparsedict_core.compose import compose
from ...sparsedict_core.config import AdapterConfig
from ...sparsedict_core.file_format import load, save
from ...sparsedict_core.gains import bake, resolve_gains
from ...sparsedict_core.prune import prune
from ...sparsedict_core.selection import Selection, select
from ...sparsedict_core.site_discovery import discover_sites

FILES = {"cat": 0, "dog": 1, "style": 2}  # and their seeds
STEPS, GUIDANCE = 4, 3.5  # noise levels that the host's scheduler has exactly
TAKE = "SoakTake"  # the node at the end, which hands the picture over
_CAPTIONS = ["a small flat fox top left on forest", "a large glossy star on sand", ""]


def write_files(folder: Path, pipeline: DemoPipeline) -> None:
    """Random adapters that change pictures, in full precision, as both sides read them."""
    found = discover_sites(pipeline.transformer)
    for name, seed in FILES.items():
        adapter = SparseAdapter.create(
            pipeline.transformer, found.sites, AdapterConfig(atoms=12, rank=4), found.component, seed, {"base_family": "demo", "title": name}
        )
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for site in adapter.sites.values():
                assert site.dictionary_basis is not None
                site.dictionary_basis.copy_(torch.randn(site.dictionary_basis.shape, generator=generator) * 0.1)
                site.importance = torch.rand(site.atoms, generator=generator) + 0.01
        save(adapter, folder / f"{name}.safetensors", torch.float32)


class Graph:
    """Grows in both forms at once: `prompt` in the host's format, and what the core alone does, on files in `folder`."""

    def __init__(self, chance: random.Random, folder: Path) -> None:
        self._chance, self._folder = chance, folder
        self.prompt: dict[str, dict[str, Any]] = {}
        self._applied: list[tuple[SparseAdapter, float]] = []
        self._base = self._node("SparseDictDemoModel")
        self._model = [self._base, 0]
        for _ in range(chance.choice((0, 1, 1, 2))):
            chance.choice((self._apply, self._apply, self._loader))()
        self._seed, self._caption = chance.randrange(4), chance.choice(_CAPTIONS)
        self._sample()

    def picture(self, pipeline: DemoPipeline) -> Tensor:
        """(1, 3, 64, 64) in [-1, 1], without the host."""
        with ExitStack() as attached:
            for adapter, strength in self._applied:
                attached.enter_context(adapter.attach(pipeline.transformer, strength))
            return pipeline.generate([self._caption], seed=self._seed, steps=STEPS, guidance=GUIDANCE)

    # -- the end ----------------------------------------------------------------------------------------------

    def _sample(self) -> None:
        positive, negative = (self._node("CLIPTextEncode", clip=[self._base, 1], text=text) for text in (self._caption, ""))
        latent = self._node("SparseDictDemoLatent", batch_size=1)
        sampled = self._node(
            "KSampler", model=self._model, positive=[positive, 0], negative=[negative, 0], latent_image=[latent, 0], seed=self._seed, steps=STEPS,
            cfg=GUIDANCE, sampler_name="euler", scheduler="simple", denoise=1.0,
        )  # fmt: skip
        decoded = self._node("VAEDecode", samples=[sampled, 0], vae=[self._base, 2])
        self._node(TAKE, image=[decoded, 0])

    def _node(self, kind: str, **inputs: Any) -> str:
        number = str(len(self.prompt) + 1)
        self.prompt[number] = {"class_type": kind, "inputs": inputs}
        return number

    # -- onto the model -----------------------------------------------------------------------------------------

    def _loader(self) -> None:
        name, strength, share = self._file(), self._strength(), self._chance.choice((1.0, 0.5, 0.1, 0.0))
        self._model = [self._node("SparseDictLoader", model=self._model, file=name, strength=strength, share=share), 0]
        adapter = load(self._folder / name)
        kept = Selection(keep=share) if share else Selection(top=0)
        self._applied.append((prune(adapter, select(adapter, kept)), strength))

    def _apply(self) -> None:
        (link, adapter), strength = self._chance.choice((self._dictionary, self._composed))(), self._strength()
        self._model = [self._node("SparseDictApply", model=self._model, sparse_dict=link, strength=strength, start_percent=0.0, end_percent=1.0), 0]
        self._applied.append((adapter, strength))

    # -- dictionaries: a link to the node, and the adapter that the core makes ------------------------------------

    def _dictionary(self) -> tuple[list[Any], SparseAdapter]:
        return self._scaled(*self._selected(*self._loaded()))

    def _composed(self) -> tuple[list[Any], SparseAdapter]:
        parts = [(name, *self._selected(*self._loaded(name)), self._strength()) for name in self._chance.sample(list(FILES), self._chance.choice((1, 2, 2, 3)))]
        strengths = {f"strength_{number}": 1.0 for number in range(1, 9)} | {f"strength_{i + 1}": part[3] for i, part in enumerate(parts)}
        links = {f"dicts.dict_{i + 1}": part[1] for i, part in enumerate(parts)}
        link = [self._node("SparseDictCompose", **links, **strengths), 0]
        made = compose([(name, adapter, strength) for name, _, adapter, strength in parts])
        return self._scaled(*self._selected(link, made), f"{parts[0][0]}:")

    def _loaded(self, name: str | None = None) -> tuple[list[Any], SparseAdapter]:
        file = self._file() if name is None else f"{name}.safetensors"
        return [self._node("SparseDictLoad", file=file), 0], load(self._folder / file)

    def _selected(self, link: list[Any], adapter: SparseAdapter) -> tuple[list[Any], SparseAdapter]:
        """Often not at all. What is left is really left, where a node only sets gains."""
        if self._chance.random() < 0.4:
            return link, adapter
        mode, amount = self._chance.choice((("share", "keep"), ("importance share", "importance_share"), ("top", "top"), ("addresses", "atoms")))
        amounts = {"share": round(self._chance.uniform(0.1, 1), 2), "top": self._chance.randrange(40), "atoms": "L0-L1"}
        how = {"per_site": mode in ("share", "top") and self._chance.random() < 0.3, "invert": self._chance.random() < 0.2}
        settings = {"mode": mode, "threshold": 0.0, "order": "importance", "layers": "", "refit": False, **amounts, **how}
        chosen = Selection(**{amount: amounts.get(amount, amounts["share"])}, **how)
        return [self._node("SparseDictSelectAtoms", sparse_dict=link, **settings), 0], prune(adapter, select(adapter, chosen))

    def _scaled(self, link: list[Any], adapter: SparseAdapter, member: str = "") -> tuple[list[Any], SparseAdapter]:
        if self._chance.random() < 0.5:
            return link, adapter
        gains = f"{member}L1=0, {member}L2={self._chance.choice((0.5, -1, 2))}"
        return [self._node("SparseDictScaleAtoms", sparse_dict=link, gains=gains), 0], bake(adapter, resolve_gains(adapter, gains))

    def _file(self) -> str:
        return f"{self._chance.choice(list(FILES))}.safetensors"

    def _strength(self) -> float:
        return self._chance.choice((1.0, 0.5, -0.5, 0.0, 0.8))


