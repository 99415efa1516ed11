"""What a report says of the machine that it was made on."""

from __future__ import annotations

import os
import platform
from typing import Any

import torch


def machine() -> dict[str, Any]:
    """Cores, threads and torch's version."""
    return {"cores": os.cpu_count(), "torch": torch.__version__, "threads": torch.get_num_threads()}


def peak_memory_bytes() -> int:
    """The most memory that this process has held so far."""
    if os.name == "nt":
        import psutil  # comes with accelerate

        return psutil.Process().memory_info().peak_wset
    import resource

    # Kibibytes, but bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)
