"""Atoms from a low-rank change of a Linear's weights, and back: what a LoRA and a linear dictionary have in common.

ΔW = up·down adds up·(down·x) to the output: coefficients are rows of `down` times the input, atoms are columns of `up`. Which of the
many pairs (down, up) of one ΔW is taken is free; singular directions are orthogonal on both sides and ordered. Float64 throughout.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .config import AdapterConfig
from .errors import SiteError
from .site import SiteName, SparseSite

#: Singular values below this share of the largest are rounding.
_NOISE = 1e-12
#: Share of the mean square of an input channel that the regression is damped by.
RIDGE = 1e-3


def singular_factors(down: Tensor, up: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Encoder rows (m, d_in), atoms (m, d_out) and singular values (m), largest first, of up·down; down (r, d_in), up (d_out, r).

    m ≤ r: directions that hold nothing but rounding are left out. Both sides carry the root of their singular value, so that neither
    is too small for half precision.
    """
    left, left_triangle = torch.linalg.qr(up.double())
    right, right_triangle = torch.linalg.qr(down.double().T)
    u, values, v = torch.linalg.svd(left_triangle @ right_triangle.T)
    values = values[: min(u.shape[1], v.shape[0])]
    kept = int((values > _NOISE * values[:1].clamp(min=1e-300)).sum())
    values, root = values[:kept], values[:kept].sqrt()
    return root[:, None] * (right @ v[:kept].T).T, root[:, None] * (left @ u[:, :kept]).T, values


def truncated_factors(update: Tensor, rank: int | None) -> tuple[Tensor, Tensor, float]:
    """(down, up) of the best approximation of `update` (d_out, d_in) with at most `rank` directions, and ‖error‖ / ‖update‖."""
    u, values, v = torch.linalg.svd(update.double(), full_matrices=False)
    kept = int((values > 1e-7 * values[:1].clamp(min=1e-300)).sum())  # of numbers that were float32 at best
    kept = kept if rank is None else min(rank, kept)
    whole = float(values.square().sum())
    lost = 0.0 if whole == 0 else float(values[kept:].square().sum() / whole) ** 0.5
    return v[:kept], u[:, :kept] * values[:kept], lost


def linear_site(name: SiteName, encoder_rows: Tensor, atoms: Tensor, values: Tensor, dtype: torch.dtype = torch.float32) -> SparseSite:
    """A site without a threshold whose update is encoder_rowsᵀ, then atoms: C = x·encoder_rowsᵀ, ΔO = C·atoms.

    `values` (m) are the importance until there is one from calibration: for inputs of unit variance the two are proportional.
    Raises SiteError for values that are not finite in `dtype`.
    """
    stored = [tensor.to(dtype).contiguous() for tensor in (encoder_rows, atoms)]
    if not all(bool(torch.isfinite(tensor).all()) for tensor in stored):
        raise SiteError(f"{name.path}: the update has values that {str(dtype).removeprefix('torch.')} cannot hold; use fp32.")
    site = SparseSite(
        name,
        linear_config(len(values)).make_encoder(),
        encoder_weight=stored[0],
        encoder_basis=None,
        encoder_bias=torch.zeros(len(values), dtype=dtype),
        dictionary_weight=stored[1],
        dictionary_basis=None,
        importance=values.float(),
    )
    return site.requires_grad_(False)


def linear_config(atoms: int) -> AdapterConfig:
    """What a dictionary without thresholds says of itself: every atom is at work everywhere."""
    return AdapterConfig(encoder="linear", atoms=atoms, rank=None, density=1.0)


def is_linear(site: SparseSite) -> bool:
    """Whether the site's update is a fixed linear map of its input, which is what a LoRA can say."""
    return site.encoder.name == "linear" and not site.standardised and not bool(site.encoder_bias.any())


def linear_factors(site: SparseSite) -> tuple[Tensor, Tensor]:
    """(down (m, d_in), up (d_out, m)) of a site for which `is_linear` holds, in float64."""
    tensors = site.tensors().exact()
    down, atoms = tensors.encoder_weight, tensors.dictionary_weight
    down = down if tensors.encoder_basis is None else down @ tensors.encoder_basis
    atoms = atoms if tensors.dictionary_basis is None else atoms @ tensors.dictionary_basis
    return down, atoms.T


def fitted_factors(x: Tensor, update: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(down, up) with at most `rank` directions for which up·down·x comes nearest to `update` (N, d_out) over inputs x (N, d_in).

    Reduced-rank regression: of the ridge regression's answers the principal directions are kept.
    """
    x, update = x.double(), update.double()
    scale = float(x.square().sum()) / max(1, x.shape[1])
    if x.shape[0] < x.shape[1]:
        gram = x @ x.T
        gram.diagonal().add_(RIDGE * scale)
        whole = x.T @ torch.linalg.solve(gram, update)
    else:
        gram = x.T @ x
        gram.diagonal().add_(RIDGE * scale)
        whole = torch.linalg.solve(gram, x.T @ update)
    directions = torch.linalg.svd(x @ whole, full_matrices=False).Vh[:rank]
    return (whole @ directions.T).T, directions.T
