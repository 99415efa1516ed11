"""LoCon, LoHa, LoKr, full changes and DoRA, as their own trainers save them."""

from __future__ import annotations

import pytest
import torch
from lora.lora_files import kohya_style, write
from torch import nn
from torch.nn import functional as F

from sparsedict.lora.lora_file import LoraFile
from sparsedict.lora.updates import factors
from sparsedict.sparsedict_core.errors import FileFormatError

lycoris = pytest.importorskip("lycoris")


class Net(nn.Module):
    """Linears and convolutions under names like a model's."""

    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(24, 40, bias=False)
        self.wide = nn.Linear(16, 8, bias=False)
        self.conv = nn.Conv2d(8, 12, 3, padding=1, bias=False)
        self.point = nn.Conv2d(8, 16, 1, bias=False)


INPUTS = {"proj": (5, 24), "wide": (5, 16), "conv": (2, 8, 6, 6), "point": (2, 8, 6, 6)}


def saved(algo, tmp_path, **options):
    """A file that LyCORIS writes for `Net` after every weight was given a value; the base's weights; by module, inputs and what is added.

    What is added is seen with LyCORIS at work: version 4.1.3 merges LoHa and LoKr at another scale than it applies them.
    """
    torch.manual_seed(3)
    base = Net().requires_grad_(False)
    before = {name: module.weight.clone() for name, module in base.named_children()}
    inputs = {name: torch.randn(shape) for name, shape in INPUTS.items()}
    plain = {name: getattr(base, name)(x) for name, x in inputs.items()}
    lycoris.LycorisNetwork.apply_preset({"target_module": ["Net"], "enable_conv": True})
    network = lycoris.create_lycoris(base, 1.0, linear_dim=3, linear_alpha=2.0, conv_dim=3, conv_alpha=1.0, algo=algo, **options)
    network.apply_to()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if not name.endswith("dora_scale"):
                parameter.copy_(0.3 * torch.randn(parameter.shape))
        added = {name: getattr(base, name)(x) - plain[name] for name, x in inputs.items()}
    path = tmp_path / f"{algo}.safetensors"
    network.save_weights(str(path), torch.float32, {})
    return path, before, {name: (inputs[name], added[name]) for name in added}


def applied(change, weight, x):
    """What a change of weights (d_out, d_in) adds to the output of a Linear or a convolution."""
    change = change.float().reshape(weight.shape)
    return F.linear(x, change) if weight.ndim == 2 else F.conv2d(x, change, padding=weight.shape[-1] // 2)


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
    for key, module in file.modules.items():
        name = key.removeprefix("lycoris_")
        down, up, lost = factors(file, module, 64, base[name])
        x, added = wanted[name]
        torch.testing.assert_close(applied(up @ down, base[name], x), added, rtol=1e-3, atol=1e-4)
        assert lost < 1e-5


def test_error_of_few_directions(tmp_path):
    """A LoHa of full rank, cut: the error is the one that is stated."""
    file = LoraFile(saved("loha", tmp_path)[0])
    module = file.modules["lycoris_proj"]
    whole, few = factors(file, module, 64), factors(file, module, 4)
    change = whole.up @ whole.down
    assert few.down.shape[0] == 4 and few.lost > 0.01
    assert few.lost == pytest.approx(float((few.up @ few.down - change).norm() / change.norm()), rel=1e-3)


def test_dora_needs_the_base(tmp_path):
    path, _, _ = saved("locon", tmp_path, dora_wd=True)
    file = LoraFile(path)
    with pytest.raises(FileFormatError, match="with its weights"):
        factors(file, file.modules["lycoris_proj"], 64)


def test_two_halves_of_a_kind(tmp_path):
    tensors = {"lora_unet_x.hada_w1_a": torch.ones(4, 2), "lora_unet_x.hada_w1_b": torch.ones(2, 4)}
    with pytest.raises(FileFormatError, match="hada_w2_a"):
        LoraFile(write(tensors, tmp_path / "half.safetensors"))
    pair = {"a": (torch.ones(2, 4), torch.ones(6, 3))}
    with pytest.raises(FileFormatError, match="do not multiply"):
        LoraFile(write(kohya_style(pair), tmp_path / "ranks.safetensors"))
