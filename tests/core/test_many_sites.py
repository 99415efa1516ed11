"""Hundreds of sites at once: found, trained, applied; a call costs what its own module's sites cost, whatever else is hooked."""

from __future__ import annotations

import pytest
import torch
from core.operations import Operations
from torch import nn

from sparsedict.sparsedict_core.adapter import SparseAdapter
from sparsedict.sparsedict_core.addresses import format_masks, resolve, site_labels
from sparsedict.sparsedict_core.config import AdapterConfig
from sparsedict.sparsedict_core.site import SiteName
from sparsedict.sparsedict_core.site_discovery import discover_sites
from sparsedict.sparsedict_core.training_state import TrainingSession

r = torch.randn


def sdxl():
    from diffusers import UNet2DConditionModel

    model = UNet2DConditionModel(
        sample_size=4, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, cross_attention_dim=8, attention_head_dim=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=32, transformer_layers_per_block=(1, 18),
    )  # fmt: skip
    return model, {
        "sample": r(1, 4, 4, 4), "timestep": torch.tensor([3]), "encoder_hidden_states": r(1, 3, 8),
        "added_cond_kwargs": {"text_embeds": r(1, 8), "time_ids": r(1, 6)},
    }  # fmt: skip


def flux():
    from diffusers import FluxTransformer2DModel

    model = FluxTransformer2DModel(
        in_channels=4, num_layers=30, num_single_layers=50, attention_head_dim=8, num_attention_heads=1, joint_attention_dim=8, pooled_projection_dim=8,
        axes_dims_rope=(2, 2, 4),
    )  # fmt: skip
    return model, {
        "hidden_states": r(1, 4, 4), "encoder_hidden_states": r(1, 3, 8), "pooled_projections": r(1, 8), "timestep": torch.tensor([0.3]),
        "img_ids": torch.zeros(4, 3), "txt_ids": torch.zeros(3, 3),
    }  # fmt: skip


def sd3():
    from diffusers import SD3Transformer2DModel

    model = SD3Transformer2DModel(
        sample_size=4, num_layers=52, attention_head_dim=8, num_attention_heads=1, joint_attention_dim=8, caption_projection_dim=8, pooled_projection_dim=8,
        pos_embed_max_size=4,
    )  # fmt: skip
    return model, {"hidden_states": r(1, 16, 4, 4), "encoder_hidden_states": r(1, 3, 8), "pooled_projections": r(1, 8), "timestep": torch.tensor([3.0])}


@pytest.mark.parametrize("make", [sdxl, flux, sd3])
def test_seven_hundred_sites(make):
    torch.manual_seed(0)
    model, inputs = make()
    model.eval().requires_grad_(False)
    found = discover_sites(model, "all")
    assert len(found.sites) >= 700
    adapter = SparseAdapter.create(model, found.sites, AdapterConfig(atoms=4, rank=2), found.component)

    def output():
        return model(**inputs, return_dict=False)[0]

    with torch.no_grad():
        base = output()
    optimiser = torch.optim.SGD(adapter.parameters(), 0.1)
    with adapter.attach(model) as attachment:
        session = TrainingSession(attachment)
        for step in range(2):
            session.begin(0.9)
            loss = (output() - base.roll(1)).square().mean()
            record = session.end_forward()
            assert len(record.density) == len(adapter.sites)
            loss.backward()
            if step == 0:
                reached = sum(bool(site.dictionary_basis.grad is not None and site.dictionary_basis.grad.any()) for site in adapter.sites.values())
                assert reached > 0.9 * len(adapter.sites)  # of a cross attention over few words some q hardly matter
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            session.commit()
        session.close()
        with torch.no_grad():
            full = output()
            attachment.strength = 0
            assert torch.equal(output(), base) and not torch.equal(full, base)
    labels = site_labels(adapter)
    assert len(set(labels.values())) == len(labels)
    some = {key: torch.arange(4) < 2 for key in list(adapter.sites)[::50]}
    masks = resolve(adapter, format_masks(adapter, some))
    assert all(torch.equal(masks[key], mask) for key, mask in some.items())


@torch.no_grad()
def test_a_call_costs_what_its_own_sites_cost():
    torch.manual_seed(0)
    model = nn.ModuleList(nn.Linear(6, 6) for _ in range(700)).requires_grad_(False)
    x = r(3, 6)

    def counted(sites):
        adapter = SparseAdapter.create(model, [SiteName(str(i), i) for i in range(sites)], AdapterConfig(atoms=4, rank=2)).requires_grad_(False)
        with adapter.attach(model) as attachment:
            with Operations() as first:
                model[0](x)
            with Operations() as change:
                attachment.strength = 0.5
            with Operations() as after:
                model[0](x)
        return first.counted, change.counted, after.counted

    assert counted(700) == counted(1)
