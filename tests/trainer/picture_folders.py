"""Pictures in a folder, and what is told of them before a training."""

from __future__ import annotations

from PIL import Image

from sparsedict.trainer.data_summary import summary


def picture(path, size=(8, 8), colour=None, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = colour if colour is not None else tuple(sum(map(ord, path.name)) * factor % 256 for factor in (1, 3, 7))  # one of its own for each name
    Image.new(mode, size, colour).save(path)
    return path


def told(data, buckets=(), **given) -> str:
    return "\n".join(summary(data, buckets, **given))
