"""What only training needs from an attached adapter: energies of the updates, densities, thresholds that move.

A step is `begin` → forward → `end_forward` (→ backward), for each micro-batch, then `commit`. Thresholds move in `commit`
only, and prefix and density stay until then, so a checkpointed block recomputes in the backward what it did before;
that second time is not recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .attachment import Attachment
from .errors import TrainingError
from .functional import magnitude_quantile, magnitude_subsample, row_energies
from .site import SparseSite


@dataclass
class ForwardRecord:
    """What one forward left, by site key. A site that is called twice in a forward keeps the last call."""

    energies: dict[str, Tensor] = field(default_factory=dict)  #: E‖ΔO‖² per channel of each row (B), with its graph, where wanted
    density: dict[str, Tensor] = field(default_factory=dict)  #: share of non-zero coefficients, 0-dim, detached
    subsamples: dict[str, Tensor] = field(default_factory=dict)  #: |u| (B, n), only of sites that ran all atoms


class TrainingSession:
    """The training state of one attachment. Takes it over until `close()`."""

    def __init__(self, attachment: Attachment, energies: bool = False) -> None:
        """`energies`: whether records hold them."""
        self.attachment = attachment
        self.energies = energies
        self.recording = False
        self.density: float | None = None
        self._prefixes: dict[str, int] = {}
        self._rows: int | None = None
        self._record = ForwardRecord()
        self._pending: dict[str, list[Tensor]] = {}
        attachment.session = self

    def begin(self, density: float, prefixes: Mapping[str, int] | None = None, rows: int | None = None) -> None:
        """Start a forward that aims at `density`; the sites in `prefixes` run on their first k atoms only.

        `rows`: the batch rows of the whole step, over all processes and micro-batches; thresholds then do not depend on
        how the rows are split. Without it: the rows of this forward.
        """
        if not 0 < density <= 1:
            raise TrainingError(f"the activation density is {density}: give a share above 0 and at most 1.")
        for key, count in (prefixes or {}).items():
            if key not in self.attachment.adapter.sites:
                raise TrainingError(f"a prefix is given for {key}, which is no site of the adapter.")
            if count < 1:
                raise TrainingError(f"the prefix of {key} is {count}: give 1 atom or more.")
        self.density = float(density)
        self._prefixes = dict(prefixes or {})
        self._rows = rows
        self._record = ForwardRecord()
        self.recording = True

    def end_forward(self) -> ForwardRecord:
        """Stop recording and hand out what was recorded."""
        if not self.recording:
            raise TrainingError("end_forward() was called without begin(); call begin(density) before the forward.")
        self.recording = False
        for key, subsample in self._record.subsamples.items():
            self._pending.setdefault(key, []).append(subsample)
        return self._record

    def pending_subsamples(self) -> dict[str, Tensor]:
        """|u| (n) by site key, of all forwards since the last commit: what several processes gather."""
        return {key: torch.cat([part.flatten() for part in parts]) for key, parts in self._pending.items()}

    def observed_thresholds(self, subsamples: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """The threshold () that each subsample calls for at the present density; without argument, of what is pending."""
        if self.density is None:
            return {}
        subsamples = self.pending_subsamples() if subsamples is None else subsamples
        return {key: magnitude_quantile(values, 1.0 - self.density) for key, values in subsamples.items()}

    @torch.no_grad()
    def commit(self, thresholds: Mapping[str, Tensor] | None = None) -> None:
        """End the step: τ ← momentum·τ + (1 − momentum)·Q, Q from `thresholds` or from this process's own subsamples."""
        if self.recording:
            raise TrainingError("commit() was called in the middle of a forward; call end_forward() before it.")
        for key, observed in (self.observed_thresholds() if thresholds is None else thresholds).items():
            site = self.attachment.adapter.sites[key]
            momentum = float(site.encoder.settings["momentum"])
            site.threshold.mul_(momentum).add_(observed.to(site.threshold), alpha=1 - momentum)
        self.reset()

    def reset(self) -> None:
        """Forget the step without moving a threshold; the attachment then computes as at inference."""
        self.recording = False
        self.density = None
        self._prefixes = {}
        self._rows = None
        self._record = ForwardRecord()
        self._pending = {}

    def close(self) -> None:
        """Let go of the attachment."""
        self.reset()
        if self.attachment.session is self:
            self.attachment.session = None

    # -- called by the attachment ---------------------------------------------------------------------------

    def prefix(self, key: str) -> int | None:
        """How many atoms the site may use now; None: all."""
        return self._prefixes.get(key)

    def observe(self, key: str, site: SparseSite, u: Tensor, coefficients: Tensor) -> None:
        """Record one call of a site. While a block is computed again for the backward, nothing is recorded."""
        energies = None
        if self.energies and torch.is_grad_enabled():
            # The second time too: it must keep the same tensors for the backward as the first time.
            energies = row_energies(coefficients, site.dictionary_weight[: u.shape[-1]], site.dictionary_basis)
        if not self.recording:
            return
        record = self._record
        if energies is not None:
            record.energies[key] = energies
        record.density[key] = coefficients.detach().count_nonzero() / max(1, coefficients.numel())
        # A prefix holds the strongest atoms; its quantile would not be the site's.
        if site.encoder.running and u.shape[-1] == site.atoms:
            record.subsamples[key] = magnitude_subsample(u, self._rows)
