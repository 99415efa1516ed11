"""Other atoms for the same update: a linear site's atoms may be mixed by any invertible matrix if its encoder is mixed by the inverse.

Which mix is easiest to read is a question to the coefficients that calibration inputs give: `principal` takes the directions in which the
output moves most, `varimax` turns these so that at each token few of them are at work.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .errors import SiteError
from .low_rank import is_linear, linear_factors, linear_site
from .site import SparseSite

#: From coefficients (N, m) of uncorrelated atoms to a mix (m, m): new coefficients are C·mixᵀ.
Mix = Callable[[Tensor], Tensor]


def principal(coefficients: Tensor) -> Tensor:
    """The directions as they come: uncorrelated, the loudest first."""
    return torch.eye(coefficients.shape[1], dtype=coefficients.dtype)


def varimax(coefficients: Tensor, rounds: int = 100, tolerance: float = 1e-8) -> Tensor:
    """The orthogonal mix whose squared coefficients vary most over the tokens (Kaiser's criterion)."""
    count, atoms = coefficients.shape
    turn, reached = torch.eye(atoms, dtype=coefficients.dtype), 0.0
    for _ in range(rounds):
        turned = coefficients @ turn
        slope = coefficients.T @ (turned**3 - turned * turned.square().mean(0)) / count
        u, values, v = torch.linalg.svd(slope)
        turn = u @ v
        if float(values.sum()) < reached * (1 + tolerance):
            break
        reached = float(values.sum())
    return turn.T


@torch.no_grad()
def rotate(site: SparseSite, coefficients: Tensor, mix: Mix) -> SparseSite:
    """A new site of the same update whose atoms are mixed by `mix`, with importance from `coefficients` (N, m), which are this site's.

    Ids begin at 0 again, as no old atom is among the new ones. Raises SiteError for a site with thresholds.
    """
    if not is_linear(site):
        raise SiteError(f"{site.key} has thresholds, so other atoms would do something else; only linear sites can be rotated.")
    down, up = linear_factors(site)
    basis, triangle = torch.linalg.qr(up)  # (d_out, m), (m, m)
    c = coefficients.double() @ triangle.T  # the update in that basis
    turn = torch.linalg.eigh(c.T @ c).eigenvectors.flip(1)
    encoder, atoms, c = turn.T @ triangle @ down, turn.T @ basis.T, c @ turn
    matrix = mix(c).double()
    encoder, atoms, c = matrix @ encoder, torch.linalg.inv(matrix).T @ atoms, c @ matrix.T
    # As in an imported LoRA both sides carry the same share, so that neither is too small for half precision.
    balance = (encoder.norm(dim=1) / atoms.norm(dim=1).clamp(min=1e-300)).clamp(min=1e-300).sqrt()
    encoder, atoms = encoder / balance[:, None], atoms * balance[:, None]
    importance = (c / balance).abs().mean(0) * atoms.norm(dim=1)
    order = importance.argsort(descending=True)
    made = linear_site(site.name, encoder[order], atoms[order], importance[order], site.encoder_weight.dtype)
    made.member = site.member
    made.moments = ((c / balance)[:, order].T @ (c / balance)[:, order] / len(c)).float()
    return made
