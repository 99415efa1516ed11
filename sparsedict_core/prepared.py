"""The tensors that a call really uses: gains, prefix, dtype and device applied, and kept while nothing changes.

Cached only where no gradient is wanted. A change in place is seen by the tensors' version counters; only writing
through `.data` is not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .functional import SiteTensors, dense_is_smaller, prepare
from .site import SparseSite


def apply_gains(tensors: SiteTensors, gains: Tensor) -> SiteTensors:
    """Gains (m) go into the dictionary's rows; atoms of gain 0 are left out, so they cost nothing."""
    gains = gains.to(device=tensors.dictionary_weight.device, dtype=tensors.dictionary_weight.dtype)
    index = gains.nonzero().flatten()
    if len(index) < len(gains):
        tensors, gains = tensors.select(index), gains[index]
    if bool((gains != 1).any()):
        tensors = tensors._replace(dictionary_weight=tensors.dictionary_weight * gains[:, None])
    return tensors


def fold_tensors(tensors: SiteTensors) -> SiteTensors:
    """Bases multiplied in where that makes the call cheaper."""
    atoms = tensors.encoder_weight.shape[0]
    basis = tensors.encoder_basis
    if basis is not None and dense_is_smaller(atoms, *basis.shape):
        tensors = tensors._replace(encoder_weight=tensors.encoder_weight @ basis, encoder_basis=None)
    basis = tensors.dictionary_basis
    if basis is not None and dense_is_smaller(atoms, *basis.shape):
        tensors = tensors._replace(dictionary_weight=tensors.dictionary_weight @ basis, dictionary_basis=None)
    return tensors


def _version(tensor: Tensor | None) -> tuple[int, int]:
    if tensor is None:
        return (0, 0)
    # Inference tensors have no version counter.
    return (tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version)


class PreparedSite:
    """One site's tensors, made ready for the calls of one attachment."""

    def __init__(self, site: SparseSite) -> None:
        self.site = site
        self.gains: Tensor | None = None
        self.silent = site.atoms == 0
        self._cached: SiteTensors | None = None
        self._cached_from: SiteTensors | None = None
        self._cache_key: Any = None

    def set_gains(self, gains: Tensor | None) -> None:
        """Gains (m), or None for all ones."""
        if gains is not None and bool((gains == 1).all()):
            gains = None
        self.gains = gains
        self.silent = self.site.atoms == 0 or (gains is not None and not bool(gains.any()))
        self._cached = self._cached_from = self._cache_key = None

    def tensors(self, dtype: torch.dtype, device: torch.device, prefix: int | None = None, all_atoms: bool = False) -> SiteTensors:
        """Ready for `encode` and `decode`. `all_atoms`: without the gains, as observers want every coefficient."""
        raw = self.site.tensors()
        if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in raw):
            return self._make(raw, dtype, device, prefix, all_atoms)
        if torch.compiler.is_compiling():
            return self._make(raw, dtype, device, prefix, all_atoms)
        key = (dtype, device, prefix, all_atoms, torch.is_inference_mode_enabled(), *map(_version, raw))
        if self._cached is None or self._cache_key != key:
            made = self._make(raw, dtype, device, prefix, all_atoms)
            # The originals are kept alive, so that no new tensor can get their addresses.
            self._cached, self._cached_from, self._cache_key = made, raw, key
        return self._cached

    def spread(self, coefficients: Tensor, prefix: int | None = None) -> Tensor:
        """Coefficients of the atoms that the gains leave (..., k), with zeros at the others' places, (..., m)."""
        if self.gains is None:
            return coefficients
        gains = self.gains if prefix is None else self.gains[:prefix]
        index = gains.nonzero().flatten().to(coefficients.device)
        full = coefficients.new_zeros((*coefficients.shape[:-1], len(gains)))
        return full.index_copy(-1, index, coefficients)

    def _make(self, raw: SiteTensors, dtype: torch.dtype, device: torch.device, prefix: int | None, all_atoms: bool) -> SiteTensors:
        gains = None if all_atoms else self.gains
        if prefix is not None and prefix < self.site.atoms:
            raw = raw.prefix(prefix)
            gains = None if gains is None else gains[:prefix]
        tensors = raw.cast(raw.encoder_weight.dtype, device)
        tensors = prepare(tensors, self.site.encoder)
        if gains is not None:
            tensors = apply_gains(tensors, gains)
            if not torch.is_grad_enabled():
                tensors = fold_tensors(tensors)
        return tensors.cast(dtype, device)
