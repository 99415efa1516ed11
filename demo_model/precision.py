"""In which precision the embedded base is quick. Its weights and the sums of sampling are fp32 in either."""

from __future__ import annotations

import torch


def bf16_pays(device: torch.device) -> bool:
    """Whether a step in bf16 is quicker than one in fp32. On a processor it is with AMX; with AVX-512's bf16 alone a step of this
    base takes half as long again, and emulated far longer (measured by us)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())  # older releases of PyTorch don't tell
