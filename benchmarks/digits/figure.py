"""The figure of E6: what each layer's atoms contribute, and an 8 that becomes a 3 as atoms are added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from ...sparsedict_core import load
from ...sparsedict_core.atomic_write import write_atomically
from .base import SIDE
from .measures import ENOUGH, FROM, TO, Digits, smaller

NOISES = (1, 2)
COLUMNS = 9
FAINTEST = 1e-3  # of the largest importance; below it all is one colour


def draw(digits: Digits, path: Path, results: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Write the PNG: importance by layer and atom, P(3) by the number of atoms, and pictures of one adapter."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.colors import LogNorm

    adapter = load(path)
    counts = [0, *spread(adapter.atom_count, COLUMNS - 1)]
    figure = plt.figure(figsize=(9, 6.2), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1.25, 1])
    left, right = top.subplots(1, 2, width_ratios=[1.7, 1])

    rows = torch.stack([site.importance.sort(descending=True).values for site in adapter.sites.values()])
    # By magnitude: a few atoms hold most of it, and on a plain scale the others would all look alike.
    image = left.imshow(rows / rows.max(), aspect="auto", cmap="magma", interpolation="nearest", norm=LogNorm(FAINTEST, 1, clip=True))
    left.set(title=f"What each atom adds for the prompt “{FROM}”", xlabel="atoms of a layer, by importance", ylabel="layer", yticks=range(len(rows)))
    top.colorbar(image, ax=left, label="importance, of the largest")

    for order, name in (("greedy", "greedy + refit"), ("importance", "importance")):
        curves = torch.tensor([[value for _, value in result["curves"][order]] for result in results])
        atoms = [count for count, _ in results[0]["curves"][order]]
        right.plot(atoms, curves.mean(0), label=name)
        right.fill_between(atoms, curves.amin(0), curves.amax(0), alpha=0.2)
    right.axhline(ENOUGH, color="grey", lw=0.8, ls=":")
    right.set(title=f"P({TO}) by atoms kept", xlabel="atoms, all layers", xscale="log", ylim=(0, 1))
    right.legend(loc="lower right", frameon=False)

    bottom.suptitle(f"The same noise, the prompt “{FROM}”: the base, then atoms added by importance", fontsize="large")
    axes = bottom.subplots(len(NOISES), len(counts))
    for column, count in enumerate(counts):
        noise = torch.cat([torch.randn(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)) for seed in NOISES])
        # The bare base where no atom is kept.
        with smaller(adapter, count, "importance").attach(digits.backend.denoiser):
            pictures = digits.backend.sample([str(FROM)] * len(NOISES), noise)
        axes[0, column].set_title("base" if count == 0 else f"{count}", fontsize="medium")
        for row, picture in enumerate(pictures):
            axes[row, column].imshow(picture[0], cmap="gray_r", vmin=-1, vmax=1)
            axes[row, column].set_axis_off()
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    plt.close(figure)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, buffer.getvalue())


def spread(total: int, count: int) -> list[int]:
    """`count` whole numbers from 1 to `total` in about equal ratios."""
    return sorted({max(1, round(total ** (i / (count - 1)))) for i in range(count)})
