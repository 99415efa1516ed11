"""Every encoder on the embedded base, for docs/method.md: `python -m sparsedict.benchmarks.world.encoders`. A few minutes a line."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from ...sparsedict_core.encoders import encoder_names
from ..formatting import table
from ..runs import Run
from .personalisation import measure
from .plans import SEARCH_CONCEPTS
from .training import World

DENSE = {"encoder": "soft", "rank": None, "atoms": 16}  # the paper's plain reading; as many atoms as a LoRA's rank


def main() -> None:
    torch.set_num_threads(1)
    settings = {**{name: {"encoder": name} for name in encoder_names()}, "soft, dense": DENSE}
    with tempfile.TemporaryDirectory() as cache:
        world, rows = World(Path(cache)), []
        for concept in SEARCH_CONCEPTS:
            for name, chosen in settings.items():
                found = measure(Run("ours", concept, 0, split="search", settings=chosen), world)
                rows.append([concept, name, f"{found['concept_fidelity']:.3f}", f"{found['drift']:.3f}", f"{found['parameters']:,}"])
                print(table(["concept", "encoder", "fidelity", "drift", "parameters"], rows[-1:]), flush=True)


if __name__ == "__main__":
    main()
