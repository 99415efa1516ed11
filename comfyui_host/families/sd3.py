"""SD3 and SD3.5, and the embedded demo model, which has SD3's layout; through the host's own key map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...sparsedict_core.families import sd3
from .base import HostFamily, from_key_map


def _names(modules: frozenset[str], config: Mapping[str, Any]) -> dict[str, str]:
    from comfy.utils import mmdit_to_diffusers

    return from_key_map(mmdit_to_diffusers(dict(config)), r"transformer_blocks\.\d+\.(attn2?\.to_out\.0|attn\.to_add_out)")


FAMILY = HostFamily(("SD3",), "SD3", "joint_blocks.0", lambda kind, modules, config: "sd3", _names, sd3.FAMILY)
