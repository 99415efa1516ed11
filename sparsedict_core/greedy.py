"""The compressor: a nested order of all atoms by orthogonal matching pursuit, and the ridge refit of those kept.

Both need only G = E[CᵀC] and the dictionaries: T = E[CᵀΔO] is G·D, and norms of rows of T are taken in a basis of D's row
space, so the cost does not grow with the model's width. Our choice (docs/method.md). Float64 throughout.
A site's G may carry a weight (trainer/calibrate.py): within the site nothing depends on it, over all sites "energy" then is the
weighted energy.
"""

from __future__ import annotations

import heapq
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from .adapter import SparseAdapter
from .errors import SelectionError
from .site import SparseSite

RIDGE = 1e-3
KNOWN = 1e-3
WITHOUT = "so nothing can be told from them: select by importance and without refit, or train again"
_BATCH_NUMBERS = 1 << 23


@dataclass(frozen=True)
class GreedyOrder:
    """All atoms, best first; `energy[i]` is the share of the output's energy that the first i + 1 can keep with refit."""

    atoms: list[tuple[str, int]]  # (site key, row)
    energy: Tensor  # (N) float64


def moments_of(adapter: SparseAdapter) -> dict[str, Tensor]:
    """G (m, m) float64 by site key. Raises SelectionError if a site with atoms has none."""
    found = {}
    for key, site in adapter.sites.items():
        if site.moments is None and site.atoms:
            raise SelectionError(
                f"{key} has no moments, which greedy order and refit need; train or save the adapter with moments, or select by importance."
            )
        moments = site.moments if site.moments is not None else site.importance.new_zeros(0, 0)
        found[key] = moments.detach().cpu().double()
    return found


def has_moments(adapter: SparseAdapter) -> bool:
    """Whether energies are known: every site with atoms has moments."""
    return all(site.atoms == 0 or site.moments is not None for site in adapter.sites.values())


def dictionary_coordinates(site: SparseSite) -> Tensor:
    """D's rows in an orthonormal basis of its row space, (m, q) with q ≤ r or m; float64. Inner products are D's."""
    weight = site.dictionary_weight.detach().cpu().double()
    basis = site.dictionary_basis
    if basis is not None:
        return weight @ torch.linalg.qr(basis.detach().cpu().double().T, mode="r").R.T
    if weight.shape[0] < weight.shape[1]:
        return torch.linalg.qr(weight.T, mode="r").R.T
    return weight


def pursue(gram: Tensor, coordinates: Tensor) -> tuple[Tensor, Tensor]:
    """Orthogonal matching pursuit at S sites at once: G (S, m, m), D's coordinates (S, m, q) → order and gains (S, m).

    At each step a site takes the atom of the largest ‖T_j‖²/G_jj; a pivoted Cholesky of G does the Gram–Schmidt update.
    """
    sites, atoms, _ = gram.shape
    row = torch.arange(sites)
    remaining = gram.diagonal(dim1=1, dim2=2).clone()  # (S, m)
    # Moments are fp32: what is left of an atom beside the chosen ones is known to a share of its own. Less is rounding, which the steps
    # enlarge: of near copies the energies came to a hundred times the whole.
    floor = torch.maximum(remaining.amax(dim=1, keepdim=True) * 1e-10, remaining * KNOWN)
    target = gram @ coordinates  # T (S, m, q)
    factor = gram.new_zeros(sites, atoms, atoms)
    taken = torch.zeros(sites, atoms, dtype=torch.bool)
    order = torch.zeros(sites, atoms, dtype=torch.long)
    gains = gram.new_zeros(sites, atoms)
    for step in range(atoms):
        score = target.square().sum(-1) / remaining.clamp(min=1e-300)
        # What is left of an atom that the chosen ones span is rounding, not a direction.
        score = torch.where(remaining > floor, score, torch.zeros_like(score)).masked_fill(taken, -1.0)
        best, pick = score.max(dim=1)
        order[:, step], gains[:, step] = pick, best.clamp(min=0)
        taken[row, pick] = True
        pivot = remaining[row, pick]
        root = torch.where(pivot > floor[row, pick], pivot.clamp(min=1e-300).rsqrt(), torch.zeros_like(pivot))
        known = factor[:, :, :step]
        column = gram[row, :, pick] - torch.einsum("smk,sk->sm", known, known[row, pick])
        column = column * root[:, None]
        factor[:, :, step] = column
        remaining = (remaining - column.square()).clamp(min=0)
        target = target - column[:, :, None] * (target[row, pick] * root[:, None])[:, None, :]
    return order, gains


def greedy_order(adapter: SparseAdapter) -> GreedyOrder:
    """The order over all sites together. Raises SelectionError without moments."""
    moments = moments_of(adapter)
    sequences: dict[str, tuple[list[int], list[float]]] = {}
    total = 0.0
    groups: dict[tuple[int, int], list[tuple[str, Tensor]]] = {}
    for key, site in adapter.sites.items():
        coordinates = dictionary_coordinates(site)
        total += float((moments[key] * (coordinates @ coordinates.T)).sum())
        groups.setdefault((site.atoms, coordinates.shape[1]), []).append((key, coordinates))
    for (atoms, _), same_shape in groups.items():
        if atoms == 0:
            continue
        size = max(1, _BATCH_NUMBERS // (atoms * atoms))
        for start in range(0, len(same_shape), size):
            batch = same_shape[start : start + size]
            order, gains = pursue(torch.stack([moments[key] for key, _ in batch]), torch.stack([c for _, c in batch]))
            for i, (key, _) in enumerate(batch):
                sequences[key] = (order[i].tolist(), gains[i].tolist())
    # A site's own sequence does not depend on the other sites, so the order over all is a merge by the next gain.
    keys = list(sequences)
    heap = [(-sequences[key][1][0], index, 0) for index, key in enumerate(keys)]
    heapq.heapify(heap)
    atoms_in_order: list[tuple[str, int]] = []
    energies: list[float] = []
    while heap:
        negative, index, step = heapq.heappop(heap)
        order_here, gains_here = sequences[keys[index]]
        atoms_in_order.append((keys[index], order_here[step]))
        energies.append(-negative)
        if step + 1 < len(order_here):
            heapq.heappush(heap, (-gains_here[step + 1], index, step + 1))
    energy = torch.tensor(energies, dtype=torch.float64).cumsum(0) / (total or 1.0)
    if len(energy) and not _is_share(float(energy[-1])):
        raise SelectionError(f"the moments cannot be those of any coefficients, {WITHOUT}.")
    return GreedyOrder(atoms_in_order, energy)


def refit_matrix(gram: Tensor, mask: Tensor) -> Tensor:
    """A (k, m) with D' = A·D: A = (G_kk + λI)⁻¹(G_k: + λP_k), λ = 1e-3 × mean diag G_kk; P_k picks the kept rows."""
    kept = mask.nonzero().flatten()
    block = gram[kept][:, kept]
    rows = torch.eye(len(mask), dtype=gram.dtype)[kept]
    ridge = RIDGE * float(block.diagonal().mean()) if len(kept) else 0.0
    if ridge <= 0:
        # Atoms that never fired say nothing about the others.
        return rows
    system = block + ridge * torch.eye(len(kept), dtype=gram.dtype)
    try:
        return torch.linalg.solve(system, gram[kept] + ridge * rows)
    except torch.linalg.LinAlgError as error:
        raise SelectionError(f"the moments cannot be those of any coefficients, {WITHOUT}.") from error


@torch.no_grad()
def refit_site(site: SparseSite, mask: Tensor) -> None:
    """Drop the atoms where `mask` (m) is false and refit the kept rows to the full site's output, in place."""
    if site.atoms == 0 or not bool(mask.any()):
        site.keep(mask)
        return
    assert site.moments is not None
    before = site.dictionary_norms()
    matrix = refit_matrix(site.moments.detach().cpu().double(), mask.cpu())
    weight = site.dictionary_weight
    refitted = (matrix @ weight.detach().cpu().double()).to(device=weight.device, dtype=weight.dtype)
    site.keep(mask)
    site.dictionary_weight = torch.nn.Parameter(refitted, requires_grad=weight.requires_grad)
    # Importance is E|C|·‖D‖, and only ‖D‖ has changed.
    old = before[mask.to(before.device)]
    site.importance = torch.where(old > 0, site.importance * site.dictionary_norms() / old.clamp(min=1e-30), site.importance)


def energy_kept(adapter: SparseAdapter, masks: dict[str, Tensor], refit: bool = False) -> float | None:
    """1 − ‖ΔO − ΔO_kept‖²/‖ΔO‖² over all sites, exact on the calibration data; None where it is not known."""
    if not has_moments(adapter):
        return None
    total = lost = 0.0
    for key, gram in moments_of(adapter).items():
        site, mask = adapter.sites[key], masks[key].cpu()
        if site.atoms == 0:
            continue
        coordinates = dictionary_coordinates(site)
        products = coordinates @ coordinates.T
        total += float((gram * products).sum())
        if refit:
            error = torch.eye(site.atoms, dtype=torch.float64)
            error[mask] -= refit_matrix(gram, mask)
            lost += float(((error.T @ gram @ error) * products).sum())
        else:
            dropped = (~mask).nonzero().flatten()
            lost += float((gram[dropped][:, dropped] * products[dropped][:, dropped]).sum())
    kept = 1.0 if total == 0 else 1.0 - lost / total
    if not _is_share(kept):
        warnings.warn(f"the file's moments cannot be those of any coefficients, {WITHOUT}.", stacklevel=2)
        return None
    return kept


def _is_share(energy: float) -> bool:
    """Whether it is a share of an energy, to rounding. What a file calls moments may have a sum below 0, or keep more than all."""
    return -1e-3 <= energy <= 1 + 1e-3
