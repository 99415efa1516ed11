"""Small module trees with the names that the web UIs' models have, and adapters for them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from sparsedict.sparsedict_core.adapter import SparseAdapter
from sparsedict.sparsedict_core.config import AdapterConfig
from sparsedict.sparsedict_core.file_format import save
from sparsedict.sparsedict_core.site import SiteName, SparseSite

WIDTH = 8


class HostLinear(nn.Module):
    """As Forge's: a plain module, no `nn.Linear`."""

    def __init__(self, d_in: int = WIDTH, d_out: int = WIDTH) -> None:
        super().__init__()
        self.in_features, self.out_features = d_in, d_out
        self.weight = nn.Parameter(torch.randn(d_out, d_in) / d_in**0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.weight)


class Tree(nn.Module):
    """Modules at dotted names; a call runs every Linear that takes and gives WIDTH channels, in order."""

    def __init__(self, names: list[str], linear: type[nn.Module] = nn.Linear, widths: dict[str, int] | None = None) -> None:
        super().__init__()
        self.linears: list[str] = []
        for name in names:
            if name.endswith("/"):
                self._add(name[:-1], nn.Identity())
            else:
                self._add(name, linear(WIDTH, (widths or {}).get(name, WIDTH)))
                self.linears.append(name)

    def _add(self, name: str, module: nn.Module) -> None:
        inner: nn.Module = self
        *parents, last = name.split(".")
        for part in parents:
            if part not in inner._modules:
                inner.add_module(part, nn.Module())
            inner = inner._modules[part]
        inner.add_module(last, module)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for name in self.linears:
            module = self.get_submodule(name)
            if module.out_features == WIDTH:
                x = x + torch.tanh(module(x))
        return x


def unet(linear: type[nn.Module] = nn.Linear, sdxl: bool = False) -> Tree:
    """Two levels with attention, as ldm names them: a res block, an attention, a sampler."""
    names = ["label_emb/"] if sdxl else []
    for at in ("input_blocks.1", "input_blocks.3", "output_blocks.0", "output_blocks.1", "output_blocks.2", "output_blocks.3", "middle_block"):
        names += [f"{at}.0.in_layers/", *(f"{at}.1.transformer_blocks.0.{a}.{m}" for a in ("attn1", "attn2") for m in ("to_q", "to_out.0"))]
    names += ["input_blocks.0/", "input_blocks.2.0.op/", "output_blocks.1.2.conv/", "middle_block.2.in_layers/"]
    return Tree(names, linear)


def flux(linear: type[nn.Module] = nn.Linear) -> Tree:
    names = ["img_in", "double_blocks.0.img_attn.qkv", "double_blocks.0.img_attn.proj", "double_blocks.0.txt_attn.proj", "single_blocks.0.linear1", "single_blocks.0.linear2"]
    return Tree(names, linear, {"double_blocks.0.img_attn.qkv": 3 * WIDTH, "single_blocks.0.linear1": 7 * WIDTH})


def sd3(linear: type[nn.Module] = nn.Linear) -> Tree:
    names = ["joint_blocks.0.x_block.attn.qkv", "joint_blocks.0.x_block.attn.proj", "joint_blocks.0.context_block.attn.proj"]
    return Tree(names, linear, {"joint_blocks.0.x_block.attn.qkv": 3 * WIDTH})


def adapter(paths: list[str], family: str = "sd15", widths: dict[str, int] | None = None) -> SparseAdapter:
    """A dictionary that really does something at each path."""
    config, generator = AdapterConfig(atoms=6, rank=2), torch.Generator().manual_seed(1)
    sites = []
    for layer, path in enumerate(paths):
        site = SparseSite.create(SiteName(path, layer), WIDTH, (widths or {}).get(path, WIDTH), config, generator)
        site.dictionary_basis.data.normal_(generator=generator)
        site.importance = torch.rand(6, generator=generator)
        sites.append(site)
    return SparseAdapter(sites, config, paths[0].split(".")[0], {"base_family": family, "trigger_words": ["zorp"]}).requires_grad_(False)


UNET_PATHS = [
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0",
    "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0",
    "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0",
    "unet.up_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0",
    "unet.up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_q",
]


def write(folder: Path, name: str = "zorp", **options) -> Path:
    """A file in the web UI's folder."""
    path = folder / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save(adapter(options.pop("paths", UNET_PATHS), **options), path, dtype=torch.float32)
    return path
