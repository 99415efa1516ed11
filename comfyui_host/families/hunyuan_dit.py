"""HunyuanDiT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...sparsedict_core.families import hunyuan_dit
from .base import HostFamily, renamed

TABLE = {
    r"blocks\.(\d+)\.(attn[12])\.out_proj": r"blocks.\1.\2.to_out.0",
}


def _names(modules: frozenset[str], config: Mapping[str, Any]) -> dict[str, str]:
    return renamed(modules, TABLE)


FAMILY = HostFamily(("HunyuanDiT",), "HunyuanDiT", "blocks.0.attn1.out_proj", lambda kind, modules, config: "hunyuan_dit", _names, hunyuan_dit.FAMILY)
