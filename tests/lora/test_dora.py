"""DoRA of peft's: exact where the base's weights are at hand, in a model or in a folder."""

from __future__ import annotations

import pytest
import tiny_pipelines
import torch
from lora.lora_files import write

from sparsedict.lora.base import Base, open_base
from sparsedict.lora.convert import lora_to_adapter
from sparsedict.lora.importing import BasePlaces, LoraImport
from sparsedict.lora.lora_file import LoraFile
from sparsedict.lora.names import Part
from sparsedict.sparsedict_core.errors import FileFormatError
from sparsedict.sparsedict_core.low_rank import linear_factors


def trained(model, folder):
    """A DoRA in `folder`, and by path what it adds to the weights."""
    from peft import LoraConfig, get_peft_model

    plain = {path: module.weight.detach().clone() for path, module in model.named_modules() if path.endswith("to_q")}
    tuned = get_peft_model(model, LoraConfig(r=2, lora_alpha=3, target_modules=["to_q"], use_dora=True, init_lora_weights=False))
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "magnitude" in name:
                parameter.mul_(1.3)
    tuned.save_pretrained(str(folder))
    merged = tuned.merge_and_unload()
    return {path: merged.get_submodule(path).weight.detach() - weight for path, weight in plain.items()}


def test_at_its_place(tmp_path):
    from diffusers import SD3Transformer2DModel

    torch.manual_seed(0)
    folder = tiny_pipelines.save_tiny("sd3", tmp_path / "base")
    added = trained(SD3Transformer2DModel.from_pretrained(str(folder / "transformer")), tmp_path / "dora")
    at_hand = Base.of(SD3Transformer2DModel.from_pretrained(str(folder / "transformer")))
    for base in (at_hand, open_base(folder)):  # the second holds shapes alone, and reads a weight where it needs one
        adapter, report = lora_to_adapter(tmp_path / "dora", base)
        assert list(report.kinds) == ["lora+dora"] and len(adapter.sites) == len(added)
        for site in adapter.sites.values():
            x = torch.randn(5, site.d_in)
            torch.testing.assert_close(site(x), x @ added[site.name.path.partition(".")[2]].T, rtol=1e-4, atol=1e-5)
    for file in (folder / "transformer").glob("*.safetensors"):
        file.unlink()
    with pytest.raises(FileFormatError, match="with its weights"):
        lora_to_adapter(tmp_path / "dora", open_base(folder))


@pytest.mark.parametrize("magnitude", [(1, 8), (18, 1)])
def test_of_fused_weights(magnitude, tmp_path):
    """kohya's on a fused q, k, v: the length is of a column of all three, whose weights are three of the base's, in another order."""
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(6, 8, generator=generator) for name in ("q", "k", "v")}
    down, up, lengths = torch.randn(2, 8, generator=generator), torch.randn(18, 2, generator=generator), torch.rand(magnitude, generator=generator) + 0.5
    file = LoraFile(write({"x.lora_down.weight": down, "x.lora_up.weight": up, "x.dora_scale": lengths}, tmp_path / "dora.safetensors"))
    rows = {"q": tuple(range(12, 18)), "k": tuple(range(6)), "v": tuple(range(6, 12))}
    places = BasePlaces("sd3", "transformer", dict.fromkeys(weights, (8, 6)), (), weights.get)
    adapter = LoraImport(file, [Part("x", path, rows[path]) for path in weights], places).adapter("dora")
    fused = torch.cat([weights["k"], weights["v"], weights["q"]])
    whole = fused + up @ down
    change = whole / whole.norm(dim=0 if magnitude[0] == 1 else 1, keepdim=True) * lengths - fused
    for path, own in rows.items():
        site_down, site_up = linear_factors(adapter.sites[f"transformer.{path}"])
        torch.testing.assert_close((site_up @ site_down).float(), change[list(own)], rtol=1e-4, atol=1e-5)
