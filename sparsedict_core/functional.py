"""The layer as pure functions on tensors: O' = O + s · (C ⊙ g) · D.

The equation and the meaning of C are the paper's; how C is computed from the site's input is our choice.
Knows encoders only through their interface, and neither modules nor files.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from .encoders import Encoder

SUBSAMPLE_LIMIT = 16384


class SiteTensors(NamedTuple):
    """One site's tensors. `mean`/`scale` None: input not standardised; a basis None: that side is dense."""

    encoder_weight: Tensor  # (m, r) or (m, d_in)
    encoder_basis: Tensor | None  # (r, d_in)
    encoder_bias: Tensor  # (m)
    encoder_mean: Tensor | None  # (d_in)
    encoder_scale: Tensor | None  # (d_in)
    threshold: Tensor  # ()
    dictionary_weight: Tensor  # (m, r) or (m, d_out)
    dictionary_basis: Tensor | None  # (r, d_out)

    def cast(self, dtype: torch.dtype, device: torch.device) -> SiteTensors:
        """The same tensors in another dtype and on another device; no copy where nothing changes."""
        if all(t is None or (t.dtype == dtype and t.device == device) for t in self):
            return self
        return SiteTensors._make(None if t is None else t.to(device=device, dtype=dtype) for t in self)

    def on(self, device: torch.device) -> SiteTensors:
        """The same tensors on another device, each in its own dtype."""
        return SiteTensors._make(None if t is None else t.to(device) for t in self)

    def exact(self) -> SiteTensors:
        """In float64 on the CPU."""
        # In two steps, as Apple's GPUs know no float64, not even on the way to the CPU.
        return SiteTensors._make(None if t is None else t.cpu().double() for t in self)

    def prefix(self, count: int) -> SiteTensors:
        """The first `count` atoms, as views."""
        return self._replace(
            encoder_weight=self.encoder_weight[:count],
            encoder_bias=self.encoder_bias[:count],
            dictionary_weight=self.dictionary_weight[:count],
        )

    def select(self, index: Tensor) -> SiteTensors:
        """The atoms at `index` (k), copied."""
        return self._replace(
            encoder_weight=self.encoder_weight.index_select(0, index),
            encoder_bias=self.encoder_bias.index_select(0, index),
            dictionary_weight=self.dictionary_weight.index_select(0, index),
        )


def standardise(x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """x̂ = (x − mean) / scale; x (..., d_in), mean and scale (d_in)."""
    return (x - mean) / scale


def absorb_standardisation(tensors: SiteTensors) -> SiteTensors:
    """The same site for raw inputs: B ← B/σ and b ← b − W·(B·μ/σ), so no pass over the tokens is spent on x̂."""
    mean, scale = tensors.encoder_mean, tensors.encoder_scale
    if mean is None or scale is None:
        return tensors
    weight, basis = tensors.encoder_weight, tensors.encoder_basis
    # Products and sums rather than matmuls: autocast would run matmuls in half precision, and here
    # two large numbers may cancel.
    if basis is None:
        weight = weight / scale
        shift = (weight * mean).sum(-1)
    else:
        basis = basis / scale
        shift = (weight * (basis * mean).sum(-1)).sum(-1)
    return tensors._replace(
        encoder_weight=weight,
        encoder_basis=basis,
        encoder_bias=tensors.encoder_bias - shift,
        encoder_mean=None,
        encoder_scale=None,
    )


def absorb_threshold(tensors: SiteTensors) -> SiteTensors:
    """For encoders that rectify: b ← b − τ, so that C = ReLU(u) of the new u."""
    return tensors._replace(encoder_bias=tensors.encoder_bias - tensors.threshold)


def preactivations(x: Tensor, weight: Tensor, basis: Tensor | None, bias: Tensor) -> Tensor:
    """u = W·(B·x) + b; x (..., d_in) → (..., m)."""
    if basis is not None:
        x = F.linear(x, basis)
    return F.linear(x, weight, bias)


def decode(coefficients: Tensor, weight: Tensor, basis: Tensor | None) -> Tensor:
    """ΔO = C·D with D = W or W·B; C (..., m) → (..., d_out)."""
    update = torch.matmul(coefficients, weight)
    return update if basis is None else torch.matmul(update, basis)


def prepare(tensors: SiteTensors) -> SiteTensors:
    """The tensors that raw inputs meet, with the standardisation absorbed, in float32 at least where there is one."""
    weight = tensors.encoder_weight
    if weight.dtype in (torch.float16, torch.bfloat16) and tensors.encoder_mean is not None:
        tensors = tensors.cast(torch.float32, weight.device)
    return absorb_standardisation(tensors)


def rectified(x: Tensor, tensors: SiteTensors) -> Tensor:
    """C (..., m) for x (..., d_in) and tensors that went through `prepare` and `absorb_threshold`; one tensor in all."""
    return preactivations(x, tensors.encoder_weight, tensors.encoder_basis, tensors.encoder_bias).relu_()


def add_decoded(
    output: Tensor, coefficients: Tensor, weight: Tensor, basis: Tensor | None, strength: float = 1.0, in_place: bool = False
) -> Tensor:
    """O + s·(C·D) without a tensor for C·D; output (..., d_out) and C (..., m) of one dtype.

    `in_place`: into `output` itself, where its dtype allows that; the caller knows that it is contiguous and that nobody else holds it.
    """
    if basis is not None:
        coefficients = torch.matmul(coefficients, weight)
        weight = basis
    flat = coefficients.reshape(-1, weight.shape[0])
    if in_place and output.dtype == flat.dtype == weight.dtype:
        output.view(-1, output.shape[-1]).addmm_(flat, weight, alpha=strength)
        return output
    return torch.addmm(output.reshape(-1, output.shape[-1]), flat, weight, alpha=strength).reshape(output.shape)


def encode(x: Tensor, tensors: SiteTensors, encoder: Encoder) -> tuple[Tensor, Tensor]:
    """(u, C), both (..., m), for x (..., d_in) and tensors that went through `prepare`."""
    u = preactivations(x, tensors.encoder_weight, tensors.encoder_basis, tensors.encoder_bias)
    return u, encoder.coefficients(u, tensors.threshold)


def site_update(x: Tensor, tensors: SiteTensors, encoder: Encoder, gains: Tensor | None = None, strength: float = 1.0) -> Tensor:
    """s · (C ⊙ g) · D, shape (..., d_out), for x (..., d_in) and gains (m)."""
    tensors = prepare(tensors).cast(x.dtype, x.device)
    coefficients = encode(x, tensors, encoder)[1]
    if gains is not None:
        coefficients = coefficients * gains.to(coefficients)
    update = decode(coefficients, tensors.dictionary_weight, tensors.dictionary_basis)
    return update if strength == 1.0 else strength * update


def widened(values: Tensor) -> Tensor:
    """In float64 for sums over many tokens, where they are; Apple's GPUs know no float64, so on the CPU there."""
    return values.cpu().double() if values.device.type == "mps" else values.double()


def row_energies(coefficients: Tensor, weight: Tensor, basis: Tensor | None) -> Tensor:
    """E‖ΔO‖² per channel of each row, (B) in fp32, for C (B, ..., m) and D = W or W·B.

    As c·(D·Dᵀ)·cᵀ, summed over the tokens: its backward keeps C, or C·W where there is a basis, and no ΔO, which can fill a card.
    """
    with torch.autocast(coefficients.device.type, enabled=False):
        if basis is not None:
            coefficients, weight = torch.matmul(coefficients, weight.to(coefficients)), basis
        tokens = coefficients.reshape(coefficients.shape[0], -1, coefficients.shape[-1]).float()  # (B, T, k)
        weight = weight.float()
        moments = torch.bmm(tokens.transpose(1, 2), tokens)  # (B, k, k)
        return (moments * (weight @ weight.T)).sum((1, 2)) / max(1, tokens.shape[1] * weight.shape[1])


def dense_is_smaller(atoms: int, rank: int, width: int) -> bool:
    """Whether (atoms, width) takes no more numbers than (atoms, rank) and (rank, width)."""
    return atoms * width <= atoms * rank + rank * width


def most_of_a_row(rows: int, limit: int = SUBSAMPLE_LIMIT) -> int:
    """How many values `magnitude_subsample` takes of a row at the most."""
    return max(1, limit // max(1, rows))


def magnitude_subsample(u: Tensor, rows: int | None = None, limit: int = SUBSAMPLE_LIMIT) -> Tensor:
    """A deterministic subsample of |u|, shape (B, n), for u (B, ..., m).

    `rows` is the number of batch rows of the whole step, over all processes and micro-batches. Each row gives
    the same values however the rows are split, so thresholds do not depend on the split.
    """
    flat = u.detach().reshape(u.shape[0], -1) if u.ndim > 1 else u.detach().reshape(1, -1)
    stride = max(1, math.ceil(flat.shape[1] / most_of_a_row(rows or flat.shape[0], limit)))
    # A stride that shares a factor with m would see some atoms only.
    while math.gcd(stride, u.shape[-1]) != 1 and stride > 1:
        stride += 1
    return flat[:, ::stride].abs()


def magnitude_quantile(magnitudes: Tensor, share: float) -> Tensor:
    """The `share` quantile (lower, exact rank) of the values' magnitudes, a 0-dim tensor."""
    flat = magnitudes.detach().abs().flatten().float()
    if flat.numel() == 0:
        return flat.new_zeros(())
    if flat.numel() > SUBSAMPLE_LIMIT * 4:
        flat = flat[:: math.ceil(flat.numel() / SUBSAMPLE_LIMIT) | 1]
    rank = 1 + int(min(max(share, 0.0), 1.0) * (flat.numel() - 1))
    return flat.kthvalue(rank).values
