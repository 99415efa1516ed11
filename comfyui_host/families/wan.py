"""Wan, all sizes and both tasks."""

from __future__ import annotations

from ...sparsedict_core.families import wan
from .base import HostFamily, by_table

TABLE = {
    r"blocks\.(\d+)\.self_attn\.o": r"blocks.\1.attn1.to_out.0",
    r"blocks\.(\d+)\.cross_attn\.o": r"blocks.\1.attn2.to_out.0",
}
CLASSES = (
    "WAN21", "WAN22", "WAN21_Vace", "WAN21_Camera", "WAN21_HuMo", "WAN22_Animate", "WAN22_S2V", "WAN21_CausalAR", "WAN_Animate2", "WAN21_FlowRVS",
    "WAN21_SCAIL", "WAN21_SCAIL2", "WAN22_WanDancer",
)  # fmt: skip
FAMILY = HostFamily(CLASSES, "Wan", "blocks.0.self_attn.o", lambda kind, modules, config: "wan", by_table(TABLE), wan.FAMILY)
