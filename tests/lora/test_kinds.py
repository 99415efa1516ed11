"""LoCon, LoHa, LoKr, full changes and DoRA, as their own trainers save them."""

from __future__ import annotations

import pytest
import torch
from core.tiny_denoisers import DENOISERS
from lora.lora_files import kohya_style, write
from torch import nn

from sparsedict.lora.base import Base
from sparsedict.lora.convert import lora_to_adapter
from sparsedict.lora.lora_file import LoraFile
from sparsedict.lora.updates import factors
from sparsedict.sparsedict_core.errors import FileFormatError

lycoris = pytest.importorskip("lycoris")


class Net(nn.Module):
    """Linears and convolutions under names like a model's."""

    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(24, 40)
        self.wide = nn.Linear(16, 8, bias=False)
        self.conv = nn.Conv2d(8, 12, 3, padding=1)
        self.point = nn.Conv2d(8, 16, 1)


def saved(algo, tmp_path, **options):
    """A file that LyCORIS writes for `Net` after every weight was given a value, the base, and LyCORIS' own ΔW by module."""
    torch.manual_seed(3)
    base = Net()
    before = {name: module.weight.detach().clone() for name, module in base.named_children()}
    lycoris.LycorisNetwork.apply_preset({"target_module": ["Net"], "enable_conv": True})
    network = lycoris.create_lycoris(base, 1.0, linear_dim=3, linear_alpha=2.0, conv_dim=3, conv_alpha=1.0, algo=algo, **options)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if not name.endswith("dora_scale"):
                parameter.copy_(0.3 * torch.randn(parameter.shape))
    path = tmp_path / f"{algo}.safetensors"
    network.save_weights(str(path), torch.float32, {})
    network.merge_to(1.0)
    return path, before, {name: (module.weight.detach() - before[name]).flatten(1).double() for name, module in base.named_children()}


@pytest.mark.parametrize(
    "algo, options",
    [
        ("locon", {}), ("locon", {"use_tucker": True}), ("loha", {}), ("loha", {"use_tucker": True}), ("lokr", {"factor": 4}), ("lokr", {"factor": 2, "use_tucker": True}),
        ("lokr", {"factor": 4, "decompose_both": True}), ("full", {}), ("locon", {"dora_wd": True}), ("lokr", {"factor": 4, "dora_wd": True}),
        ("locon", {"dora_wd": True, "wd_on_output": True}),
    ],
)  # fmt: skip
def test_what_lycoris_saves(algo, options, tmp_path):
    path, base, wanted = saved(algo, tmp_path, **options)
    file = LoraFile(path)
    assert len(file.modules) == 4 and not file.others
    for name, module in file.modules.items():
        change = wanted[name.removeprefix("lycoris_")]
        down, up, lost = factors(file, module, 64, base[name.removeprefix("lycoris_")])
        torch.testing.assert_close(up @ down, change, rtol=1e-4, atol=1e-5)
        assert lost < 1e-5


def test_error_of_few_directions(tmp_path):
    """A LoHa of full rank, cut: the error is the one that is stated."""
    path, _, wanted = saved("loha", tmp_path)
    file = LoraFile(path)
    down, up, lost = factors(file, file.modules["lycoris_proj"], 4)
    change = wanted["proj"]
    assert down.shape[0] == 4 and lost > 0.01
    assert lost == pytest.approx(float((up @ down - change).norm() / change.norm()), rel=1e-3)


def test_dora_needs_the_base(tmp_path):
    path, _, _ = saved("locon", tmp_path, dora_wd=True)
    file = LoraFile(path)
    with pytest.raises(FileFormatError, match="base's weights"):
        factors(file, file.modules["lycoris_proj"], 64)


def test_dora_of_peft_at_its_place(tmp_path):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model = DENOISERS["sd3"][0]()[0]
    plain = {path: module.weight.detach().clone() for path, module in model.named_modules() if path.endswith("to_q")}
    tuned = get_peft_model(model, LoraConfig(r=2, lora_alpha=3, target_modules=["to_q"], use_dora=True, init_lora_weights=False))
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "magnitude" in name:
                parameter.mul_(1.3)
    tuned.save_pretrained(str(tmp_path))
    tuned = tuned.merge_and_unload()
    base = DENOISERS["sd3"][0]()[0]
    for path, weight in plain.items():
        base.get_submodule(path).weight.data.copy_(weight)
    adapter, report = lora_to_adapter(tmp_path, Base.of(base))
    assert list(report.kinds) == ["lora+dora"]
    for site in adapter.sites.values():
        path = site.name.path.partition(".")[2]
        x = torch.randn(5, site.d_in)
        torch.testing.assert_close(site(x), x @ (tuned.get_submodule(path).weight - plain[path]).T, rtol=1e-4, atol=1e-5)


def test_two_halves_of_a_kind(tmp_path):
    tensors = {"lora_unet_x.hada_w1_a": torch.ones(4, 2), "lora_unet_x.hada_w1_b": torch.ones(2, 4)}
    with pytest.raises(FileFormatError, match="hada_w2_a"):
        LoraFile(write(tensors, tmp_path / "half.safetensors"))
    pair = {"a": (torch.ones(2, 4), torch.ones(6, 3))}
    with pytest.raises(FileFormatError, match="do not multiply"):
        LoraFile(write(kohya_style(pair), tmp_path / "ranks.safetensors"))
