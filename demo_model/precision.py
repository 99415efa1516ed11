"""In which precision the embedded base is quick. Its weights and the steps' sums are fp32 in either."""

from __future__ import annotations

import torch


def bf16_pays(device: torch.device) -> bool:
    """Whether a step in bf16 is quicker than one in fp32. On a processor it is with AMX; with AVX-512's bf16 alone a step of this base takes
    half as long again, and emulated far longer (measured by us)."""
    return device.type == "cuda" or torch.cpu._is_amx_tile_supported()
