"""A LoRA with thresholds: as the LoRA where its concept is, near to the base elsewhere."""

from pathlib import Path

import pytest
import torch

import sparsedict
from sparsedict.lora.base import open_base
from sparsedict.lora.convert import lora_to_adapter
from sparsedict.sparsedict_core import load, save
from sparsedict.sparsedict_core.errors import SiteError
from sparsedict.tools.make_demo_images import concept_data
from sparsedict.trainer import Callbacks, gate, shrink
from sparsedict.trainer.config import TrainConfig

LORA = Path(sparsedict.__file__).parent / "demo" / "loras" / "zorp.safetensors"


@pytest.fixture(scope="module")
def backend(demo):
    """What is learned is asked here."""
    return demo


@torch.no_grad()
def change(backend, adapter, caption):
    """What an adapter changes in the prediction for a caption."""
    noise = torch.randn(4, 16, 16, 16, generator=torch.Generator().manual_seed(7))
    levels, words = torch.linspace(0.3, 0.9, 4), backend.encode_captions([caption] * 4)
    base = backend.predict(noise, levels, words)
    with adapter.attach(backend.denoiser, component="transformer"):
        return backend.predict(noise, levels, words) - base


def test_a_gated_lora(backend, tmp_path, monkeypatch):
    monkeypatch.setattr(gate, "SITE_STEPS", 25)
    monkeypatch.setattr(shrink, "HEAL_QUIET_SAMPLES", 4)
    lora, _ = lora_to_adapter(LORA, open_base("demo"))
    lora.aside = {"lora_te_x.alpha": torch.tensor(1.0)}
    result = gate.gate(lora, backend, data=concept_data("zorp"), steps=5, callbacks=Callbacks(), batch=TrainConfig(batch_size=4))
    gated = result.adapter
    assert gated.config.encoder == "quantile" and gated.atom_count > lora.atom_count and gated.aside == lora.aside
    own, other = "a zorp in the center on a night background", "a flat fox in the center on a night background"
    wanted, made = change(backend, lora, own), change(backend, gated, own)
    assert float((made - wanted).square().mean()) < 0.7 * float(wanted.square().mean())
    assert float(change(backend, gated, other).square().mean()) < 0.6 * float(change(backend, lora, other).square().mean())
    assert 0 < result.quiet < 0.7 and 0 < result.missed < 0.9 and f"{result.quiet:.1%}" in result.text
    save(gated, tmp_path / "gated.safetensors", torch.float32)
    assert gated.metadata["lineage"][-1]["operation"] == "gate"
    torch.testing.assert_close(change(backend, load(tmp_path / "gated.safetensors"), own), made, rtol=1e-4, atol=1e-5)
    with pytest.raises(SiteError, match="has thresholds already"):
        gate.gate(gated, backend, callbacks=Callbacks())


def test_a_site_that_never_runs():
    lora, _ = lora_to_adapter(LORA, open_base("demo"))
    with pytest.raises(SiteError, match="never at work"):
        gate.folded(lora, {}, 0.1)
