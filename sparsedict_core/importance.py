"""How much each atom matters: streaming statistics of an attached adapter, by timestep bucket and by prompt.

Importance of atom j is E|C_j|·‖D_j‖₂ (the paper's coefficients; the formula is ours): the mean norm of what the atom adds to
a token, so it compares across layers. Nothing is stored per token, and parts gathered apart can be merged.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from .adapter import SparseAdapter
from .attachment import Attachment
from .errors import SparseDictError
from .functional import widened
from .site import SparseSite

#: (timestep bucket, prompt)
Label = tuple[Hashable, Hashable]


@dataclass
class SiteSums:
    """Sums over tokens, float64, on the device that they were gathered on: a GPU is not waited for at each site."""

    coefficients: Tensor  # Σ|C| (m)
    fired: Tensor  # Σ [C ≠ 0] (m)
    output_norm: Tensor  # Σ‖O‖₂ ()
    tokens: int = 0

    @classmethod
    def zeros(cls, atoms: int) -> SiteSums:
        return cls(torch.zeros(atoms, dtype=torch.float64), torch.zeros(atoms, dtype=torch.float64), torch.zeros((), dtype=torch.float64))

    def add(self, other: SiteSums) -> SiteSums:
        """The sum of both, where the other is."""
        return SiteSums(
            self.coefficients.to(other.coefficients.device) + other.coefficients,
            self.fired.to(other.fired.device) + other.fired,
            self.output_norm.to(other.output_norm.device) + other.output_norm,
            self.tokens + other.tokens,
        )

    def cpu(self) -> SiteSums:
        return SiteSums(self.coefficients.cpu(), self.fired.cpu(), self.output_norm.cpu(), self.tokens)


class ImportanceStats:
    """Mean |C|, firing rate, contribution norm and its share of ‖O‖ per atom; and E[CᵀC] where `moments` is set."""

    def __init__(self, moments: bool = False) -> None:
        self.moments = moments
        self._sums: dict[str, dict[Label, SiteSums]] = {}
        self._gram: dict[str, Tensor] = {}
        self._rows: dict[str, int] = {}
        self._bucket: Hashable | Sequence[Hashable] = None
        self._prompt: Hashable | Sequence[Hashable] = None
        self._grouped: dict[tuple[int, torch.device], list[tuple[Label, Tensor | None]]] = {}

    # -- gathering ------------------------------------------------------------------------------------------

    def label(self, bucket: Hashable | Sequence[Hashable] = None, prompt: Hashable | Sequence[Hashable] = None) -> ImportanceStats:
        """Name what the next forwards show: one label, or a list with one for each row of the batch."""
        self._bucket, self._prompt = bucket, prompt
        self._grouped = {}
        return self

    @contextmanager
    def collect(self, attachment: Attachment) -> Iterator[ImportanceStats]:
        """Gather from every forward within the block."""
        with attachment.tap(self._observe):
            yield self

    @torch.no_grad()
    def _observe(self, key: str, site: SparseSite, x: Tensor, coefficients: Tensor, update: Tensor, output: Tensor) -> None:
        if site.atoms == 0:
            return
        c = coefficients.detach()
        rows = c.shape[0] if c.ndim > 1 else 1
        c = c.reshape(rows, -1, c.shape[-1]).float()
        o = output.detach().reshape(rows, c.shape[1], -1).float()
        by_label = self._sums.setdefault(key, {})
        for label, index in self._groups(rows, c.device):
            part = c if index is None else c.index_select(0, index)
            norms = (o if index is None else o.index_select(0, index)).norm(dim=-1)
            sums = SiteSums(
                widened(part.abs().sum(dim=(0, 1))), widened((part != 0).sum(dim=(0, 1))), widened(norms.sum()), part.shape[0] * part.shape[1]
            )
            by_label[label] = by_label[label].add(sums) if label in by_label else sums
        if self.moments:
            flat = c.reshape(-1, c.shape[-1])
            gram = widened(flat.T @ flat)
            self._gram[key] = self._gram[key] + gram if key in self._gram else gram
            self._rows[key] = self._rows.get(key, 0) + rows

    def _groups(self, rows: int, device: torch.device) -> list[tuple[Label, Tensor | None]]:
        """The labels with the rows that they name; None: all. Kept until other labels are given."""
        if (rows, device) not in self._grouped:
            index = [(label, None if own is None else torch.tensor(own).to(device, non_blocking=True)) for label, own in self._labelled(rows)]
            self._grouped[rows, device] = index
        return self._grouped[rows, device]

    def _labelled(self, rows: int) -> list[tuple[Label, list[int] | None]]:
        def spread(label: Hashable | Sequence[Hashable], what: str) -> list[Hashable] | None:
            if not isinstance(label, (list, tuple)):
                return None
            if len(label) != rows:
                raise SparseDictError(f"{len(label)} {what} labels were given for a batch of {rows}; give one a row.")
            return list(label)

        buckets, prompts = spread(self._bucket, "bucket"), spread(self._prompt, "prompt")
        if buckets is None and prompts is None:
            return [((self._bucket, self._prompt), None)]
        groups: dict[Label, list[int]] = {}
        for row in range(rows):
            label = (self._bucket if buckets is None else buckets[row], self._prompt if prompts is None else prompts[row])
            groups.setdefault(label, []).append(row)
        return list(groups.items())

    def merge(self, other: ImportanceStats) -> ImportanceStats:
        """Add what another one gathered (other batches, another process); returns self."""
        for key, by_label in other._sums.items():
            mine = self._sums.setdefault(key, {})
            for label, sums in by_label.items():
                mine[label] = sums.add(mine[label]) if label in mine else sums
        for key, gram in other._gram.items():
            self._gram[key] = self._gram[key] + gram.to(self._gram[key].device) if key in self._gram else gram.clone()
            self._rows[key] = self._rows.get(key, 0) + other._rows[key]
        return self

    # -- reading --------------------------------------------------------------------------------------------

    @property
    def site_keys(self) -> list[str]:
        return list(self._sums)

    @property
    def buckets(self) -> list[Hashable]:
        """Timestep buckets seen, in order of appearance."""
        return list(dict.fromkeys(bucket for by_label in self._sums.values() for bucket, _ in by_label))

    @property
    def prompts(self) -> list[Hashable]:
        """Prompts seen, in order of appearance."""
        return list(dict.fromkeys(prompt for by_label in self._sums.values() for _, prompt in by_label))

    def sums(self, key: str, bucket: Hashable = None, prompt: Hashable = None) -> SiteSums:
        """The sums of a site; None: over all buckets, over all prompts. Raises SparseDictError if nothing was gathered."""
        by_label = self._sums.get(key, {})
        chosen = [s for (b, p), s in by_label.items() if bucket in (None, b) and prompt in (None, p)]
        if not chosen:
            raise SparseDictError(f"no statistics for site {key}, bucket {bucket!r}, prompt {prompt!r}; run the model within collect().")
        total = SiteSums.zeros(len(chosen[0].coefficients))
        for sums in chosen:
            total = total.add(sums)
        return total.cpu()

    def mean_coefficients(self, key: str, bucket: Hashable = None, prompt: Hashable = None) -> Tensor:
        """E|C| per token, (m)."""
        sums = self.sums(key, bucket, prompt)
        return sums.coefficients / max(1, sums.tokens)

    def firing_rate(self, key: str, bucket: Hashable = None, prompt: Hashable = None) -> Tensor:
        """Share of tokens where the atom fires, (m)."""
        sums = self.sums(key, bucket, prompt)
        return sums.fired / max(1, sums.tokens)

    def contribution(self, adapter: SparseAdapter, key: str, bucket: Hashable = None, prompt: Hashable = None) -> Tensor:
        """Importance: E|C_j|·‖D_j‖₂, (m)."""
        norms = adapter.sites[key].dictionary_norms().cpu().double()
        return self.mean_coefficients(key, bucket, prompt) * norms

    def relative(self, adapter: SparseAdapter, key: str, bucket: Hashable = None, prompt: Hashable = None) -> Tensor:
        """Importance relative to the mean ‖O‖₂ of the site, (m)."""
        sums = self.sums(key, bucket, prompt)
        mean_norm = float(sums.output_norm) / max(1, sums.tokens)
        return self.contribution(adapter, key, bucket, prompt) / max(mean_norm, 1e-12)

    def layers(self, adapter: SparseAdapter, bucket: Hashable = None, prompt: Hashable = None) -> dict[int, float]:
        """Summed importance by layer number."""
        totals: dict[int, float] = {}
        for key in self._sums:
            layer = adapter.sites[key].name.layer
            totals[layer] = totals.get(layer, 0.0) + float(self.contribution(adapter, key, bucket, prompt).sum())
        return dict(sorted(totals.items()))

    # -- into the adapter -----------------------------------------------------------------------------------

    @torch.no_grad()
    def to_importance(self, adapter: SparseAdapter, bucket: Hashable = None, prompt: Hashable = None) -> dict[str, Tensor]:
        """Set every site's importance (m), firing rate (m), and moments (m, m) if they were gathered; returns the importance by site.

        Moments are sums over the tokens of a row, mean over rows, so that sites with more tokens weigh more.
        """
        result = {}
        for key, site in adapter.sites.items():
            device = site.importance.device
            if site.atoms == 0 and key not in self._sums:
                result[key] = site.importance
                continue
            site.importance = self.contribution(adapter, key, bucket, prompt).float().to(device)
            site.firing = self.firing_rate(key, bucket, prompt).float().to(device)
            result[key] = site.importance
            if key in self._gram:
                site.moments = (self._gram[key] / self._rows[key]).float().to(device)
        return result
