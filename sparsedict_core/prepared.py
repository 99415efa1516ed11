"""The tensors that a call really uses: gains, prefix, dtype and device applied, and kept while nothing changes.

Cached only where no gradient is wanted. A change in place is seen by the tensors' version counters; only writing
through `.data` is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .functional import SiteTensors, absorb_threshold, prepare
from .site import SparseSite


class Choice(NamedTuple):
    """One site's gains, looked at once, on the CPU: asking a GPU how many atoms are left would wait for it."""

    gains: Tensor  # (m)
    kept: Tensor  # (k) rows whose gain is not 0
    weighted: bool  # whether any of those is not 1


def choices(gains: Tensor, sizes: Sequence[int]) -> list[Choice | None]:
    """The choice of each site from the gains of all sites (sum of `sizes`), one after another; None where all are 1.

    A slider changes all sites at once, so all are looked at together: site by site, the small operations would add up.
    """
    ends = torch.tensor(list(sizes), dtype=torch.long).cumsum(0)

    def found(mask: Tensor) -> tuple[Tensor, list[int]]:
        places = mask.nonzero().flatten()
        return places, [0, *torch.searchsorted(places, ends).tolist()]

    kept, kept_to = found(gains != 0)
    changed_to, weighted_to = found(gains != 1)[1], found((gains != 0) & (gains != 1))[1]
    starts = [0, *ends.tolist()]
    made: list[Choice | None] = []
    for i in range(len(sizes)):
        if changed_to[i] == changed_to[i + 1]:
            made.append(None)
            continue
        rows = kept[kept_to[i] : kept_to[i + 1]] - starts[i]
        made.append(Choice(gains[starts[i] : starts[i + 1]], rows, weighted_to[i] < weighted_to[i + 1]))
    return made


def leave_out(tensors: SiteTensors, choice: Choice) -> SiteTensors:
    """Without the atoms of gain 0, so that they cost nothing; `tensors` are of all atoms or of a prefix."""
    atoms = tensors.encoder_weight.shape[0]
    kept = choice.kept if atoms == len(choice.gains) else choice.kept[choice.kept < atoms]
    return tensors if len(kept) == atoms else tensors.select(kept.to(tensors.encoder_weight.device))


def apply_gains(tensors: SiteTensors, choice: Choice) -> SiteTensors:
    """Gains go into the dictionary's rows; `tensors` are those that `leave_out` left."""
    if not choice.weighted:
        return tensors
    weight = tensors.dictionary_weight
    gains = choice.gains[choice.kept[: len(weight)]]
    # A half holds a gain only roughly, so the product is made in float32.
    weight = (weight * gains.to(weight.device, torch.promote_types(weight.dtype, torch.float32))[:, None]).to(weight.dtype)
    return tensors._replace(dictionary_weight=weight)


@torch.no_grad()
def ready(site: SparseSite, dtype: torch.dtype) -> SparseSite:
    """The site for calls in one dtype alone: statistics and threshold are in its weights, so that a call of that dtype copies nothing."""
    tensors = prepare(site.tensors())
    if site.encoder.rectifies:
        tensors = absorb_threshold(tensors)._replace(threshold=torch.zeros_like(tensors.threshold))
    tensors = tensors.cast(dtype, tensors.encoder_weight.device)
    made = SparseSite(site.name, site.encoder, **tensors._asdict(), importance=site.importance, atom_ids=site.atom_ids, member=site.member)
    for name in ("encoder_mean", "encoder_scale"):
        made.register_buffer(name, None)  # nothing is left to standardise
    return made.requires_grad_(False)


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

    def __init__(self, site: SparseSite, scale: Tensor) -> None:
        """`scale` (m): strength · gains, which the attachment writes to and never replaces, so that compiled code and captured
        graphs see each change."""
        self.site = site
        self.scale = scale
        self._moved: SiteTensors | None = None
        self._moved_key: Any = None
        self.choice: Choice | None = None
        self.silent = site.atoms == 0
        self._from: SiteTensors | None = None
        self._from_key: Any = None
        self._absorbed: SiteTensors | None = None
        self._cached: SiteTensors | None = None
        self._cache_key: Any = None

    @property
    def gains(self) -> Tensor | None:
        """The gains (m); None for all ones."""
        return None if self.choice is None else self.choice.gains

    def move(self, device: torch.device) -> None:
        """Copy the site's tensors to the model's device, once for all calls. Parameters that are trained stay where they are."""
        raw = self.site.tensors()
        if all(t is None or t.device == device for t in raw) or any(t is not None and (t.requires_grad or t.is_meta) for t in raw):
            return
        self._moved, self._moved_key = raw.on(device), [_version(t) for t in raw]

    def refresh(self) -> None:
        """Write the site's tensors, which were changed in place, into what `move` made of them: compiled code holds that."""
        raw = self.site.tensors()
        for kept, new in zip(self._moved or (), raw, strict=False):
            if isinstance(kept, Tensor):
                kept.copy_(new)
        self._moved_key = [_version(t) for t in raw]
        self._cached = self._cache_key = None

    def release(self) -> None:
        """Let go of what was made for calls."""
        self._moved = self._from = self._from_key = self._absorbed = self._cached = self._cache_key = None
        self.scale = self.scale.to("cpu")

    def choose(self, choice: Choice | None) -> None:
        """Other gains from the next call on."""
        self.choice = choice
        self.silent = self.site.atoms == 0 or (choice is not None and len(choice.kept) == 0)
        self._cached = self._cache_key = None
        if choice is None:
            self._absorbed = None

    def tensors(
        self,
        dtype: torch.dtype,
        device: torch.device,
        prefix: int | None = None,
        all_atoms: bool = False,
        rectified: bool = False,
        keep: bool = True,
    ) -> SiteTensors:
        """Ready for `encode` and `decode`. `all_atoms`: without the gains, as observers want every coefficient; `rectified`:
        with the threshold in the bias, ready for `functional.rectified`. `keep`: for later calls too."""
        raw = self._raw()
        if not keep or (torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in raw)):
            return self._made(raw, dtype, device, prefix, all_atoms, rectified, keep=False)
        from_key = (device, rectified, torch.is_inference_mode_enabled(), *map(_version, raw))
        if self._from_key != from_key:
            # The originals are kept alive, so that no new tensor can get their addresses.
            self._from, self._from_key = raw, from_key
            self._absorbed = self._cached = None
        key = (dtype, prefix, all_atoms)
        if self._cached is None or self._cache_key != key:
            self._cached, self._cache_key = self._made(raw, dtype, device, prefix, all_atoms, rectified, keep=True), key
        return self._cached

    def traced(self, dtype: torch.dtype, device: torch.device) -> SiteTensors:
        """For compiled code and captured graphs: all atoms, with strength and gains as the values of a tensor, so that neither
        shapes nor constants depend on them. Nothing is kept, as the small tensors are made within the graph."""
        raw = self.site.tensors() if self._moved is None else self._moved
        tensors = self._absorb(raw, device, False)
        tensors = tensors._replace(dictionary_weight=tensors.dictionary_weight * self.scale.to(device)[:, None])
        return tensors.cast(dtype, device)

    def _raw(self) -> SiteTensors:
        """The site's tensors, on the model's device where `move` put them there; a change in place is followed."""
        raw = self.site.tensors()
        if self._moved is None:
            return raw
        key = [_version(t) for t in raw]
        if key != self._moved_key:
            self._moved, self._moved_key = raw.on(self._moved.encoder_weight.device), key
        return self._moved

    def _absorb(self, raw: SiteTensors, device: torch.device, rectified: bool) -> SiteTensors:
        cast = raw._replace(encoder_mean=None, encoder_scale=None).cast(raw.encoder_weight.dtype, device)
        # Statistics stay as exact as they are: what a half cannot hold would become infinite.
        mean, scale = (None if t is None else t.to(device) for t in (raw.encoder_mean, raw.encoder_scale))
        tensors = prepare(cast._replace(encoder_mean=mean, encoder_scale=scale))
        return absorb_threshold(tensors) if rectified else tensors

    def _made(
        self, raw: SiteTensors, dtype: torch.dtype, device: torch.device, prefix: int | None, all_atoms: bool, rectified: bool, keep: bool
    ) -> SiteTensors:
        choice = None if all_atoms else self.choice
        if choice is None:
            return self._of_prefix(self._absorb(raw, device, rectified), prefix).cast(dtype, device)
        if raw.encoder_basis is None:
            tensors = self._absorb(leave_out(self._of_prefix(raw, prefix), choice), device, rectified)
        else:
            # Most of it is the basis, which no selection changes. Without a selection nothing is held twice.
            absorbed = self._absorb(raw, device, rectified) if self._absorbed is None or not keep else self._absorbed
            if keep:
                self._absorbed = absorbed
            tensors = leave_out(self._of_prefix(absorbed, prefix), choice)
        tensors = apply_gains(tensors, choice)
        return (tensors if torch.is_grad_enabled() else fold_tensors(tensors)).cast(dtype, device)

    def _of_prefix(self, tensors: SiteTensors, prefix: int | None) -> SiteTensors:
        return tensors if prefix is None or prefix >= self.site.atoms else tensors.prefix(prefix)
