"""Another way to a small adapter: new atoms along the principal directions of what the adapter really adds.

Our choice (docs/method.md). Works on samples of the sites' inputs and updates; the healing steps that follow, with the
base at hand, are the trainer's.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .adapter import SparseAdapter
from .config import MOST_ATOMS, AdapterConfig
from .errors import SelectionError
from .functional import standardise
from .site import SparseSite

RIDGE = 1e-3


@dataclass(frozen=True)
class SiteSamples:
    """Tokens of one site: input x (N, d_in), update ΔO (N, d_out), ∂L/∂ΔO (N, d_out) where known, and inputs from other
    prompts (M, d_in), on which the new atoms shall be silent."""

    x: Tensor
    update: Tensor
    gradient: Tensor | None = None
    quiet: Tensor | None = None


@dataclass(frozen=True)
class Direction:
    """What one new atom may be."""

    score: float
    key: str
    vector: Tensor  # (d_out), unit
    target: Tensor  # (N): the coefficient that the atom should have


@torch.no_grad()
def fold_into_new_atoms(
    adapter: SparseAdapter, samples: dict[str, SiteSamples], atoms: int, directions: list[Direction] | None = None, fitted: bool = True
) -> SparseAdapter:
    """A new adapter of `atoms` dense atoms over all sites, best directions first; new atoms get ids that no atom had before.

    `directions`, of the same adapter and samples, spares looking for them again. Not `fitted`: encoders stay 0, for whoever wants shapes.
    Raises SelectionError for a number below 1, missing samples, or ids that are used up.
    """
    if atoms < 1:
        raise SelectionError(f"{atoms} new atoms were asked for; give a number of 1 or more.")
    chosen = (find_directions(adapter, samples) if directions is None else directions)[:atoms]
    sites = []
    for key, site in adapter.sites.items():
        mine = [c for c in chosen if c.key == key]
        sites.append(_folded(site, samples[key], mine, _first_free(adapter, site), fitted) if mine else _empty(site))
    members = [replace(m, config=_dense(m.config, (site for site in sites if site.member == m.name))) for m in adapter.members]
    folded = SparseAdapter(sites, _dense(adapter.config, sites), adapter.component, copy.deepcopy(adapter.metadata), members)
    step = {"operation": "fold", "atoms": len(chosen), "of": adapter.atom_count, "with_gradients": _with_gradients(samples)}
    folded.add_step(step)
    return folded


@torch.no_grad()
def find_directions(adapter: SparseAdapter, samples: dict[str, SiteSamples]) -> list[Direction]:
    """The principal directions of all sites' updates, best first.

    A direction v scores |E[(ΔO·v)(∂L/∂ΔO·v)]|, without gradients E[(ΔO·v)²]; a one-sided encoder needs an atom for each sign.
    Raises SelectionError for missing samples.
    """
    found: list[Direction] = []
    for key, site in adapter.sites.items():
        if site.atoms == 0:
            continue
        if key not in samples:
            raise SelectionError(f"no samples were given for site {key}; collect them at every site of the adapter.")
        found += _candidates(key, site, samples[key])
    # Python's sort is stable, so equal scores stay in the sites' order.
    return sorted(found, key=lambda direction: -direction.score)


def _candidates(key: str, site: SparseSite, sample: SiteSamples) -> list[Direction]:
    # All updates lie in the dictionary's row space, which is far narrower than the model where there is a basis.
    source = site.dictionary_weight if site.dictionary_basis is None else site.dictionary_basis
    frame = torch.linalg.qr(source.detach().cpu().double().T).Q  # (d_out, q)
    update = sample.update.detach().cpu().double() @ frame  # (N, q)
    vectors = torch.linalg.eigh(update.T @ update / len(update)).eigenvectors.flip(1)
    along = update @ vectors  # (N, q)
    slope = None if sample.gradient is None else (sample.gradient.detach().cpu().double() @ frame) @ vectors
    found = []
    for i in range(vectors.shape[1]):
        direction = frame @ vectors[:, i]
        for sign in (1.0, -1.0) if site.encoder.one_sided else (1.0,):
            c = sign * along[:, i]
            active = c.clamp(min=0) if site.encoder.one_sided else c
            score = active.square().mean() if slope is None else (active * slope[:, i]).mean().abs()
            if float(active.abs().max()) > 0:
                found.append(Direction(float(score), key, sign * direction, c))
    return found


def _first_free(adapter: SparseAdapter, site: SparseSite) -> int:
    """The first id that no atom of the site ever had: those that pruning took away keep theirs too."""
    configs: dict[str | None, AdapterConfig] = {member.name: member.config for member in adapter.members}
    return max(int(site.atom_ids.max()) + 1, configs.get(site.member, adapter.config).atoms)


def _folded(site: SparseSite, sample: SiteSamples, chosen: list[Direction], first: int, fitted: bool) -> SparseSite:
    count, dtype, device = len(chosen), site.encoder_weight.dtype, site.encoder_weight.device
    threshold = site.threshold.detach().cpu().double()
    weight, bias = _fitted(site, sample, chosen, threshold) if fitted else (threshold.new_zeros(site.d_in, count), threshold.new_zeros(count))
    if first + count > MOST_ATOMS:
        raise SelectionError(f"{site.key} has no ids left for {count} new atoms, they end at {MOST_ATOMS - 1:,}; fold an earlier file of this adapter.")
    folded = SparseSite(
        site.name,
        site.encoder,
        encoder_weight=weight.T.to(device, dtype).contiguous(),
        encoder_basis=None,
        encoder_bias=bias.to(device, dtype),
        dictionary_weight=torch.stack([c.vector for c in chosen]).to(device, dtype),
        dictionary_basis=None,
        encoder_mean=site.encoder_mean.clone(),
        encoder_scale=site.encoder_scale.clone(),
        threshold=threshold.to(device, site.threshold.dtype).clone(),
        atom_ids=torch.arange(first, first + count, dtype=torch.int32, device=device),
        member=site.member,
    )
    folded.firing = torch.zeros(count, device=device)
    if fitted:
        c = folded.coefficients(sample.x.detach().to(device, torch.float32))
        folded.importance = c.abs().mean(0).float() * folded.dictionary_norms()
        folded.firing = (c != 0).float().mean(0)
    folded.requires_grad_(site.encoder_weight.requires_grad)
    return folded


def _fitted(site: SparseSite, sample: SiteSamples, chosen: list[Direction], threshold: Tensor) -> tuple[Tensor, Tensor]:
    """The encoder (weight (d_in, k), bias (k)) of atoms along `chosen`, silent on quiet inputs."""
    wanted = site.encoder.preactivations_for(torch.stack([c.target for c in chosen], dim=1), threshold)  # (N, k)
    x = _standardised(site, sample.x)
    if sample.quiet is not None:
        quiet = _standardised(site, sample.quiet)
        x, wanted = torch.cat([x, quiet]), torch.cat([wanted, wanted.new_zeros(len(quiet), len(chosen))])
    return _ridge(x, wanted)


def _standardised(site: SparseSite, x: Tensor) -> Tensor:
    return standardise(x.detach().cpu().double(), site.encoder_mean.cpu().double(), site.encoder_scale.cpu().double())


def _ridge(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(weight (d, k), bias (k)) of the ridge regression of y (N, k) on x (N, d), the bias unpunished."""
    x_mean, y_mean = x.mean(0), y.mean(0)
    x, y = x - x_mean, y - y_mean
    system = x.T @ x / len(x)
    system.diagonal().add_(RIDGE * float(system.diagonal().mean()) + 1e-12)
    weight = torch.linalg.solve(system, x.T @ y / len(x))
    return weight, y_mean - x_mean @ weight


def _empty(site: SparseSite) -> SparseSite:
    """The site without atoms; it stays in the adapter, so its layer and streams stay known."""
    empty = site.clone()
    empty.keep(torch.zeros(site.atoms, dtype=torch.bool))
    empty.fold()
    return empty


def _dense(config: AdapterConfig, sites: Iterable[SparseSite]) -> AdapterConfig:
    """The config of the folded sites, with all their ids below its `atoms`, so that the next folding knows them as used."""
    used = max((int(site.atom_ids.max()) + 1 for site in sites if site.atoms), default=0)
    return replace(config, atoms=max(config.atoms, used), rank=None)


def _with_gradients(samples: dict[str, SiteSamples]) -> bool:
    return any(sample.gradient is not None for sample in samples.values())
