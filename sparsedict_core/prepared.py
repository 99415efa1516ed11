"""The tensors that a call really uses: gains, prefix, dtype and device applied, and kept while nothing changes.

Cached only where no gradient is wanted. A change in place is seen by the tensors' version counters; only writing
through `.data` is not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .functional import SiteTensors, absorb_threshold, prepare
from .site import SparseSite


def apply_gains(tensors: SiteTensors, gains: Tensor) -> SiteTensors:
    """Gains (m) go into the dictionary's rows; atoms of gain 0 are left out, so they cost nothing."""
    # Looked at where the gains are, on the CPU as a rule: asking a GPU how many there are would wait for it.
    index = gains.nonzero().flatten()
    device, dtype = tensors.dictionary_weight.device, tensors.dictionary_weight.dtype
    if len(index) < len(gains):
        tensors, gains = tensors.select(index.to(device)), gains[index]
    if bool((gains != 1).any()):
        tensors = tensors._replace(dictionary_weight=tensors.dictionary_weight * gains.to(device=device, dtype=dtype)[:, None])
    return tensors


def fold_is_worth_it(atoms: int, rank: int, width: int) -> bool:
    """Whether multiplying a basis in at least halves the work of a token: below that the product isn't earned back by many calls."""
    return 2 * atoms * width <= rank * (atoms + width)


def fold_tensors(tensors: SiteTensors) -> SiteTensors:
    """Bases multiplied in where that makes the call much cheaper."""
    atoms = tensors.encoder_weight.shape[0]
    basis = tensors.encoder_basis
    if basis is not None and fold_is_worth_it(atoms, *basis.shape):
        tensors = tensors._replace(encoder_weight=tensors.encoder_weight @ basis, encoder_basis=None)
    basis = tensors.dictionary_basis
    if basis is not None and fold_is_worth_it(atoms, *basis.shape):
        tensors = tensors._replace(dictionary_weight=tensors.dictionary_weight @ basis, dictionary_basis=None)
    return tensors


def _version(tensor: Tensor | None) -> tuple[int, int]:
    if tensor is None:
        return (0, 0)
    # Inference tensors have no version counter.
    return (tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version)


class PreparedSite:
    """One site's tensors, made ready for the calls of one attachment."""

    def __init__(self, site: SparseSite, device: torch.device | None = None) -> None:
        """`device`: where the site's module is, as far as that is known."""
        self.site = site
        self.gains: Tensor | None = None
        self.silent = site.atoms == 0
        # Written to and never replaced, so that compiled code and captured graphs see each change; in inference mode it could
        # only be written to there.
        with torch.inference_mode(False):
            self.scale = torch.ones(site.atoms, device=device)  # strength · gains (m)
        self._base: SiteTensors | None = None
        self._base_from: SiteTensors | None = None
        self._base_key: Any = None
        self._cached: SiteTensors | None = None
        self._cache_key: Any = None

    def set_gains(self, gains: Tensor | None) -> None:
        """Gains (m), or None for all ones."""
        if gains is not None and bool((gains == 1).all()):
            gains = None
        self.gains = gains
        self.silent = self.site.atoms == 0 or (gains is not None and not bool(gains.any()))
        self._cached = self._cache_key = None

    @torch.no_grad()
    def set_strength(self, strength: float) -> None:
        """Keep `scale` up to date; after a change of strength or gains."""
        if self.gains is None:
            self.scale.fill_(strength)
        else:
            self.scale.copy_(self.gains * strength)

    def tensors(
        self, dtype: torch.dtype, device: torch.device, prefix: int | None = None, all_atoms: bool = False, rectified: bool = False
    ) -> SiteTensors:
        """Ready for `encode` and `decode`. `all_atoms`: without the gains, as observers want every coefficient; `rectified`:
        with the threshold in the bias, ready for `functional.rectified`."""
        raw = self.site.tensors()
        if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in raw):
            return self._finish(self._absorb(raw, device), dtype, prefix, all_atoms, rectified)
        base_key = (device, torch.is_inference_mode_enabled(), *map(_version, raw))
        if self._base is None or self._base_key != base_key:
            # The originals are kept alive, so that no new tensor can get their addresses.
            self._base, self._base_from, self._base_key = self._absorb(raw, device), raw, base_key
            self._cached = None
        key = (dtype, prefix, all_atoms, rectified)
        if self._cached is None or self._cache_key != key:
            self._cached, self._cache_key = self._finish(self._base, dtype, prefix, all_atoms, rectified), key
        return self._cached

    def traced(self, dtype: torch.dtype, device: torch.device) -> SiteTensors:
        """For compiled code and captured graphs: all atoms, with strength and gains as the values of a tensor, so that neither
        shapes nor constants depend on them. Nothing is kept, as the small tensors are made within the graph."""
        tensors = self._absorb(self.site.tensors(), device)
        scale = self.scale.to(device=device, dtype=tensors.dictionary_weight.dtype)
        tensors = tensors._replace(dictionary_weight=tensors.dictionary_weight * scale[:, None])
        return tensors.cast(dtype, device)

    def spread(self, coefficients: Tensor, prefix: int | None = None) -> Tensor:
        """Coefficients of the atoms that the gains leave (..., k), with zeros at the others' places, (..., m)."""
        if self.gains is None:
            return coefficients
        gains = self.gains if prefix is None else self.gains[:prefix]
        index = gains.nonzero().flatten().to(coefficients.device)
        full = coefficients.new_zeros((*coefficients.shape[:-1], len(gains)))
        return full.index_copy(-1, index, coefficients)

    def _absorb(self, raw: SiteTensors, device: torch.device) -> SiteTensors:
        return prepare(raw.cast(raw.encoder_weight.dtype, device), self.site.encoder)

    def _finish(self, tensors: SiteTensors, dtype: torch.dtype, prefix: int | None, all_atoms: bool, rectified: bool) -> SiteTensors:
        gains = None if all_atoms else self.gains
        if prefix is not None and prefix < self.site.atoms:
            tensors = tensors.prefix(prefix)
            gains = None if gains is None else gains[:prefix]
        if rectified:
            tensors = absorb_threshold(tensors)
        if gains is not None:
            tensors = apply_gains(tensors, gains)
            if not torch.is_grad_enabled():
                tensors = fold_tensors(tensors)
        return tensors.cast(dtype, tensors.encoder_weight.device)
