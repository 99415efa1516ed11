"""HunyuanDiT."""

from __future__ import annotations

from ...sparsedict_core.families import hunyuan_dit
from .base import HostFamily, by_table

TABLE = {
    r"blocks\.(\d+)\.(attn[12])\.out_proj": r"blocks.\1.\2.to_out.0",
}
FAMILY = HostFamily(("HunyuanDiT",), "HunyuanDiT", "blocks.0.attn1.out_proj", lambda kind, modules, config: "hunyuan_dit", by_table(TABLE), hunyuan_dit.FAMILY)
