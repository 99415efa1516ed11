"""Wan, all sizes and both tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...sparsedict_core.families import wan
from .base import HostFamily, renamed

TABLE = {
    r"blocks\.(\d+)\.self_attn\.o": r"blocks.\1.attn1.to_out.0",
    r"blocks\.(\d+)\.cross_attn\.o": r"blocks.\1.attn2.to_out.0",
}


def _names(modules: frozenset[str], config: Mapping[str, Any]) -> dict[str, str]:
    return renamed(modules, TABLE)


FAMILY = HostFamily("blocks.0.self_attn.o", lambda modules, config: "wan", _names, wan.FAMILY)
