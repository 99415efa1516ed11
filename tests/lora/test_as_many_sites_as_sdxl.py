"""A LoRA of all 700 Linears in SDXL's transformer blocks, on a UNet of SDXL's layout and small widths: selecting, scaling, composing, probing, sweeping."""

from __future__ import annotations

import pytest
import torch
from lora.lora_files import kohya_style, random_lora, write
from torch import nn

from sparsedict.lora.base import Base
from sparsedict.lora.convert import convert_file
from sparsedict.sparsedict_core import Selection, compose, load, prune, select
from sparsedict.sparsedict_core.addresses import format_masks
from sparsedict.sparsedict_core.atom_table import atom_table
from sparsedict.sparsedict_core.fired import fired_atoms
from sparsedict.sparsedict_core.gains import bake, resolve_gains
from sparsedict.sparsedict_core.importance import ImportanceStats


@pytest.fixture(scope="module")
def unet():
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16, 16), layers_per_block=2, norm_num_groups=4, cross_attention_dim=16, attention_head_dim=(1, 2, 2),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10), use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + 16,
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def adapter(unet, tmp_path_factory):
    linears = {path: module for path, module in unet.named_modules() if isinstance(module, nn.Linear) and ".transformer_blocks." in path}
    folder = tmp_path_factory.mktemp("lora")
    path = write(kohya_style(random_lora(linears, rank=4, size=0.15)), folder / "lora.safetensors")
    convert_file(path, Base.of(unet), folder / "dictionary.safetensors")
    return load(folder / "dictionary.safetensors")


@torch.no_grad()
def output(unet):
    generator = torch.Generator().manual_seed(3)
    x, text = torch.randn(1, 4, 8, 8, generator=generator), torch.randn(1, 5, 16, generator=generator)
    more = {"text_embeds": torch.randn(1, 16, generator=generator), "time_ids": torch.ones(1, 6)}
    return unet(x, torch.tensor([500]), text, added_cond_kwargs=more).sample


def test_it_is_used_as_any_other(unet, adapter):
    base = output(unet)
    assert len(adapter.sites) == 700 and adapter.atom_count == 2800
    with adapter.attach(unet) as attachment:
        whole = output(unet)
        stats = ImportanceStats()
        with stats.collect(attachment):
            output(unet)
        assert len(fired_atoms(stats, adapter, {}, (8, 8), mapped=0)) == 2800  # what a probe lists
        pictures = []
        for share in (0.0, 0.1, 0.5, 1.0):  # what a sweep does
            attachment.set_gains(select(adapter, Selection(keep=share) if share else Selection(top=0)).gains())
            pictures.append(output(unet))
        assert torch.equal(pictures[0], base) and torch.equal(pictures[-1], whole)
        assert not torch.equal(pictures[1], base) and not torch.equal(pictures[1], pictures[2])
    half = select(adapter, Selection(keep=0.5))
    with prune(adapter, half).attach(unet):
        torch.testing.assert_close(output(unet), pictures[2], rtol=1e-4, atol=1e-5)
    # Addresses say which they are, and find them again.
    again = select(adapter, Selection(atoms=format_masks(adapter, half.masks)))
    assert all(torch.equal(mask, half.masks[key]) for key, mask in again.masks.items())
    with compose([("a", adapter, 0.25), ("b", adapter, 0.75)]).attach(unet):
        torch.testing.assert_close(output(unet), whole, rtol=1e-3, atol=1e-4)
    first = next(iter(adapter.sites.values())).name.layer
    scaled = bake(adapter, resolve_gains(adapter, f"L{first}=0.5"))
    changed = [key for key, site in scaled.sites.items() if not torch.equal(site.dictionary_weight, adapter.sites[key].dictionary_weight)]
    assert changed and all(adapter.sites[key].name.layer == first for key in changed)
    table = atom_table(adapter)
    assert len(table["sites"]) == 700 and len({site["label"] for site in table["sites"]}) == 700
