"""What a report says of where it was made."""

from __future__ import annotations

import contextlib
import os
import platform
from importlib import metadata
from typing import Any

import torch


def machine() -> dict[str, Any]:
    """Cores and threads, and the versions of what a result depends on."""
    versions = {}
    for name in ("sparsedict", "peft", "diffusers"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {"cores": os.cpu_count(), "torch": torch.__version__, "threads": torch.get_num_threads(), "versions": versions}


def peak_memory_bytes() -> int:
    """The most memory that this process has held so far."""
    if os.name == "nt":
        import psutil  # comes with accelerate

        return psutil.Process().memory_info().peak_wset
    import resource

    # Kibibytes, but bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)
