"""What a run is trained on, encoded once: one set of rows an aspect bucket, with prior and quiet rows beside the concept's."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.errors import DataError, SparseDictError, TrainingError, first_line
from .backends.base import Backend
from .batches import TrainingSet, concept_rows, quiet_rows
from .callbacks import Callbacks
from .captions import DEFAULT_CAPTION, in_one_message
from .config import TrainConfig
from .data import Bucket, ConceptData, latent_buckets, make_buckets
from .data_summary import SHOWN, listed, summary
from .distribution import Processes
from .quiet import QuietSamples, bucket_counts, load_or_make
from .samples_cache import default_folder
from .trial import try_step


def concept_data(config: TrainConfig, backend: Backend) -> ConceptData:
    """The pictures that the config names. Raises TrainingError where it names none."""
    if config.images is None:
        raise TrainingError("no images were given; name a folder of pictures.")
    resolution = config.resolution or backend.default_size
    return ConceptData.from_folder(
        Path(config.images), caption=config.caption, placeholder=config.placeholder, resolution=resolution,
        default_caption=getattr(backend, "default_caption", DEFAULT_CAPTION), masks=config.masks, skip_unreadable=config.skip_unreadable,
        refused=partial(refused_captions, backend),
    )  # fmt: skip


def pictures_of(adapter: SparseAdapter, images: str | Path, backend: Backend) -> ConceptData:
    """A folder as the adapter's training read it: with the word and the caption for all pictures that the file knows."""
    training = adapter.metadata.get("training")
    known = training if isinstance(training, dict) else {}
    texts = known.get("captions")
    # Files of before have no `caption`; where they hold one text, it was that of all pictures.
    caption = known.get("caption") or (texts[0] if isinstance(texts, list) and len(texts) == 1 else None)
    return ConceptData.from_folder(
        Path(images), caption=caption if isinstance(caption, str) else None, placeholder=next(iter(adapter.trigger_words), None),
        resolution=backend.default_size, default_caption=getattr(backend, "default_caption", DEFAULT_CAPTION),
    )  # fmt: skip


@torch.no_grad()
def refused_captions(backend: Backend, data: ConceptData) -> str:
    """What is wrong with the captions that the base's text encoder refuses, with their pictures; nothing where it takes all."""
    if hasattr(backend, "encodings"):
        return ""  # a tokenizer of diffusers takes any text, and its encoder may take long
    refused: list[tuple[str, str]] = []
    for caption, pictures in data.by_caption().items():
        try:
            backend.encode_captions([caption])
        except (SparseDictError, ValueError) as error:
            refused.append((f"“{caption}” of {listed(pictures)}", first_line(error)))
    if len(refused) == 1:
        return "the caption {} cannot be used: {}.".format(*refused[0])
    if not refused:
        return ""
    # What is wrong with each; what could be written instead, which is alike for all, once.
    wrong = "; ".join(f"{what}: {reason.split('. ')[0]}" for what, reason in refused[:SHOWN])
    more = f"; and {len(refused) - SHOWN} more" if len(refused) > SHOWN else ""
    advice = refused[0][1].partition(". ")[2]
    return f"{len(refused)} captions cannot be used: {wrong}{more}. {advice}".rstrip(". ") + "."


def prior_data(config: TrainConfig, backend: Backend) -> ConceptData | None:
    """The prior images with their captions, where there are any."""
    if not config.prior_images:
        return None
    resolution = config.resolution or backend.default_size
    missing = "prior_caption (--prior-caption)"
    return ConceptData.from_folder(
        Path(config.prior_images), caption=config.prior_caption, resolution=resolution, missing=missing, masks="off", skip_unreadable=config.skip_unreadable,
        refused=partial(refused_captions, backend),
    )  # fmt: skip


def read_data(config: TrainConfig, backend: Backend, data: ConceptData | None, report: Callbacks) -> tuple[ConceptData, ConceptData | None]:
    """The concept's pictures (`data`, else those that the config names) and the prior ones, told before anything takes long.

    Raises DataError with what is wrong in both.
    """
    faults: list[str] = []
    prior = None
    try:
        data = concept_data(config, backend) if data is None else data
    except DataError as error:
        faults.append(str(error))
    try:
        prior = prior_data(config, backend)
    except DataError as error:
        faults.append(str(error))
    if data is not None and not faults:
        tell_data(config, backend, data, prior, report)
    faults += [said for read in (data, prior) if read is not None and (said := refused_captions(backend, read))]
    if data is None or faults:
        raise DataError(in_one_message(faults))
    return data, prior


def tell_data(config: TrainConfig, backend: Backend, data: ConceptData, prior: ConceptData | None, report: Callbacks) -> None:
    """What is trained on and what is not."""
    buckets = buckets_for(backend, data, config.resolution or backend.default_size)
    report.on_data(summary(data, buckets, backend, config.placeholder))
    if prior is not None:
        report.on_data(summary(prior, what="prior-preservation pictures"))


def build_sets(
    config: TrainConfig, backend: Backend, data: ConceptData, processes: Processes, report: Callbacks, prior: ConceptData | None = None
) -> tuple[list[TrainingSet], list[QuietSamples]]:
    """One training set an aspect bucket, and the quiet samples that go with them."""
    resolution = config.resolution or backend.default_size
    report.on_stage("encoding images", f"{len(data.items)} images at {resolution}²")
    cache = Path(config.cache) if config.cache else default_folder()
    if hasattr(backend, "keep_encodings"):
        backend.keep_encodings(cache)
    empty = {k: v.cpu() for k, v in backend.encode_captions([""]).items()}
    sets: list[TrainingSet] = []
    quiet: list[QuietSamples] = []
    if config.quiet_samples == 0:
        report.on_warning("no quiet samples: other prompts will change more, with few images far more.")
    buckets = buckets_for(backend, data, resolution)
    made = 0
    for bucket, count in zip(buckets, bucket_counts(config.quiet_samples, [len(b.indices) for b in buckets]), strict=True):
        concept = concept_rows(backend, data, bucket, config.flip, config.random_crops, config.seed, config.unmasked_weight)
        if not sets:
            report.on_stage("trial step")
            try_step(config, backend, concept)
        prior_rows = None
        if prior is not None:
            prior_rows = concept_rows(backend, prior, Bucket(bucket.size, list(range(len(prior.items)))))
        rows = None
        if config.quiet_samples > 0:
            report.on_stage("quiet samples", f"{count} pictures of the base itself at {bucket.size[1]}×{bucket.size[0]}, cached in {cache}")
            size = (int(concept.latents.shape[-2]), int(concept.latents.shape[-1]))
            progress = partial(report.on_progress, "quiet samples")
            samples = load_or_make(config, backend, size, cache, progress, count, made, report.should_stop, report.on_warning, processes)
            made += count
            quiet.append(samples)
            rows = quiet_rows(backend, samples) if config.quiet else None
        sets.append(TrainingSet(concept, prior_rows, rows, empty))
    return sets, quiet


def buckets_for(backend: Backend, data: ConceptData, resolution: int) -> list[Bucket]:
    """Aspect buckets; a base that knows one size only (`fixed_size`) gets all pictures cropped to it."""
    if any(item.latent is not None for item in data.items):
        return latent_buckets(data, backend.latent_scale)
    if not getattr(backend, "fixed_size", False):
        return make_buckets(data, resolution, backend.size_multiple)
    side = backend.default_size
    if resolution != side:
        raise TrainingError(f"resolution is {resolution}, but this base knows pictures of {side}×{side} only; leave resolution unset.", about_base=True)
    return [Bucket((side, side), list(range(len(data))))]
