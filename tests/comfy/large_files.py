"""Files with the sites of large models, and hardly any weights."""

from __future__ import annotations

from pathlib import Path

import torch

from sparsedict.sparsedict_core.adapter import SparseAdapter
from sparsedict.sparsedict_core.config import AdapterConfig
from sparsedict.sparsedict_core.file_format import save
from sparsedict.sparsedict_core.site import SiteName, SparseSite

#: Stack, its attentions, and the transformer blocks in each.
SDXL = [("down_blocks.1", 2, 2), ("down_blocks.2", 2, 10), ("mid_block", 1, 10), ("up_blocks.0", 3, 10), ("up_blocks.1", 3, 2)]


def sdxl_like(path: Path, atoms: int = 128) -> None:
    """140 sites under the names that SDXL's have."""
    generator, config, sites = torch.Generator().manual_seed(0), AdapterConfig(atoms=atoms, rank=4), []
    blocks = [f"{stack}.attentions.{a}.transformer_blocks.{b}" for stack, attentions, depth in SDXL for a in range(attentions) for b in range(depth)]
    for layer, block in enumerate(blocks):
        for number, stream in enumerate(("self", "cross"), 1):
            site = SparseSite.create(SiteName(f"unet.{block}.attn{number}.to_out.0", layer, stream), 8, 8, config, generator)
            site.importance = torch.rand(atoms, generator=generator).pow(6) * (1 + 3 * torch.rand((), generator=generator)) + 1e-4
            sites.append(site)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(SparseAdapter(sites, config, "unet", {"title": "a large one", "base_family": "sdxl"}), path, overwrite=True)
