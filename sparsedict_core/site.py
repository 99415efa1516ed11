"""One site: the tensors of one Linear's dictionary, around the pure functions of `functional`.

Knows its own tensors; knows nothing of the model it is attached to, nor of files.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .config import AdapterConfig
from .encoders import Encoder
from .errors import SiteError
from .functional import (
    SiteTensors,
    absorb_standardisation,
    dense_is_smaller,
    encode,
    prepare,
    site_update,
)


class SiteName(NamedTuple):
    """Where a site is: module path with its component, layer number, stream, and the slice of the module's output channels.

    `stream` says what the site closes: "image", "cross" or None for an attention's output, "q", "image.k" or "ff.up" for other
    Linears. `rows` (start, stop) is for a Linear that is fused under this very path; None is the whole output.
    """

    path: str
    layer: int
    stream: str | None = None
    rows: tuple[int, int] | None = None

    @property
    def place(self) -> str:
        """The path, with the slice where there is one: what tells this site from all others of a model."""
        return self.path if self.rows is None else f"{self.path}[{self.rows[0]}:{self.rows[1]}]"


class Place(NamedTuple):
    """A module of a loaded model, and the slice (start, stop) of its output channels that a site acts on; None: all."""

    module: nn.Module
    rows: tuple[int, int] | None = None


def site_key(place: str, member: str | None = None) -> str:
    """The key of a site in its adapter: `SiteName.place`, or `member:place` when composed."""
    return place if member is None else f"{member}:{place}"


def firing_text(site: SparseSite, row: int) -> str:
    """Share of the calibration's tokens at which an atom fires, for tables; a dash where the file doesn't know."""
    return "–" if site.firing is None else f"{float(site.firing[row]):.1%}"


#: What an update is computed from; a site's other tensors tell of it.
TENSORS = ("encoder_weight", "encoder_basis", "encoder_bias", "encoder_mean", "encoder_scale", "threshold", "dictionary_weight", "dictionary_basis")


def _optional(tensor: Tensor | None) -> nn.Parameter | None:
    return None if tensor is None else nn.Parameter(tensor)


class SparseSite(nn.Module):
    """A dictionary of m atoms, dense or through a narrow basis, with the encoder that says when they fire."""

    name: SiteName
    encoder: Encoder
    member: str | None
    encoder_mean: Tensor
    encoder_scale: Tensor
    threshold: Tensor
    importance: Tensor
    atom_ids: Tensor
    firing: Tensor | None
    moments: Tensor | None
    encoder_weight: nn.Parameter
    encoder_basis: nn.Parameter | None
    encoder_bias: nn.Parameter
    dictionary_weight: nn.Parameter
    dictionary_basis: nn.Parameter | None

    def __init__(
        self,
        name: SiteName,
        encoder: Encoder,
        *,
        encoder_weight: Tensor,
        encoder_basis: Tensor | None,
        encoder_bias: Tensor,
        dictionary_weight: Tensor,
        dictionary_basis: Tensor | None,
        encoder_mean: Tensor | None = None,
        encoder_scale: Tensor | None = None,
        threshold: Tensor | None = None,
        importance: Tensor | None = None,
        atom_ids: Tensor | None = None,
        firing: Tensor | None = None,
        moments: Tensor | None = None,
        member: str | None = None,
    ) -> None:
        """Takes the tensors as they are, without copies. Mean and scale None: the input is not standardised."""
        super().__init__()
        atoms, d_in = encoder_weight.shape[0], (encoder_weight if encoder_basis is None else encoder_basis).shape[1]
        # At once: a module looks at each attribute that it is given, which takes most of the time of loading a thousand sites.
        self.__dict__.update(name=name, encoder=encoder, member=member)
        self._parameters.update(
            encoder_weight=nn.Parameter(encoder_weight),
            encoder_basis=_optional(encoder_basis),
            encoder_bias=nn.Parameter(encoder_bias),
            dictionary_weight=nn.Parameter(dictionary_weight),
            dictionary_basis=_optional(dictionary_basis),
        )
        self._buffers.update(
            threshold=encoder.initial_threshold() if threshold is None else threshold,
            # One number for all channels: a file of a few bytes may name many sites of any width.
            encoder_mean=torch.zeros(1).expand(d_in) if encoder_mean is None else encoder_mean,
            encoder_scale=torch.ones(1).expand(d_in) if encoder_scale is None else encoder_scale,
            importance=torch.zeros(atoms) if importance is None else importance,
            atom_ids=torch.arange(atoms, dtype=torch.int32) if atom_ids is None else atom_ids,
            firing=firing,
            moments=moments,
        )

    @classmethod
    def create(
        cls,
        name: SiteName,
        d_in: int,
        d_out: int,
        config: AdapterConfig,
        generator: torch.Generator | None = None,
        encoder: Encoder | None = None,
    ) -> SparseSite:
        """A fresh site, in float32, whose update is exactly zero (our choice).

        Factored: B_e ~ N(0, 1/d), W_e and W_d ~ N(0, 1/r), B_d = 0. Dense: W_e ~ N(0, 1/d), D = 0.
        """

        def normal(rows: int, columns: int) -> Tensor:
            # Bases and weights alike have variance 1/columns.
            return torch.randn(rows, columns, generator=generator) / math.sqrt(columns)

        m, r = config.atoms, config.rank
        return cls(
            name,
            encoder or config.make_encoder(),
            encoder_basis=None if r is None else normal(r, d_in),
            encoder_weight=normal(m, d_in if r is None else r),
            encoder_bias=torch.zeros(m),
            dictionary_weight=torch.zeros(m, d_out) if r is None else normal(m, r),
            dictionary_basis=None if r is None else torch.zeros(r, d_out),
            encoder_mean=torch.zeros(d_in),
            encoder_scale=torch.ones(d_in),
        )

    # -- shapes ---------------------------------------------------------------------------------------------

    @property
    def key(self) -> str:
        return site_key(self.name.place, self.member)

    @property
    def atoms(self) -> int:
        """m"""
        return self.encoder_weight.shape[0]

    @property
    def d_in(self) -> int:
        return (self.encoder_weight if self.encoder_basis is None else self.encoder_basis).shape[1]

    @property
    def d_out(self) -> int:
        return (self.dictionary_weight if self.dictionary_basis is None else self.dictionary_basis).shape[1]

    @property
    def standardised(self) -> bool:
        """Whether mean and scale are anything but 0 and 1. Looks at the values, so it is no question for every call."""
        mean, scale = self._buffers["encoder_mean"], self._buffers["encoder_scale"]
        if mean.stride() == scale.stride() == (0,):
            return (float(mean[0]), float(scale[0])) != (0, 1)
        return bool(mean.any()) or bool((scale != 1).any())

    @property
    def form(self) -> str:
        """`dense`, `factored`, or both named where the two sides differ."""
        encoder = "dense" if self.encoder_basis is None else "factored"
        dictionary = "dense" if self.dictionary_basis is None else "factored"
        return encoder if encoder == dictionary else f"{encoder} encoder, {dictionary} dictionary"

    def extra_repr(self) -> str:
        return f"{self.key}, atoms={self.atoms}, {self.d_in}→{self.d_out}, {self.form}, {self.encoder.name}"

    # -- the layer ------------------------------------------------------------------------------------------

    def tensors(self) -> SiteTensors:
        """The tensors that the update is computed from, as they are."""
        # Read at every call of the model's Linears, and a module's attributes are slow.
        parameters, buffers = self._parameters, self._buffers
        return SiteTensors(
            parameters["encoder_weight"],
            parameters.get("encoder_basis"),
            parameters["encoder_bias"],
            buffers["encoder_mean"],
            buffers["encoder_scale"],
            self.threshold,
            parameters["dictionary_weight"],
            parameters.get("dictionary_basis"),
        )

    def coefficients(self, x: Tensor) -> Tensor:
        """C (..., m) for x (..., d_in)."""
        return encode(x, prepare(self.tensors()).cast(x.dtype, x.device), self.encoder)[1]

    def forward(self, x: Tensor) -> Tensor:
        """ΔO (..., d_out) at strength 1 for x (..., d_in)."""
        return site_update(x, self.tensors(), self.encoder)

    def dictionary(self) -> Tensor:
        """D (m, d_out), in the weights' dtype."""
        weight, basis = self.dictionary_weight, self.dictionary_basis
        return weight if basis is None else weight @ basis

    def dictionary_norms(self) -> Tensor:
        """‖D_j‖₂ (m), float32, without a gradient."""
        weight = self.dictionary_weight.detach().float()
        if self.dictionary_basis is None:
            return weight.norm(dim=-1)
        basis = self.dictionary_basis.detach().float()
        return (weight @ basis).norm(dim=-1)

    # -- changes --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def set_input_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Standardise the input from now on; mean and std (d_in), from the base's own activations.

        A channel that hardly moves is scaled by a hundredth of the site's typical std instead, so that it does not
        shout when it moves after all. Raises SiteError for a wrong shape or non-finite values.
        """
        if mean.shape != (self.d_in,) or std.shape != (self.d_in,):
            raise SiteError(
                f"{self.key}: input statistics have shapes {tuple(mean.shape)} and {tuple(std.shape)}, "
                f"the site takes {self.d_in} channels; collect them at this site."
            )
        if not (torch.isfinite(mean).all() and torch.isfinite(std).all()):
            raise SiteError(f"{self.key}: the input statistics are not finite; collect them from a sound base model.")
        std = std.cpu().double()
        scale = std.clamp(min=1e-2 * float(std.square().mean().sqrt()))
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        target = self.encoder_mean
        self.encoder_mean = mean.to(device=target.device, dtype=torch.float32)
        self.encoder_scale = scale.to(device=target.device, dtype=torch.float32)

    @torch.no_grad()
    def keep(self, mask: Tensor) -> None:
        """Physically keep the atoms where `mask` (m) is true; their ids, and so their addresses, stay."""
        if mask.shape != (self.atoms,):
            raise SiteError(f"{self.key}: the mask has shape {tuple(mask.shape)}, the site has {self.atoms} atoms.")
        index = mask.bool().nonzero().flatten().to(self.encoder_weight.device)

        def rows(parameter: nn.Parameter) -> nn.Parameter:
            return nn.Parameter(parameter[index], requires_grad=parameter.requires_grad)

        self.encoder_weight = rows(self.encoder_weight)
        self.encoder_bias = rows(self.encoder_bias)
        self.dictionary_weight = rows(self.dictionary_weight)
        self.importance = self.importance[index]
        self.atom_ids = self.atom_ids[index]
        if self.firing is not None:
            self.firing = self.firing[index]
        if self.moments is not None:
            self.moments = self.moments[index][:, index]

    @torch.no_grad()
    def fold(self) -> None:
        """Multiply a basis into its weight where that takes no more numbers; the update stays, to rounding."""
        for side in ("encoder", "dictionary"):
            weight: nn.Parameter = getattr(self, f"{side}_weight")
            basis: nn.Parameter | None = getattr(self, f"{side}_basis")
            if basis is None or not dense_is_smaller(self.atoms, basis.shape[0], basis.shape[1]):
                continue
            product = (weight.cpu().double() @ basis.cpu().double()).to(weight)
            setattr(self, f"{side}_weight", nn.Parameter(product, requires_grad=weight.requires_grad))
            setattr(self, f"{side}_basis", None)

    @torch.no_grad()
    def compact(self) -> None:
        """The fewest numbers: `fold`, and a dense encoder takes the standardisation of its input into its rows.

        For finished adapters: training on goes better with standardised inputs.
        """
        self.fold()
        if not self.standardised or self.encoder_basis is not None:
            return
        weight = self.encoder_weight
        raw = absorb_standardisation(self.tensors().exact())
        self.encoder_weight = nn.Parameter(raw.encoder_weight.to(weight), requires_grad=weight.requires_grad)
        self.encoder_bias = nn.Parameter(raw.encoder_bias.to(weight), requires_grad=weight.requires_grad)
        self.encoder_mean = self.encoder_mean.new_zeros(1).expand(self.d_in)
        self.encoder_scale = self.encoder_scale.new_ones(1).expand(self.d_in)

    def has_same_shapes(self, other: SparseSite) -> bool:
        """Whether `other`'s values fit into this site's tensors: the same encoder, shapes and types."""
        pairs = list(zip(self.tensors(), other.tensors(), strict=True))
        same = all((a is None) == (b is None) and (a is None or b is None or (a.shape == b.shape and a.dtype == b.dtype)) for a, b in pairs)
        return same and self.encoder == other.encoder

    @torch.no_grad()
    def take(self, other: SparseSite) -> None:
        """Copy the values of a site that has the same shapes into this one's own tensors."""
        for name, mine in [*self.named_parameters(), *self.named_buffers()]:
            if name in TENSORS and mine.stride() != (0,):
                mine.copy_(getattr(other, name))
        copy = other.clone()
        for name, buffer in copy.named_buffers():
            if name not in TENSORS or getattr(self, name).stride() == (0,):
                setattr(self, name, buffer)

    def clone(self, member: str | None = None) -> SparseSite:
        """A copy with tensors of its own; under `member` when it goes into a composed adapter."""

        def copy(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.detach().clone()

        def statistic(tensor: Tensor) -> Tensor:
            return tensor if tensor.stride() == (0,) else tensor.clone()

        site = SparseSite(
            self.name,
            self.encoder,
            encoder_weight=self.encoder_weight.detach().clone(),
            encoder_basis=copy(self.encoder_basis),
            encoder_bias=self.encoder_bias.detach().clone(),
            dictionary_weight=self.dictionary_weight.detach().clone(),
            dictionary_basis=copy(self.dictionary_basis),
            encoder_mean=statistic(self.encoder_mean),
            encoder_scale=statistic(self.encoder_scale),
            threshold=copy(self.threshold),
            importance=copy(self.importance),
            atom_ids=copy(self.atom_ids),
            firing=copy(self.firing),
            moments=copy(self.moments),
            member=self.member if member is None else member,
        )
        site.requires_grad_(self.encoder_weight.requires_grad)
        return site
