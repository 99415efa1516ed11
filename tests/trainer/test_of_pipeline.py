"""Training on a diffusers pipeline that a program has loaded: the same adapter as from its folder, and the pipeline as it was."""

from __future__ import annotations

import sys
import types

import accelerate
import pytest
import torch
from PIL import Image
from tiny_pipelines import save_tiny, sd15

from sparsedict import Callbacks, ConceptData, SparseDictError, TrainConfig, attached, open_backend, train
from sparsedict.trainer.notebook import in_notebook

DATA = ConceptData.from_tensors(torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1, "a zorp")


def settings(out, **more) -> TrainConfig:
    return TrainConfig(**{"out": out, "steps": 2, "batch_size": 2, "atoms": 4, "rank": 2, "quiet_samples": 2, "quiet_sampling_steps": 1, "placeholder": "zorp", **more})


def test_the_same_adapter_as_from_the_folder_and_the_pipeline_as_it_was(tmp_path):
    import diffusers

    torch.set_num_threads(1)
    save_tiny("sd15", tmp_path / "model")
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(str(tmp_path / "model"), local_files_only=True)
    pipe.unet.train()
    wanted = train(settings(tmp_path / "a.safetensors"), open_backend(tmp_path / "model"), DATA, Callbacks()).adapter
    result = train(settings(tmp_path / "b.safetensors"), backend=pipe, data=DATA, callbacks=Callbacks())
    for (name, one), (_, other) in zip(wanted.trainable_parameters(), result.adapter.trainable_parameters(), strict=True):
        assert torch.equal(one, other), name
    assert pipe.unet.training and not pipe.vae.training and all(p.requires_grad for p in pipe.unet.parameters()) and len(attached(pipe)) == 0
    assert result._repr_html_() == result.adapter._repr_html_()
    result.adapter.attach(pipe)
    with pytest.raises(SparseDictError, match=r"adapters on the pipeline \(b\)"):
        train(settings(tmp_path / "c.safetensors"), pipe, DATA, Callbacks())


def test_pipelines_that_cannot_be_trained_on_are_refused(tmp_path):
    class OtherPipeline:
        components: dict = {}  # noqa: RUF012

    with pytest.raises(SparseDictError, match="OtherPipeline cannot be trained on"):
        train(settings(tmp_path / "a.safetensors"), OtherPipeline(), DATA)
    with pytest.raises(SparseDictError, match=r"open_backend\('demo'\)"):
        train(settings(tmp_path / "a.safetensors"), "demo", DATA)
    pipe = sd15()
    accelerate.cpu_offload(pipe.unet, torch.device("cpu"))
    with pytest.raises(SparseDictError, match="offloaded"):
        train(settings(tmp_path / "a.safetensors"), pipe, DATA)


def test_previews_are_shown_in_the_notebook(tmp_path, monkeypatch):
    shown = []

    class Handle:
        def update(self, picture):
            shown.append(picture)

    def display(picture, display_id):
        shown.append(picture)
        return Handle()

    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    ipython.display = types.ModuleType("IPython.display")
    ipython.display.display = display
    assert not in_notebook()
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython.display)
    assert in_notebook()
    train(settings(tmp_path / "a.safetensors", preview_prompts=["a zorp"], preview_every=1, checkpoint_every=5), open_backend("demo"), demo_data())
    assert len(shown) == 2 and all(isinstance(picture, Image.Image) for picture in shown)


def demo_data() -> ConceptData:
    return ConceptData.from_tensors(torch.zeros(2, 3, 64, 64), "a zorp")
