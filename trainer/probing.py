"""Which atoms a prompt sets off in a backend's model, and where in the picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..sparsedict_core.attachment import Attachment
from ..sparsedict_core.fired import FiredAtom, fired_atoms
from ..sparsedict_core.importance import ImportanceStats
from ..sparsedict_core.site import SparseSite
from ..sparsedict_core.token_grid import has_places
from .backends.base import Backend


def probed(
    backend: Backend, attachment: Attachment, prompt: str, noise: Tensor, seed: int, levels: int, steps: int | None, guidance: float | None,
    mapped: int,
) -> tuple[Tensor, Sequence[FiredAtom]]:
    """The picture (3, h, w) in [-1, 1], and all atoms that fired, most strongly first, the first `mapped` with their maps (h, w).

    The picture is made from noise (1, c, h, w), noised again to `levels` levels and shown to the model with the prompt. An atom of a text
    stream acts on words, not on places, and has no map.
    """
    adapter, latent_size = attachment.adapter, (noise.shape[-2], noise.shape[-1])
    maps: dict[str, Tensor] = {}

    def gather(key: str, site: SparseSite, x: Tensor, coefficients: Tensor, update: Tensor, output: Tensor) -> None:
        if site.atoms == 0:
            return
        strengths = coefficients.detach().float().abs().reshape(-1, coefficients.shape[-1])
        maps[key] = maps[key] + strengths if key in maps else strengths

    with torch.inference_mode():
        latents = backend.sample([prompt], noise, steps, guidance)
        picture = backend.decode(latents)[0]
        conditioning = backend.encode_captions([prompt])
        generator = torch.Generator().manual_seed(seed)
        stats = ImportanceStats()
        # Only now: sampling with guidance also runs the empty prompt, whose atoms are not the question.
        with stats.collect(attachment), attachment.tap(gather):
            for level in sorted(backend.sample_noise_levels(levels, generator, latent_size).tolist()):
                level_row = torch.tensor([level], device=noise.device)
                backend.predict(backend.add_noise(latents, noise, level_row), level_row, conditioning)
    places = {key: total / levels for key, total in maps.items() if has_places(adapter.sites[key].name.stream)}
    return picture, fired_atoms(stats, adapter, places, latent_size, mapped=mapped)
