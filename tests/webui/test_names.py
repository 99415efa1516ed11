"""Diffusers' names lead to the web UIs' modules, whatever the class of their Linears."""

import pytest
import torch
from webui.models import UNET_PATHS, WIDTH, HostLinear, adapter, flux, sd3, unet

from sparsedict.sparsedict_core.attachment import Attachment
from sparsedict.sparsedict_core.errors import SiteError
from sparsedict.webui_host.names import layout_of, places_for


def named(model, place):
    return next(name for name, module in model.named_modules() if module is place.module)


@pytest.mark.parametrize("linear", [torch.nn.Linear, HostLinear])
def test_the_unets_blocks_are_counted_as_diffusers_counts_them(linear):
    model = unet(linear)
    places = places_for(adapter(UNET_PATHS), model)
    assert [named(model, places[path]) for path in UNET_PATHS] == [
        "input_blocks.1.1.transformer_blocks.0.attn1.to_out.0",
        "input_blocks.3.1.transformer_blocks.0.attn2.to_out.0",
        "middle_block.1.transformer_blocks.0.attn1.to_out.0",
        "output_blocks.1.1.transformer_blocks.0.attn1.to_out.0",
        "output_blocks.2.1.transformer_blocks.0.attn2.to_q",
    ]


@pytest.mark.parametrize(
    ("make", "family", "wanted"),
    [
        (flux, "flux", {"transformer_blocks.0.attn.to_out.0": ("double_blocks.0.img_attn.proj", None), "single_transformer_blocks.0.proj_out": ("single_blocks.0.linear2", None),
                        "transformer_blocks.0.attn.to_k": ("double_blocks.0.img_attn.qkv", (WIDTH, 2 * WIDTH)),
                        "single_transformer_blocks.0.proj_mlp": ("single_blocks.0.linear1", (3 * WIDTH, 7 * WIDTH))}),
        (sd3, "sd3", {"transformer_blocks.0.attn.to_out.0": ("joint_blocks.0.x_block.attn.proj", None), "transformer_blocks.0.attn.to_add_out": ("joint_blocks.0.context_block.attn.proj", None),
                      "transformer_blocks.0.attn.to_v": ("joint_blocks.0.x_block.attn.qkv", (2 * WIDTH, 3 * WIDTH))}),
    ],
)  # fmt: skip
def test_transformers_fuse_what_diffusers_keeps_apart(make, family, wanted):
    model = make(HostLinear)
    assert layout_of(model).family == family and {path: layout_of(model).rename(path) for path in wanted} == wanted
    paths = [f"transformer.{path}" for path in wanted]
    widths = {f"transformer.{path}": rows[1] - rows[0] for path, (_, rows) in wanted.items() if rows}
    made = adapter(paths, family, widths)
    x = torch.randn(2, 3, WIDTH)
    with torch.no_grad():
        before = model(x)
        with Attachment(made, places_for(made, model)):
            assert not torch.equal(model(x), before)
        assert torch.equal(model(x), before)


def test_what_does_not_fit_is_one_sentence():
    with pytest.raises(SiteError, match="made for flux and this model is sd15"):
        places_for(adapter(UNET_PATHS, "flux"), unet())
    with pytest.raises(SiteError, match="1 of 1 sites are not in the model"):
        places_for(adapter(["unet.down_blocks.7.attentions.0.transformer_blocks.0.attn1.to_out.0"]), unet())
    with pytest.raises(SiteError, match="8 channels to 8"):
        places_for(adapter(UNET_PATHS[:1], widths={UNET_PATHS[0]: 12}), unet())
    with pytest.raises(SiteError, match="no sites are known"):
        layout_of(torch.nn.Sequential(torch.nn.Linear(2, 2)))
    assert layout_of(unet(sdxl=True)).family == "sdxl"
