"""The plan of a step: which rows, which noise, which levels. Drawn on the CPU from one generator, the same in every process."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..sparsedict_core.errors import TrainingError
from .backends.base import Backend, Conditioning
from .config import TrainConfig
from .data import Bucket, ConceptData, random_part, resize_crop
from .masks import latent_weights
from .noise_levels import draw_levels
from .quiet import QuietSamples

#: Kinds of rows.
CONCEPT, PRIOR, QUIET = 0, 1, 2


@dataclass
class Rows:
    """Latents (n, c, h, w) with, for each, the rows of the conditioning that may go with it."""

    latents: Tensor
    conditioning: Conditioning
    captions: list[list[int]]  # by latent: indices into the conditioning's rows
    texts: list[str]  # the first caption of each latent
    weights: Tensor | None = None  # (n, 1, h, w): how much the loss counts where; None: the same everywhere

    def pick(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Conditioning]:
        """Latents and one caption each for `indices`."""
        chosen = [self.captions[i][int(torch.randint(len(self.captions[i]), (), generator=generator))] for i in indices.tolist()]
        return self.latents[indices], {name: value[chosen] for name, value in self.conditioning.items()}

    def repeated(self, turns: list[int]) -> Rows:
        """The same rows, each as often as `turns` names it."""
        weights = None if self.weights is None else self.weights[turns]
        return Rows(self.latents[turns], self.conditioning, [self.captions[i] for i in turns], [self.texts[i] for i in turns], weights)


@dataclass
class TrainingSet:
    """One aspect bucket: the concept's rows, and prior and quiet rows of the same size."""

    concept: Rows
    prior: Rows | None
    quiet: Rows | None
    empty: Conditioning  # one row, for caption dropout


@dataclass
class Batch:
    """Rows of one step: clean latents, noise, levels, conditioning, and what each row is."""

    latents: Tensor
    noise: Tensor
    levels: Tensor
    conditioning: Conditioning
    kind: Tensor  # (B,) of CONCEPT, PRIOR, QUIET; stays on the CPU, where what is done with the rows is decided
    weights: Tensor | None = None  # (B, 1, h, w) of the loss; None: the same everywhere

    def rows(self, chosen: slice | Tensor) -> Batch:
        """Some of the rows."""
        conditioning = {name: value[chosen] for name, value in self.conditioning.items()}
        weights = None if self.weights is None else self.weights[chosen]
        return Batch(self.latents[chosen], self.noise[chosen], self.levels[chosen], conditioning, self.kind[chosen], weights)

    def part(self, first: int, stride: int) -> Batch:
        """Every stride-th row; parts of a batch hold equal shares of each kind where those divide."""
        return self.rows(slice(first, None, stride))

    def parts(self, count: int) -> list[Batch]:
        """The batch in `count` parts of equal size."""
        return [self.part(first, count) for first in range(count)]

    def to(self, device: torch.device, dtype: torch.dtype) -> Batch:
        """On the device, without waiting for it."""

        def moved(value: Tensor, dtype: torch.dtype | None = None) -> Tensor:
            return value.to(device, dtype or value.dtype, non_blocking=True)

        cast = {name: moved(value, dtype if value.is_floating_point() else None) for name, value in self.conditioning.items()}
        weights = None if self.weights is None else moved(self.weights)
        return Batch(moved(self.latents, dtype), moved(self.noise, dtype), moved(self.levels), cast, self.kind, weights)


def encode_rows(backend: Backend, images: list[Tensor], captions: list[list[str]]) -> Rows:
    """Encode images (3, H, W) of one size and their captions, once for the whole run; kept on the CPU."""
    latents = torch.cat([backend.encode_images(image[None].to(backend.device, backend.dtype)).float().cpu() for image in images])
    return text_rows(backend, latents, captions)


@torch.no_grad()
def text_rows(backend: Backend, latents: Tensor, captions: list[list[str]]) -> Rows:
    """Rows from latents that exist already."""
    unique = list(dict.fromkeys(text for row in captions for text in row))
    parts = [backend.encode_captions(unique[i : i + 16]) for i in range(0, len(unique), 16)]
    conditioning = {name: torch.cat([part[name].cpu() for part in parts]) for name in parts[0]}
    return Rows(latents, conditioning, [[unique.index(text) for text in row] for row in captions], [row[0] for row in captions])


def concept_rows(
    backend: Backend, data: ConceptData, bucket: Bucket, flip: bool = False, crops: int = 0, seed: int = 0, unmasked_weight: float = 0.0
) -> Rows:
    """The rows of a bucket's images: each whole, in `crops` random parts, and all that mirrored where `flip` is on.

    Latents are encoded once for the run, so the views are drawn once too. Latents that were handed over are taken as they are.
    Outside of its mask, a picture's loss counts `unmasked_weight` times.
    """
    chosen = [data.items[index] for index in bucket.indices]
    given = [item.latent for item in chosen if item.latent is not None]
    if given:
        return text_rows(backend, torch.stack(given).float().cpu(), [list(item.captions) for item in chosen])
    generator = torch.Generator().manual_seed(seed + 17)
    images: list[Tensor] = []
    masks: list[Tensor | None] = []
    captions, turns = [], []
    for item in chosen:
        # A mask goes through all that its picture goes through, as a fourth channel.
        whole = item.image if item.mask is None else torch.cat([item.image, item.mask])
        views = [whole, *(random_part(whole, generator) for _ in range(crops))]
        for view in views + ([view.flip(-1) for view in views] if flip else []):
            sized = resize_crop(view, bucket.size)
            turns += [len(images)] * item.repeats
            images.append(sized[:3])
            masks.append(None if item.mask is None else sized[3:].clamp(min=0))
            captions.append(list(item.captions))
    rows = encode_rows(backend, images, captions)
    rows.weights = latent_weights(masks, unmasked_weight, (int(rows.latents.shape[-2]), int(rows.latents.shape[-1])))
    return rows if len(turns) == len(images) else rows.repeated(turns)


def quiet_rows(backend: Backend, samples: QuietSamples) -> Rows:
    return text_rows(backend, samples.latents, [[caption] for caption in samples.captions])


def counts(config: TrainConfig, has_prior: bool) -> tuple[int, int, int]:
    """Rows of a batch by kind: concept, prior, quiet. Raises TrainingError where no concept row is left."""
    quiet = round(config.batch_size * config.quiet_share) if config.quiet else 0
    if config.quiet and quiet == 0:
        quiet = 1 if config.batch_size > 1 else 0
    prior = round(config.batch_size * config.prior_share) if has_prior else 0
    concept = config.batch_size - quiet - prior
    if concept < 1:
        raise TrainingError(f"a batch of {config.batch_size} leaves no row for the concept; raise batch_size or lower quiet_share and prior_share.")
    return concept, prior, quiet


def check_split(config: TrainConfig, has_prior: bool, processes: int) -> None:
    """Each part of a step must have as many rows as the others, of whatever kinds. Raises TrainingError."""
    parts = processes * config.gradient_accumulation
    if config.batch_size % parts:
        raise TrainingError(f"batch_size {config.batch_size} is no multiple of {parts} (processes × gradient_accumulation); change one of them.")
    counts(config, has_prior)


def draw_batch(config: TrainConfig, backend: Backend, sets: list[TrainingSet], generator: torch.Generator) -> Batch:
    """One step's whole batch, of one bucket, chosen by its number of images."""
    weights = torch.tensor([float(len(s.concept.latents)) for s in sets])
    chosen = sets[int(torch.multinomial(weights, 1, generator=generator))]
    parts: list[tuple[Tensor, Conditioning]] = []
    kinds: list[int] = []
    of_loss: list[Tensor] = []
    sources = (chosen.concept, chosen.prior, chosen.quiet)
    for kind, (source, count) in enumerate(zip(sources, counts(config, chosen.prior is not None), strict=True)):
        if source is None or count == 0:
            continue
        # A permutation, so that every image of a small set has its turn within a batch.
        total = len(source.latents)
        indices = torch.cat([torch.randperm(total, generator=generator) for _ in range(-(-count // total))])[:count]
        latents, conditioning = source.pick(indices, generator)
        of_loss.append(torch.ones(count, 1, *latents.shape[-2:]) if source.weights is None else source.weights[indices])
        if kind == CONCEPT and config.caption_dropout > 0:
            dropped = torch.rand(count, generator=generator) < config.caption_dropout
            conditioning = {k: torch.where(dropped.view(-1, *[1] * (v.ndim - 1)), chosen.empty[k], v) for k, v in conditioning.items()}
        parts.append((latents, conditioning))
        kinds += [kind] * count
    latents = torch.cat([part[0] for part in parts])
    conditioning = {name: torch.cat([part[1][name] for part in parts]) for name in parts[0][1]}
    size = (int(latents.shape[-2]), int(latents.shape[-1]))
    levels = draw_levels(config, backend, len(latents), generator, size)
    noise = torch.randn(latents.shape, generator=generator)
    masked = any(source is not None and source.weights is not None for source in sources)
    return Batch(latents, noise, levels, conditioning, torch.tensor(kinds), torch.cat(of_loss) if masked else None)
