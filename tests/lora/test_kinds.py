"""LoCon, LoHa, LoKr, full changes and DoRA: each by the sum that its trainer states, and as LyCORIS saves it where that is installed."""

from __future__ import annotations

import pytest
import torch
from lora.lora_files import kohya_style, write
from torch import nn
from torch.nn import functional as F

from sparsedict.lora.lora_file import LoraFile
from sparsedict.lora.updates import factors
from sparsedict.sparsedict_core.errors import FileFormatError


def numbers(**shapes):
    """Tensors by name, float64."""
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


#: kind → (the parts' shapes, the change over alpha / rank by indices: o out, i in, h and w the patch, other letters inner; a Kronecker product's halves are o p and i j)
SUMS = {
    "locon": ({"lora_up.weight": (12, 3), "lora_down.weight": (3, 8)}, "oa,ai->oi"),
    "locon of a convolution": ({"lora_up.weight": (12, 3, 1, 1), "lora_down.weight": (3, 8, 3, 3)}, "oaxy,aihw->oihw"),
    "locon, tucker": ({"lora_up.weight": (12, 3, 1, 1), "lora_mid.weight": (3, 3, 3, 3), "lora_down.weight": (3, 8, 1, 1)}, "oaxy,abhw,bixy->oihw"),
    "loha": ({"hada_w1_a": (12, 3), "hada_w1_b": (3, 8), "hada_w2_a": (12, 3), "hada_w2_b": (3, 8)}, "oa,ai,ob,bi->oi"),
    "loha, tucker": (
        {"hada_t1": (3, 3, 3, 3), "hada_w1_a": (3, 12), "hada_w1_b": (3, 8), "hada_t2": (3, 3, 3, 3), "hada_w2_a": (3, 12), "hada_w2_b": (3, 8)},
        "abhw,ao,bi,cdhw,co,di->oihw",
    ),
    "lokr": ({"lokr_w1": (4, 2), "lokr_w2_a": (3, 3), "lokr_w2_b": (3, 4)}, "oi,pa,aj->opij"),
    "lokr, both split": ({"lokr_w1_a": (4, 3), "lokr_w1_b": (3, 2), "lokr_w2_a": (3, 3), "lokr_w2_b": (3, 4)}, "ob,bi,pa,aj->opij"),
    "lokr, tucker": ({"lokr_w1": (4, 2), "lokr_t2": (3, 3, 3, 3), "lokr_w2_a": (3, 3), "lokr_w2_b": (3, 4)}, "oi,abhw,ap,bj->opijhw"),
    "lokr, both whole": ({"lokr_w1": (4, 2), "lokr_w2": (3, 4, 3, 3)}, "oi,pjhw->opijhw"),
    "full": ({"diff": (12, 8, 3, 3)}, "oihw->oihw"),
}  # fmt: skip
ALPHA = 1.5


def stated(kind):
    """The tensors of a module "x" of this kind, and its change ΔW (12, 8, …); the rank of all is 3."""
    shapes, indices = SUMS[kind]
    parts = numbers(**shapes)
    change = torch.einsum(indices, *parts.values())
    if "j" in indices:
        change = change.reshape(12, 8, *change.shape[4:])
    unscaled = kind in ("full", "lokr, both whole")
    return {f"x.{part}": tensor for part, tensor in parts.items()} | {"x.alpha": torch.tensor(ALPHA)}, change * (1 if unscaled else ALPHA / 3)


def read(tensors, tmp_path, weight=None):
    file = LoraFile(write(tensors, tmp_path / "x.safetensors"))
    down, up, lost = factors(file, file.modules["x"], 64, weight)
    assert lost < 1e-6
    return up @ down


@pytest.mark.parametrize("kind", SUMS)
def test_change_is_the_stated_sum(kind, tmp_path):
    tensors, change = stated(kind)
    torch.testing.assert_close(read(tensors, tmp_path), change.flatten(1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", SUMS)
@pytest.mark.parametrize("magnitude", ["of columns", "of rows", "peft's"])
def test_dora_of_each_kind(kind, magnitude, tmp_path):
    """W + ΔW with every column, or every row, of the length that the magnitude says."""
    tensors, change = stated(kind)
    base = numbers(weight=tuple(change.shape))["weight"]
    axis, key = (1, "dora_scale") if magnitude == "of columns" else (0, "dora_scale" if magnitude == "of rows" else "lora_magnitude_vector")
    shape = [1] * change.ndim
    # peft has a convolution's rows on the second axis.
    shape[1 if magnitude == "peft's" and change.ndim > 2 else axis] = change.shape[axis]
    lengths = numbers(m=(change.shape[axis],))["m"].abs() + 0.5
    found = base + read(tensors | {f"x.{key}": lengths.reshape(shape) if magnitude != "peft's" or change.ndim > 2 else lengths}, tmp_path, base).reshape(base.shape)
    torch.testing.assert_close(found.transpose(0, axis).flatten(1).norm(dim=1), lengths)
    whole = base + change
    torch.testing.assert_close(found, whole * (lengths / whole.transpose(0, axis).flatten(1).norm(dim=1)).reshape([-1 if n == axis else 1 for n in range(change.ndim)]))


def test_alpha_of_two_whole_sides_says_nothing(tmp_path):
    """LyCORIS writes the rank "without end" there, which is infinite in fp16."""
    tensors, change = stated("lokr, both whole")
    found = read(tensors | {"x.alpha": torch.tensor(float("inf"), dtype=torch.float16)}, tmp_path)
    torch.testing.assert_close(found, change.flatten(1))


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
    lycoris = pytest.importorskip("lycoris")
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
    """A LoHa of more directions than are kept: the error is the one that is stated."""
    tensors, change = stated("loha")
    file = LoraFile(write(tensors, tmp_path / "x.safetensors"))
    few = factors(file, file.modules["x"], 4)
    assert few.down.shape[0] == 4 and few.lost > 0.01
    assert few.lost == pytest.approx(float((few.up @ few.down - change).norm() / change.norm()), rel=1e-3)


def test_dora_needs_the_base(tmp_path):
    tensors, _ = stated("locon")
    with pytest.raises(FileFormatError, match="with its weights"):
        read(tensors | {"x.dora_scale": torch.ones(1, 8)}, tmp_path)


def test_two_halves_of_a_kind(tmp_path):
    tensors = {"lora_unet_x.hada_w1_a": torch.ones(4, 2), "lora_unet_x.hada_w1_b": torch.ones(2, 4)}
    with pytest.raises(FileFormatError, match="hada_w2_a"):
        LoraFile(write(tensors, tmp_path / "half.safetensors"))
    pair = {"a": (torch.ones(2, 4), torch.ones(6, 3))}
    with pytest.raises(FileFormatError, match="do not multiply"):
        LoraFile(write(kohya_style(pair), tmp_path / "ranks.safetensors"))
