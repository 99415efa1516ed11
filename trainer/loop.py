"""The training loop: what a run starts from, its steps, what is told and kept of them. The data are `training_sets`', a step is `step`'s,
the end is `result`'s."""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.attachment import Attachment
from ..sparsedict_core.errors import FileFormatError, SparseDictError, TrainingError, first_line
from ..sparsedict_core.site import SparseSite
from . import cards, checkpoint
from .average import Average
from .backends.base import Backend, sites_of
from .batches import TrainingSet, check_split
from .callbacks import Callbacks, Interrupted, StepReport
from .config import TrainConfig
from .data import ConceptData
from .distribution import Processes
from .forward import check_gradients, recomputed_blocks
from .memory import explain_out_of_memory
from .notebook import NotebookProgress, in_notebook
from .optimisers import make_optimiser
from .out_file import check_begun, check_out, check_place, identity
from .previews import Previews, check_prompts
from .progress import ConsoleProgress
from .quiet import QuietSamples, measure_inputs
from .result import TrainResult, ranked_and_saved, summary
from .revival import DeadAtoms
from .run_lock import only_run_in
from .step import Plan, StepNumbers, TrainingStep, draw_plan
from .stopping import InterruptFlag, interrupt_flag, interruptions
from .training_sets import build_sets, read_data

SMOOTHING = 0.95
NOTHING_YET = "it was before the first step was done, so nothing was written"


def train(config: TrainConfig, backend: Backend | Any, data: ConceptData | None = None, callbacks: Callbacks | None = None) -> TrainResult:
    """Train an adapter and save it at `config.out`. `backend` may be a loaded diffusers pipeline, which is given back as it was.

    `data` hands the images over in memory, else they are read from `config.images`. Raises DataError for unusable images,
    TrainingError for bad settings, for a loss that is not finite (the last good checkpoint stays) and for a run that was
    stopped before its first step was done. What goes wrong after the last step leaves the adapter all the same.
    """
    if not hasattr(backend, "encode_images"):
        from .backends.of_pipeline import borrowed

        with borrowed(backend) as own:
            return train(config, own, data, callbacks)
    processes, out = Processes(backend.device), Path(config.out)
    progress = NotebookProgress if in_notebook() else ConsoleProgress
    report = callbacks or (progress(config) if processes.main else Callbacks())
    try:
        check_place(out)
        with only_run_in(checkpoint.folder_of(out)) if processes.main else contextlib.nullcontext():
            check_out(config, out)
            return run(config, backend, data, report, processes)
    except interruptions(backend) as error:
        kept = checkpoint.newest(checkpoint.folder_of(out))
        raise TrainingError(f"stopped before there was an adapter to save; {f'the last checkpoint is {kept}' if kept else NOTHING_YET}.") from error
    except KeyboardInterrupt:
        if checkpoint.newest(checkpoint.folder_of(out)) is None:
            report.on_warning(f"no adapter was saved; {NOTHING_YET}.")
        raise
    finally:
        if isinstance(report, ConsoleProgress):
            report.close()


@explain_out_of_memory
def run(config: TrainConfig, backend: Backend, data: ConceptData | None, report: Callbacks, processes: Processes) -> TrainResult:
    """`train`, which says so where an interruption gets through."""
    out = Path(config.out)
    check_gradients(backend, config)
    check_prompts(config, backend)
    check_split(config, config.prior_images is not None, processes.world)
    data, prior = read_data(config, backend, data, report)
    settings = identity(config, backend, data, prior)
    if config.resume and (kept := checkpoint.newest(checkpoint.folder_of(out))) is not None:
        before = checkpoint.check_settings(kept, settings).get("steps")
        check_begun(config, out, settings, kept)
        if before != config.steps:
            report.on_warning(
                f"going on to {config.steps} steps, {before} before: rate, density and quiet term follow the new number from here on, so the "
                "result is not that of one run of as many steps."
            )
    sets, quiet = build_sets(config, backend, data, processes, report, prior)

    backend.denoiser.requires_grad_(False)
    adapter = new_adapter(config, backend)
    report.on_stage("input statistics")
    samples = quiet or [QuietSamples(s.concept.latents, s.concept.texts) for s in sets]
    adapter = measure_inputs(backend, adapter, samples, config.seed, config.rows, report.on_warning)
    adapter.trainable().to(backend.device)

    training = Training(config, backend, adapter, sets, report, processes, settings)
    overwrite = (config.resume and training.resume()) or config.overwrite
    seconds, stopped = training.run()
    state = training.state
    if training.average is not None:
        training.average.apply()
    adapter.metadata["training"] = summary(config, data, state, seconds)
    if training.picture is not None:
        adapter.metadata[cards.THUMBNAIL] = cards.thumbnail(training.picture)
    end = ranked_and_saved(config, backend, adapter, sets, report, processes, stopped, overwrite, training.last)
    if config.card and processes.main:
        try:
            cards.write_card(out, adapter, training.picture)
        except (SparseDictError, OSError) as error:
            report.on_warning(f"the files beside {out.name} could not be written: {first_line(error)}")
    if stopped:
        report.on_stopped(state.step, config.steps, out, training.last)
    elif processes.main:
        checkpoint.keep_last(training.folder, min(1, config.keep_checkpoints))
    return TrainResult(
        adapter, out, state.log, end.stats, state.step, seconds, training.last if stopped else None, end.cut_short, training.signal or end.signal
    )


def new_adapter(config: TrainConfig, backend: Backend) -> SparseAdapter:
    """A fresh adapter on all of the base's sites, which says what it is for."""
    words = [config.placeholder] if config.placeholder else []
    metadata = {
        "base_family": backend.family,
        "base_fingerprint": backend.fingerprint(),
        "title": Path(config.out).stem,
        "trigger_words": words,
    }
    found = sites_of(backend, config.sites)
    if found.own_names:
        metadata["site_names"] = found.own_names
    return SparseAdapter.create(backend.denoiser, found.sites, config.adapter_config(), backend.component, config.seed, metadata)


class Training:
    """The steps of a run: what they work on, their log, their checkpoints."""

    def __init__(
        self, config: TrainConfig, backend: Backend, adapter: SparseAdapter, sets: list[TrainingSet], report: Callbacks, processes: Processes,
        settings: dict[str, Any],
    ) -> None:  # fmt: skip
        """`settings` say whether a checkpoint is of this run (`out_file.identity`)."""
        self.config, self.backend, self.adapter, self.sets = config, backend, adapter, sets
        self.report, self.processes, self.settings = report, processes, settings
        self.optimiser = make_optimiser(config, [parameter for _, parameter in adapter.trainable_parameters()])
        self.generator = torch.Generator().manual_seed(config.seed)
        self.dead = DeadAtoms(adapter)
        self.average = Average(adapter, config.ema_decay) if config.ema_decay else None
        self.state = checkpoint.RunState(step=0, smoothed_loss=None, log=[])
        self.folder = checkpoint.folder_of(Path(config.out))
        self.last: Path | None = None  # checkpoint
        self.signal: int | None = None  # that stopped the run
        self.picture: Tensor | None = None  # of the newest preview: the first prompt's with the adapter

    # -- checkpoints

    def resume(self) -> bool:
        """Go on from the newest checkpoint; whether there was one, so that what is at `out` may be of this run."""
        self.last = checkpoint.newest(self.folder)
        if self.last is None:
            self.report.on_warning(f"there is no checkpoint in {self.folder}; starting from the first step.")
            return False
        self.state = checkpoint.read(self.last, self.settings, self.adapter, self.optimiser, self.generator, self.dead, self.average)
        return True

    def keep_checkpoint(self) -> None:
        """Write one. Where that fails the run goes on: the next one may be written again."""
        try:
            self.last = checkpoint.write(
                self.folder, self.settings, self.adapter, self.optimiser, self.generator, self.dead, self.state, self.config.keep_checkpoints, self.average
            )
        except FileFormatError as error:
            self.report.on_warning(f"no checkpoint of step {self.state.step}: {error}")
            return
        self.report.on_checkpoint(self.state.step, self.last)

    # -- steps

    def run(self) -> tuple[float, bool]:
        """All steps that are left; (seconds that they took, whether the run was stopped)."""
        config, state = self.config, self.state
        latents = self.sets[0].concept.latents
        previews = Previews(config, self.backend, (int(latents.shape[-2]), int(latents.shape[-1]))) if config.preview_prompts else None
        self.report.on_stage("training")
        began, first, stopped = time.time(), state.step, False
        with (
            recomputed_blocks(self.backend, config.gradient_checkpointing),
            self.adapter.attach(self.backend.denoiser, component=self.backend.component) as attachment,
            interrupt_flag() as interrupted,
        ):
            step = TrainingStep(config, self.backend, attachment, self.optimiser, self.dead, self.processes, self.sets[0].prior is not None)
            attachment.tap(self._watching(step))
            given_up, in_step = False, getattr(self.backend, "in_step", False)
            while state.step < config.steps and not stopped:
                before = self.generator.get_state()
                plan = draw_plan(config, self.backend, self.adapter, self.sets, state.step, self.generator)
                try:
                    step.gradients(plan)
                except interruptions(self.backend):
                    if state.step == 0:
                        raise
                    # The step is not done: its draws are taken back, so that a run that goes on repeats it.
                    self.generator.set_state(before)
                    step.forget()
                    self.keep_checkpoint()
                    self.signal = interrupted.number
                    return time.time() - began, True
                # Among several processes the wish of any of them counts: one that stops alone would leave the others waiting.
                wish = self.processes.world > 1 and (given_up or self.report.should_stop() or interrupted.is_set())
                numbers = step.exchanged(plan, wish)
                check_finite(numbers.loss, numbers.gradient_norm, plan.step, self.last)
                step.apply(plan, numbers, self.generator)
                state.step += 1
                if self.average is not None:
                    self.average.update(state.step)
                self.tell(plan, numbers, (time.time() - began) / (state.step - first))
                due = state.step % config.checkpoint_every == 0 or state.step == config.steps
                if self.processes.main and due:
                    # Before the previews and the importance, which may fail.
                    self.keep_checkpoint()
                if previews is not None and (self.processes.main or in_step) and (state.step % config.preview_every == 0 or state.step == config.steps):
                    step.session.reset()
                    given_up = self.show(previews, attachment, interrupted)
                stopped = numbers.stop
                if self.processes.world == 1:
                    stopped = given_up or self.report.should_stop() or interrupted.is_set()
                if self.processes.main and stopped and not due:
                    self.keep_checkpoint()
            step.session.close()
            self.signal = interrupted.number
        return time.time() - began, stopped

    def show(self, previews: Previews, attachment: Attachment, interrupted: InterruptFlag) -> bool:
        """Make and report previews; whether they were given up as the run is to stop. A failure of theirs is not the run's."""
        alone = not getattr(self.backend, "in_step", False)  # else one that gives up would leave the others waiting
        try:
            with self.average.shown() if self.average is not None else contextlib.nullcontext():
                made = previews.make(attachment, lambda: alone and (self.report.should_stop() or interrupted.is_set()))
            self.picture = made[0][0]
            self.report.on_preview(self.state.step, previews.prompts, *made)
            return False
        except interruptions(self.backend):
            return True
        except Exception as error:
            reason = first_line(error)
        self.report.on_warning(f"the preview of step {self.state.step} failed ({reason}); the training goes on.")
        torch.cuda.empty_cache()  # the next step needs what the preview had
        return False

    def _watching(self, step: TrainingStep) -> Any:
        def watch(key: str, site: SparseSite, x: Tensor, coefficients: Tensor, update: Tensor, output: Tensor) -> None:
            if step.session.recording:
                # At every site, as a large model's step takes longer than anyone who stops it wants to wait.
                if self.processes.world == 1 and self.report.should_stop():
                    raise Interrupted
                self.dead.observe(key, coefficients)

        return watch

    def tell(self, plan: Plan, numbers: StepNumbers, seconds_a_step: float) -> None:
        """Log a step that is done, and report it."""
        state, loss = self.state, numbers.loss
        state.smoothed_loss = loss if state.smoothed_loss is None else SMOOTHING * state.smoothed_loss + (1 - SMOOTHING) * loss
        rate, ratio = self.optimiser.param_groups[0]["lr"], numbers.quiet_ratio
        state.log.append(
            {"step": state.step, "loss": loss, "density": numbers.density, "target_density": plan.density, "dead_atoms": numbers.dead_atoms,
             "learning_rate": rate, "quiet_ratio": ratio if ratio is not None and math.isfinite(ratio) else 0.0}
        )  # fmt: skip
        report = StepReport(
            state.step, self.config.steps, loss, state.smoothed_loss, numbers.density, plan.density, numbers.silent_atoms,
            numbers.dead_atoms, rate, ratio, seconds_a_step * (self.config.steps - state.step),
        )  # fmt: skip
        self.report.on_step(report)


def check_finite(loss: float, norm: float, step: int, last: Path | None) -> None:
    """Stop the run before a bad step reaches the weights."""
    if math.isfinite(loss) and math.isfinite(norm):
        return
    kept = f"the last good checkpoint is {last}" if last else "no checkpoint was written yet"
    what = "loss" if not math.isfinite(loss) else "gradient"
    raise TrainingError(f"the {what} is not finite at step {step + 1} ({kept}); lower learning_rate, or use precision fp32.")
