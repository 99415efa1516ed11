"""Validation previews: the same noise each time, beside the base's pictures of it; and the files that show them."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..sparsedict_core.atomic_write import write_atomically
from ..sparsedict_core.attachment import Attachment
from ..sparsedict_core.errors import TrainingError, first_line
from .backends.base import Backend, StepCallback
from .callbacks import Interrupted
from .config import TrainConfig
from .memory import is_out_of_memory
from .stopping import interruptions

if TYPE_CHECKING:
    from PIL.Image import Image


@torch.no_grad()
def check_prompts(config: TrainConfig, backend: Backend) -> None:
    """Raises TrainingError for a preview prompt that the base's text encoder refuses, before anything is trained."""
    for prompt in config.preview_prompts:
        try:
            backend.encode_captions([prompt])
        except interruptions(backend):
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise TrainingError(f"the preview prompt {prompt!r} cannot be used: {first_line(error)}; change it or leave it out.") from error


class Previews:
    """Holds the fixed noise and the base's pictures, made at the first preview."""

    def __init__(self, config: TrainConfig, backend: Backend, size: tuple[int, int]) -> None:
        self.prompts = list(config.preview_prompts)
        self.backend, self.at_once = backend, config.rows
        generator = torch.Generator().manual_seed(config.seed + 31)
        self.noise = torch.randn(max(1, len(self.prompts)), backend.latent_channels, *size, generator=generator)
        self.base: Tensor | None = None

    @torch.no_grad()
    def make(self, attachment: Attachment, should_stop: Callable[[], bool] = lambda: False) -> tuple[Tensor, Tensor]:
        """(images, base images), each (prompts, 3, H, W) in [-1, 1] on the CPU. Raises Interrupted when told to stop."""

        def ask(step: int, steps: int) -> None:
            if should_stop():
                raise Interrupted

        if self.base is None:
            attachment.enabled = False
            try:
                self.base = self._sample(ask)
            finally:
                attachment.enabled = True
        return self._sample(ask), self.base

    def _sample(self, callback: StepCallback) -> Tensor:
        noise, pictures = self.noise.to(self.backend.device, self.backend.dtype), []
        for first in range(0, len(self.prompts), self.at_once):
            rows = slice(first, first + self.at_once)
            latents = self.backend.sample(self.prompts[rows], noise[rows], callback=callback)
            # One by one: a decoder of large pictures needs more for each than the denoiser does.
            pictures += [self.backend.decode(latent[None]).float().cpu() for latent in latents]
        return torch.cat(pictures)


def folder_of(out: Path) -> Path:
    """Where the previews of a run with this out are."""
    return out.with_name(out.name.removesuffix(".safetensors") + ".previews")


def sheet(above: Tensor, below: Tensor) -> Image:
    """Two rows of pictures, (n, 3, H, W) each in [-1, 1], as one."""
    from ..pictures import to_image

    return to_image(torch.cat([torch.cat(list(row.float().cpu()), dim=2) for row in (above, below)], dim=1))


def save_sheet(folder: Path, step: int, prompts: list[str], images: Tensor, base_images: Tensor) -> Path:
    """The base's pictures above the adapter's, (n, 3, H, W) each in [-1, 1], with the prompts in the PNG; those of later steps go.

    Raises FileFormatError where it cannot be written.
    """
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_itxt("sparsedict.prompts", "\n".join(prompts))
    data = io.BytesIO()
    sheet(base_images, images).save(data, "PNG", pnginfo=text)
    path = folder / f"step-{step:06d}.png"
    write_atomically(path, data.getvalue())
    for other in folder.glob("step-*.png"):
        number = other.stem.removeprefix("step-")
        if number.isdecimal() and int(number) > step:  # of a run that this one overwrites
            with contextlib.suppress(OSError):
                other.unlink()
    return path
