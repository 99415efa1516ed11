"""One training step: gradients by micro-batches, one exchange between processes, then weights, thresholds and dead atoms.

The device is waited for once, for the numbers that are shown; a step whose numbers are bad never reaches the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.attachment import Attachment
from ..sparsedict_core.functional import most_of_a_row
from ..sparsedict_core.training_state import TrainingSession
from .backends.base import Backend
from .batches import QUIET, Batch, TrainingSet, counts, draw_batch
from .config import TrainConfig
from .distribution import Processes
from .forward import noise_loss
from .losses import QuietTerm
from .nested import draw_prefixes
from .revival import DeadAtoms
from .schedules import lr_factor, quiet_weight, target_density

REVIVAL_ENDS = 0.7  # of the steps; later an atom could learn nothing any more


@dataclass(frozen=True)
class Plan:
    """What a step does, drawn on the CPU from one generator: the same in every process."""

    step: int  # 0, 1, …
    density: float
    prefixes: dict[str, int] | None
    batch: Batch


def draw_plan(config: TrainConfig, backend: Backend, adapter: SparseAdapter, sets: list[TrainingSet], step: int, generator: torch.Generator) -> Plan:
    prefixes = draw_prefixes(adapter, config.nested, config.nested_octaves, generator)
    return Plan(step, target_density(config, step), prefixes, draw_batch(config, backend, sets, generator))


@dataclass(frozen=True)
class StepNumbers:
    """What a step says of itself, the same in every process."""

    loss: float
    gradient_norm: float  # before clipping
    density: float  # activation density, mean over sites
    quiet_ratio: float | None  # ‖ΔO‖² on quiet rows / on the concept's; None without quiet rows
    silent_atoms: int  # that fired nowhere in this step
    dead_atoms: int  # silent for as long as revives them, and not revived now
    stop: bool  # whether any process wants to stop
    idle: Tensor | None  # steps since each atom fired, on the CPU; where atoms are to be revived now


class TrainingStep:
    """The parts that a step works on. Call `gradients`, `exchanged` and `apply`, or `forget` for one that was interrupted."""

    def __init__(
        self, config: TrainConfig, backend: Backend, attachment: Attachment, optimiser: torch.optim.Optimizer, dead: DeadAtoms,
        processes: Processes, has_prior: bool,
    ) -> None:  # fmt: skip
        self.config, self.backend, self.adapter, self.processes = config, backend, attachment.adapter, processes
        self.optimiser, self.dead = optimiser, dead
        self.parameters = [parameter for _, parameter in self.adapter.trainable_parameters()]
        self.quiet_rows = counts(config, has_prior)[2]
        self.session = TrainingSession(attachment, energies=self.quiet_rows > 0)
        self._losses: list[Tensor] = []
        self._densities: list[Tensor] = []
        self._ratios: list[Tensor] = []
        self._subsamples: dict[str, Tensor] = {}  # |u| by site, of all processes

    def gradients(self, plan: Plan) -> None:
        """Forward and backward, micro-batch by micro-batch; nothing in here waits for the device."""
        config, processes = self.config, self.processes
        self.optimiser.zero_grad(set_to_none=True)
        self._losses, self._densities, self._ratios = [], [], []
        parts = config.gradient_accumulation * processes.world
        mean = processes.mean if processes.world > 1 else None
        quiet_term = QuietTerm(self.quiet_rows, config.batch_size - self.quiet_rows, parts, mean, config.gradient_accumulation)
        for micro in range(config.gradient_accumulation):
            part = plan.batch.part(processes.rank * config.gradient_accumulation + micro, parts).to(self.backend.device, self.backend.dtype)
            self.session.begin(plan.density, plan.prefixes, rows=config.batch_size)
            loss = noise_loss(config, self.backend, part)
            record = self.session.end_forward()
            self._losses.append(loss.detach())
            if self.quiet_rows:
                term = quiet_term(list(record.energies.values()), part.kind == QUIET)
                self._ratios.append(term.detach())
                # A fresh dictionary is zero, and a ratio of zeros says nothing.
                if plan.step > 0:
                    loss = loss + quiet_weight(config, plan.step) * term
            (loss / config.gradient_accumulation).backward()
            self._densities.append(torch.stack(list(record.density.values())).mean())

    def exchanged(self, plan: Plan, stop: bool = False) -> StepNumbers:
        """Gradients and numbers averaged over the processes, gradients clipped. `stop`: whether this process wants to."""
        numbers = torch.stack([*self._losses, *self._densities, *self._ratios]).float()
        fired, wish = self.dead.fired, numbers.new_full((1,), float(stop))
        self._subsamples, lengths = self.session.pending_subsamples(), numbers[:0]
        if (world := self.processes.world) > 1:
            gradients = [p.grad for p in self.parameters if p.grad is not None]
            parts = [*gradients, numbers, fired.to(numbers), wish, self._own_row(numbers)]
            means = self.processes.mean(torch.cat([part.flatten() for part in parts])).split([part.numel() for part in parts])
            numbers, shares, wish, rows = means[-4:]
            fired, rows = shares > 0, rows.view(world, len(self._subsamples), 1 + self._room)
            lengths, values = rows[..., 0], rows[..., 1:]
            for gradient, mean in zip(gradients, means, strict=False):
                gradient.copy_(mean.view_as(gradient))
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm)
        silent, dead = self.dead.end_step(plan.prefixes, fired, self.config.revive_after)
        idle = [self.dead.idle_of_all.to(numbers)] if self._revives(plan) else []
        shown = torch.cat([numbers, torch.stack([norm.to(numbers), silent.to(numbers), dead.to(numbers)]), wish, *idle])
        vector = torch.cat([shown, lengths.flatten()]).cpu()  # the step's one wait
        if world > 1:
            counts = vector[len(shown) :].round().int().view(world, len(self._subsamples)).T.tolist()
            self._subsamples = {
                key: torch.cat([values[process, site, :count] for process, count in enumerate(counts[site])]) for site, key in enumerate(self._subsamples)
            }
        return self._read(vector[: len(shown)])

    @property
    def _room(self) -> int:
        """The longest that a process's subsample can be."""
        return self.config.batch_size // self.processes.world * most_of_a_row(self.config.batch_size)

    def _own_row(self, like: Tensor) -> Tensor:
        """(processes, sites, 1 + room): the length of each subsample of this process, and the subsample. All else is zero, so that the mean over the
        processes gathers them. Captions of other lengths make subsamples of other lengths; each has the room of the longest that there can be."""
        world, held = self.processes.world, self._subsamples.values()
        rows = like.new_zeros(world, len(held), 1 + self._room)
        rows[self.processes.rank, :, 0] = torch.tensor([float(len(values)) for values in held]).to(like, non_blocking=True)
        for row, values in zip(rows[self.processes.rank], held, strict=True):
            row[1 : 1 + len(values)] = values
        return rows * world

    def _read(self, vector: Tensor) -> StepNumbers:
        sizes = [len(self._losses), len(self._densities), len(self._ratios), 4]
        losses, densities, ratios, others, idle = vector.split([*sizes, len(vector) - sum(sizes)])
        norm, silent, dead, wish = others.tolist()
        return StepNumbers(
            loss=torch.tensor(sum(loss / len(losses) for loss in losses.tolist())).item(),
            gradient_norm=norm,
            density=densities.mean().item(),
            quiet_ratio=ratios.mean().item() if len(ratios) else None,
            silent_atoms=int(silent),
            dead_atoms=0 if len(idle) else int(dead),
            stop=wish > 0,
            idle=idle if len(idle) else None,
        )

    def apply(self, plan: Plan, numbers: StepNumbers, generator: torch.Generator) -> None:
        """Weights, thresholds, and atoms that are started anew."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.rate * lr_factor(self.config, plan.step)
        self.optimiser.step()
        self.session.commit(self.session.observed_thresholds(self._subsamples))
        if numbers.idle is not None:
            self.dead.revive(self.adapter, self.optimiser, self.config.revive_after, generator, numbers.idle)

    def forget(self) -> None:
        """Leave no trace of a step that was interrupted in its forward or backward."""
        self.dead.forget_step()
        self.session.reset()
        self.optimiser.zero_grad(set_to_none=True)

    def _revives(self, plan: Plan) -> bool:
        every = self.config.revive_after
        return every > 0 and plan.step < REVIVAL_ENDS * self.config.steps and (plan.step + 1) % every == 0
