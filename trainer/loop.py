"""The training loop. Reads from top to bottom: data, adapter, step, checkpoint, result."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.errors import TrainingError
from ..sparsedict_core.file_format import save
from ..sparsedict_core.importance import ImportanceStats
from ..sparsedict_core.site import SparseSite
from ..sparsedict_core.site_discovery import discover_sites
from . import checkpoint
from .backends.base import Backend
from .batches import QUIET, TrainingSet, check_split, concept_rows, counts, draw_batch, quiet_rows
from .calibrate import BATCHES, calibrate
from .callbacks import Callbacks, Interrupted, StepReport
from .config import TrainConfig
from .data import Bucket, ConceptData, latent_buckets, make_buckets
from .distribution import Processes
from .forward import noise_loss, recomputed_blocks
from .losses import QuietTerm
from .memory import explain_out_of_memory, first_line
from .nested import draw_prefixes
from .optimisers import make_optimiser
from .out_file import check_begun, check_out, comparable, identity
from .previews import Previews
from .progress import ConsoleProgress
from .quiet import QuietSamples, bucket_counts, load_or_make, measure_inputs
from .recording import LoopSession
from .revival import DeadAtoms
from .schedules import lr_factor, quiet_weight, target_density
from .stopping import interrupt_flag, interruptions

SMOOTHING = 0.95
MAX_CAPTIONS = 32  # in the file
STOPPED_BATCHES = 2  # for the importance of a run that was stopped: whoever stops it does not want to wait


@dataclass
class TrainResult:
    """A finished or stopped run."""

    adapter: SparseAdapter
    path: Path
    log: list[dict[str, float]]  # one entry a step: loss, density, target_density, dead_atoms, learning_rate
    stats: ImportanceStats
    steps: int  # steps done; fewer than asked where the run was stopped
    seconds: float  # of the steps alone
    checkpoint: Path | None = None  # where a stopped run can go on from
    interrupted: bool = False  # by the host, while the importance was gathered: the adapter is whole, and whoever asked wants nothing more


def train(config: TrainConfig, backend: Backend, data: ConceptData | None = None, callbacks: Callbacks | None = None) -> TrainResult:
    """Train an adapter and save it at `config.out`.

    `data` hands the images over in memory, else they are read from `config.images`. Raises DataError for unusable images,
    TrainingError for bad settings, for a loss that is not finite (the last good checkpoint stays) and for a run that was
    stopped before its first step was done. What goes wrong after the last step leaves the adapter all the same.
    """
    processes = Processes(backend.device)
    report = callbacks or (ConsoleProgress(config.tensorboard) if processes.main else Callbacks())
    try:
        return run(config, backend, data, report, processes)
    except interruptions(backend) as error:
        kept = checkpoint.newest(checkpoint.folder_of(Path(config.out)))
        what = f"the last checkpoint is {kept}" if kept else "it was before the first step was done, so nothing was written"
        raise TrainingError(f"stopped before there was an adapter to save; {what}.") from error
    finally:
        if isinstance(report, ConsoleProgress):
            report.close()


@explain_out_of_memory
def run(config: TrainConfig, backend: Backend, data: ConceptData | None, report: Callbacks, processes: Processes) -> TrainResult:
    """`train`, which says so where an interruption gets through."""
    out = Path(config.out)
    check_out(config, out)
    if data is None:
        if config.images is None:
            raise TrainingError("no images were given; name a folder of pictures.")
        data = ConceptData.from_folder(
            Path(config.images), caption=config.caption, placeholder=config.placeholder, resolution=config.resolution or backend.default_size
        )

    # -- data: encoded once
    check_split(config, config.prior_images is not None, processes.world)
    prior = prior_data(config, backend)
    sets, quiet = build_sets(config, backend, data, processes, report, prior)

    # -- the adapter, on every attention output of the frozen base
    backend.denoiser.requires_grad_(False)
    adapter = new_adapter(config, backend, data)
    report.on_stage("input statistics")
    measure_inputs(backend, adapter, quiet or [QuietSamples(s.concept.latents, s.concept.texts) for s in sets], config.seed, config.rows)
    adapter.trainable().to(backend.device)
    parameters = [parameter for _, parameter in adapter.trainable_parameters()]
    optimiser = make_optimiser(config, parameters)
    generator = torch.Generator().manual_seed(config.seed)
    dead = DeadAtoms(adapter)
    state = checkpoint.RunState(step=0, smoothed_loss=None, log=[])
    folder = checkpoint.folder_of(out)
    settings = identity(config, backend, data, prior)
    last: Path | None = None
    begun = False  # whether what is at `out` may be of this run
    if config.resume:
        last = checkpoint.newest(folder)
        if last is None:
            report.on_warning(f"there is no checkpoint in {folder}; starting from the first step.")
        else:
            state = checkpoint.read(last, comparable(last, settings), adapter, optimiser, generator, dead)
            begun = True
            check_begun(config, out, settings, last)

    def write_checkpoint(keep: int) -> Path:
        return checkpoint.write(folder, settings, adapter, optimiser, generator, dead, state, keep)

    latents = sets[0].concept.latents
    previews = Previews(config, backend, (int(latents.shape[-2]), int(latents.shape[-1]))) if config.preview_prompts else None
    report.on_stage("training")
    began, first_step, stopped = time.time(), state.step, False
    with (
        recomputed_blocks(backend, config.gradient_checkpointing),
        adapter.attach(backend.denoiser, component=backend.component) as attachment,
        interrupt_flag() as interrupted,
    ):
        has_quiet_rows = counts(config, sets[0].prior is not None)[2] > 0
        session = LoopSession(attachment, has_quiet_rows)

        def note_firing(key: str, site: SparseSite, x: Tensor, coefficients: Tensor, update: Tensor, output: Tensor) -> None:
            if session.recording:
                # At every site, as a large model's step takes longer than anyone who stops it wants to wait.
                if processes.world == 1 and report.should_stop():
                    raise Interrupted
                dead.observe(key, coefficients)

        attachment.tap(note_firing)
        while state.step < config.steps:
            step, before = state.step, generator.get_state()
            for group in optimiser.param_groups:
                group["lr"] = config.rate * lr_factor(config, step)
            density = target_density(config, step)
            prefixes = draw_prefixes(adapter, config.nested, config.nested_octaves, generator)
            batch = draw_batch(config, backend, sets, generator)

            # -- forward and backward, micro-batch by micro-batch
            optimiser.zero_grad(set_to_none=True)
            parts = config.gradient_accumulation * processes.world
            loss_sum, densities, ratios = 0.0, [], []
            quiet_term = QuietTerm(batch.kind == QUIET, parts, processes.mean)
            try:
                for micro in range(config.gradient_accumulation):
                    part = batch.part(processes.rank * config.gradient_accumulation + micro, parts).to(backend.device, backend.dtype)
                    session.begin(density, prefixes, rows=config.batch_size)
                    loss = noise_loss(config, backend, part)
                    record = session.end_forward()
                    loss_sum += loss.item() / config.gradient_accumulation
                    if has_quiet_rows:
                        term = quiet_term.of_energies(list(session.energies.values()), part.kind == QUIET)
                        ratios.append(term.detach())
                        # A fresh dictionary is zero, and a ratio of zeros says nothing.
                        if step > 0:
                            loss = loss + quiet_weight(config, step) * term
                    (loss / config.gradient_accumulation).backward()
                    densities.append(torch.stack(list(record.density.values())).mean())
            except interruptions(backend):
                if step == 0:
                    raise
                # The step is not done: its draws are taken back, so that a run that goes on repeats it.
                generator.set_state(before)
                dead.forget_step()
                session.reset()
                optimiser.zero_grad(set_to_none=True)
                last = write_checkpoint(config.keep_checkpoints)
                report.on_checkpoint(step, last)
                stopped = True
                break
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad = processes.mean(parameter.grad)
            loss_value = float(processes.mean(torch.tensor(loss_sum, device=backend.device)))
            norm = torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
            check_finite(loss_value, float(norm), step, last)

            # -- the step: weights, thresholds, dead atoms
            optimiser.step()
            session.commit(session.observed_thresholds({k: processes.gather(v) for k, v in session.pending_subsamples().items()}))
            measured = float(processes.mean(torch.stack(densities).mean()))
            ratio = float(processes.mean(torch.stack(ratios).mean())) if ratios else None
            silent = dead.end_step(prefixes, processes.any)
            if config.revive_after and step < 0.7 * config.steps and (step + 1) % config.revive_after == 0:
                dead.revive(adapter, optimiser, config.revive_after, generator)
            state.step += 1

            # -- what is told and stored
            smoothed = loss_value if state.smoothed_loss is None else SMOOTHING * state.smoothed_loss + (1 - SMOOTHING) * loss_value
            state.smoothed_loss = smoothed
            long_dead = sum(int((idle >= config.revive_after).sum()) for idle in dead.idle.values()) if config.revive_after else silent
            left = (time.time() - began) / (state.step - first_step) * (config.steps - state.step)
            told = StepReport(
                state.step, config.steps, loss_value, smoothed, measured, density, silent, long_dead, optimiser.param_groups[0]["lr"], ratio, left
            )
            state.log.append(
                {"step": state.step, "loss": loss_value, "density": measured, "target_density": density, "dead_atoms": long_dead,
                 "learning_rate": told.learning_rate, "quiet_ratio": ratio if ratio is not None and math.isfinite(ratio) else 0.0}
            )  # fmt: skip
            report.on_step(told)
            due = state.step % config.checkpoint_every == 0
            if processes.main and (due or state.step == config.steps):
                # Before the previews and the importance, which may fail. One that isn't due goes once the adapter is saved.
                last = write_checkpoint(config.keep_checkpoints if due else config.keep_checkpoints + 1)
                if due:
                    report.on_checkpoint(state.step, last)
            given_up = False
            if previews is not None and processes.main and (state.step % config.preview_every == 0 or state.step == config.steps):
                session.reset()
                try:
                    report.on_preview(state.step, previews.prompts, *previews.make(attachment, report.should_stop))
                except interruptions(backend):
                    given_up = True
            # Asked in every process, answered alike: one that stops alone would leave the others waiting for it.
            stopped = bool(processes.any(given_up or report.should_stop() or interrupted.is_set()))
            if processes.main and stopped and not due:
                last = write_checkpoint(config.keep_checkpoints)
                report.on_checkpoint(state.step, last)
            if stopped:
                break
        session.close()
    seconds = time.time() - began

    # -- the result: frozen, ranked, saved
    report.on_stage("importance")
    adapter.requires_grad_(False)
    adapter.metadata["training"] = summary(config, data, state, seconds)
    stats, cut_short, failure = ImportanceStats(), False, None
    told_importance = partial(report.on_progress, "importance")
    with interrupt_flag() as hurried:
        try:
            try:
                batches = STOPPED_BATCHES if stopped else BATCHES
                stats = calibrate(config, backend, adapter, sets, told_importance, batches, responses=not stopped, enough=hurried.is_set)
            except interruptions(backend):
                cut_short = True
                with contextlib.suppress(*interruptions(backend)):
                    stats = calibrate(config, backend, adapter, sets, told_importance, 1, responses=False)
        except BaseException as error:  # an interrupt too: the trained adapter is not lost for its ranking
            failure = error
    if processes.main:
        save(adapter, out, overwrite=config.overwrite or begun, moments=config.moments)
    processes.wait()
    if failure is not None:
        report.on_warning(
            f"the atoms could not be ranked ({first_line(failure)}): {out} draws as it should, but cannot be pruned well; "
            f"resume ranks them, from {last}."
        )
        raise failure
    if hurried.is_set():
        report.on_warning(f"interrupted while the atoms were ranked: {out} is whole, with a ranking of fewer pictures than usual.")
    if stopped:
        report.on_stopped(state.step, config.steps, out, last)
    elif processes.main and last is not None and state.step % config.checkpoint_every:
        last.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()
    return TrainResult(adapter, out, state.log, stats, state.step, seconds, last if stopped else None, cut_short)


def prior_data(config: TrainConfig, backend: Backend) -> ConceptData | None:
    """The prior images with their captions, where there are any."""
    if not config.prior_images:
        return None
    resolution = config.resolution or backend.default_size
    missing = "prior_caption (--prior-caption)"
    return ConceptData.from_folder(Path(config.prior_images), caption=config.prior_caption, resolution=resolution, missing=missing)


def build_sets(
    config: TrainConfig, backend: Backend, data: ConceptData, processes: Processes, report: Callbacks, prior: ConceptData | None = None
) -> tuple[list[TrainingSet], list[QuietSamples]]:
    """One training set an aspect bucket, and the quiet samples that go with them."""
    resolution = config.resolution or backend.default_size
    report.on_stage("encoding images", f"{len(data.items)} images at {resolution}²")
    empty = {k: v.cpu() for k, v in backend.encode_captions([""]).items()}
    cache = Path(config.cache) if config.cache else Path(config.out).parent
    sets, quiet = [], []
    if config.quiet_samples == 0:
        report.on_warning("no quiet samples: other prompts will change more, with few images far more.")
    buckets = buckets_for(backend, data, resolution)
    made = 0
    for bucket, count in zip(buckets, bucket_counts(config.quiet_samples, [len(b.indices) for b in buckets]), strict=True):
        concept = concept_rows(backend, data, bucket, config.flip, config.random_crops, config.seed)
        prior_rows = None
        if prior is not None:
            prior_rows = concept_rows(backend, prior, Bucket(bucket.size, list(range(len(prior.items)))))
        rows = None
        if config.quiet_samples > 0:
            report.on_stage("quiet samples", f"{count} pictures of the base itself at {bucket.size[1]}×{bucket.size[0]}, cached in {cache}")
            size = (int(concept.latents.shape[-2]), int(concept.latents.shape[-1]))
            with processes.main_first():
                told = partial(report.on_progress, "quiet samples")
                samples = load_or_make(config, backend, size, cache, told, count, made, report.should_stop)
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
        raise TrainingError(f"resolution is {resolution}, but this base knows pictures of {side}×{side} only; leave resolution unset.")
    return [Bucket((side, side), list(range(len(data))))]


def new_adapter(config: TrainConfig, backend: Backend, data: ConceptData) -> SparseAdapter:
    """A fresh adapter on all of the base's sites, which says what it is for."""
    words = [config.placeholder] if config.placeholder else []
    metadata = {
        "base_family": backend.family,
        "base_fingerprint": backend.fingerprint(),
        "title": Path(config.out).stem,
        "trigger_words": words,
    }
    return SparseAdapter.create(backend.denoiser, discover_sites(backend.denoiser).sites, config.adapter_config(), backend.component, config.seed, metadata)


def check_finite(loss: float, norm: float, step: int, last: Path | None) -> None:
    """Stop the run before a bad step reaches the weights."""
    if math.isfinite(loss) and math.isfinite(norm):
        return
    kept = f"the last good checkpoint is {last}" if last else "no checkpoint was written yet"
    what = "loss" if not math.isfinite(loss) else "gradient"
    raise TrainingError(f"the {what} is not finite at step {step + 1} ({kept}); lower learning_rate, or use precision fp32.")


def summary(config: TrainConfig, data: ConceptData, state: checkpoint.RunState, seconds: float) -> dict:
    """What the file says of its training."""
    last = state.log[-1] if state.log else {}
    return {
        "images": len(data.items),
        "images_hash": data.content_hash(),
        # What shrinking and merging draw the adapter's own pictures for.
        "captions": list(dict.fromkeys(text for item in data.items for text in item.captions))[:MAX_CAPTIONS],
        "steps": state.step,
        "seed": config.seed,
        "loss": state.smoothed_loss,
        "density": last.get("density"),
        "target_density": config.density,
        "dead_atoms": last.get("dead_atoms"),
        "learning_rate": config.rate,
        "quiet_weight": config.quiet_weight,
        "nested": config.nested,
        "seconds": round(seconds, 1),
    }
