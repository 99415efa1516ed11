"""A linear dictionary, such as a LoRA's, becomes one with thresholds: atoms that are at work where the concept is, and silent elsewhere.

The update is folded through the one-sided threshold at each site, from samples of the sites' inputs; then a few training steps teach the
whole: on the concept's rows to do what the linear one does, on quiet rows to leave the base as it is. Our choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.config import AdapterConfig
from ..sparsedict_core.errors import SiteError
from ..sparsedict_core.folding import SiteSamples, fold_into_new_atoms
from ..sparsedict_core.functional import magnitude_quantile
from ..sparsedict_core.low_rank import is_linear
from ..sparsedict_core.site import SparseSite
from .backends.base import Backend
from .batches import draw_batch
from .calibrate import calibrate
from .callbacks import Callbacks
from .config import TrainConfig
from .data import ConceptData
from .forward import check_gradients
from .healing import heal
from .memory import out_of_memory_explained
from .merge import Lesson, Part, learn
from .progress import ConsoleProgress
from .schedules import heal_factor
from .shrink import at_hand

STEPS = 60
RATE = 2e-3
DENSITY = 0.10
SITE_STEPS, SITE_RATE, SITE_ROWS = 150, 1e-2, 512


@dataclass(frozen=True)
class GateResult:
    """The dictionary with thresholds, and the root of what its updates at the sites have of the linear one's mean square, on both kinds of inputs."""

    adapter: SparseAdapter
    missed: float  # ‖gated − linear‖ / ‖linear‖ on the concept's inputs
    quiet: float  # ‖gated‖ / ‖linear‖ on inputs of other prompts
    text: str


def gate(
    adapter: SparseAdapter, backend: Backend, images: str | Path | None = None, data: ConceptData | None = None, steps: int = STEPS, density: float = DENSITY,
    callbacks: Callbacks | None = None, seed: int = 0, batch: TrainConfig | None = None,
) -> GateResult:  # fmt: skip
    """A dictionary with twice as many atoms, one for each sign. Without images it learns from what the linear one draws for its trigger words.

    Raises SiteError where `adapter` has thresholds already or a site never is at work, TrainingError without images and trigger words, and where memory runs out.
    """
    report = callbacks or ConsoleProgress()
    check_gradients(backend)
    gated_site = next((key for key, site in adapter.sites.items() if site.atoms and not is_linear(site)), None)
    if gated_site is not None:
        raise SiteError(f"{gated_site} has thresholds already; only a dictionary without any, such as a LoRA's, can be given some.")
    config, sets, samples = at_hand(adapter, backend, images, data, batch, seed, report)
    with out_of_memory_explained(config, healing=True):
        gated = folded(adapter, samples, density)
        teach(gated, Lesson(Part("linear", adapter, 1.0), None, sets), backend, config, steps, report)
        calibrate(config, backend, gated, sets)
    gated.aside = dict(adapter.aside)
    missed, quiet = measured(gated, adapter, samples)
    gated.add_step({"operation": "gate", "density": density, "missed": round(missed, 4), "quiet": round(quiet, 4)})
    text = f"{gated.atom_count} atoms with thresholds: {missed:.1%} of the change is missed where the concept is, {quiet:.1%} of it is left on other prompts"
    return GateResult(gated, missed, quiet, text)


def folded(adapter: SparseAdapter, samples: dict[str, SiteSamples], density: float) -> SparseAdapter:
    """The update of each site in atoms of both signs, each site fitted by itself. Raises SiteError for a site without samples."""
    idle = next((key for key, site in adapter.sites.items() if site.atoms and key not in samples), None)
    if idle is not None:
        raise SiteError(f"{idle} was never at work while the base drew, so its atoms cannot be given thresholds; prune the site's atoms away first.")
    config = AdapterConfig(encoder="quantile", atoms=adapter.config.atoms, rank=None, density=density)
    shells = [_shell(site, samples[key], config) if site.atoms else site.clone() for key, site in adapter.sites.items()]
    both_signs = 2 * sum(min(site.atoms, site.d_out) for site in adapter.sites.values())
    shell = SparseAdapter(shells, config, adapter.component, adapter.metadata, adapter.members)
    made = fold_into_new_atoms(shell, samples, both_signs)
    for key, site in made.sites.items():
        if site.atoms:
            _fit(site, samples[key])
    return made


def _shell(site: SparseSite, sample: SiteSamples, config: AdapterConfig) -> SparseSite:
    """The site with a threshold that lets `density` of the coefficients through, and with the quiet inputs' statistics."""
    dense = site.clone()
    dense.compact()
    weight = dense.encoder_weight if dense.encoder_basis is None else dense.encoder_weight @ dense.encoder_basis
    c = sample.x.float() @ weight.detach().float().T
    shell = SparseSite(
        site.name, config.make_encoder(), encoder_weight=weight.detach().float(), encoder_basis=None, encoder_bias=torch.zeros(site.atoms),
        dictionary_weight=site.dictionary().detach().float(), dictionary_basis=None, threshold=magnitude_quantile(c, 1 - config.density), member=site.member,
    )  # fmt: skip
    if sample.quiet is not None:
        quiet = sample.quiet.float()
        shell.set_input_statistics(quiet.mean(0), quiet.std(0))
    return shell


def _fit(site: SparseSite, sample: SiteSamples) -> None:
    """Fit a site's weights to its own samples, in place: the update where the concept is, nothing on the quiet inputs."""
    x, wanted = sample.x.float(), sample.update.float()
    if sample.quiet is not None:
        x, wanted = torch.cat([x, sample.quiet.float()]), torch.cat([wanted, wanted.new_zeros(len(sample.quiet), wanted.shape[1])])
    size = wanted.square().mean().clamp(min=1e-20)
    site.requires_grad_(True)
    optimiser = torch.optim.Adam(site.parameters(), lr=SITE_RATE)
    chance = torch.Generator().manual_seed(0)
    for step in range(SITE_STEPS):
        for group in optimiser.param_groups:
            group["lr"] = SITE_RATE * heal_factor(step, SITE_STEPS)
        optimiser.zero_grad(set_to_none=True)
        chosen = torch.randint(len(x), (min(SITE_ROWS, len(x)),), generator=chance)
        ((site(x[chosen]) - wanted[chosen]).square().mean() / size).backward()
        optimiser.step()
    site.requires_grad_(False)


def teach(gated: SparseAdapter, lesson: Lesson, backend: Backend, config: TrainConfig, steps: int, report: Callbacks) -> None:
    """Heal the whole, in place."""

    def gradients(step: int, generator: torch.Generator) -> None:
        for rows in draw_batch(config, backend, lesson.sets, generator).to(backend.device, backend.dtype).parts(config.gradient_accumulation):
            learn(gated, lesson, backend, rows, config.gradient_accumulation)

    heal(gated, backend, config, gradients, steps, RATE, config.seed + 31, report, "teaching the thresholds")


@torch.no_grad()
def measured(gated: SparseAdapter, linear: SparseAdapter, samples: dict[str, SiteSamples]) -> tuple[float, float]:
    """(missed, quiet) of `GateResult`, over all sites' samples."""
    sums = [0.0] * 4
    for key, sample in samples.items():
        quiet = sample.x[:0] if sample.quiet is None else sample.quiet
        for number, (x, other) in enumerate(((sample.x.float(), True), (quiet.float(), False))):
            whole, made = linear.sites[key](x), gated.sites[key](x)
            sums[2 * number] += float((made - whole if other else made).square().sum())
            sums[2 * number + 1] += float(whole.square().sum())
    return (sums[0] / max(sums[1], 1e-30)) ** 0.5, (sums[2] / max(sums[3], 1e-30)) ** 0.5
