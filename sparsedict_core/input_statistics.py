"""Mean and std of the base's activations at the sites' inputs, from which an adapter standardises them.

Run the *base* on its own samples for other prompts within `collect()`; parts gathered apart can be merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .adapter import SparseAdapter, find_modules
from .errors import SparseDictError
from .site import SiteName


class InputStatistics:
    """Count, mean and squared deviations per channel, float64, by site path."""

    def __init__(self) -> None:
        self.count: dict[str, int] = {}
        self.mean: dict[str, Tensor] = {}
        self.squares: dict[str, Tensor] = {}

    @contextmanager
    def collect(self, model: Any, sites: Iterable[SiteName], component: str = "") -> Iterator[InputStatistics]:
        """Gather the inputs of `sites` from every forward of `model` within the block.

        Raises SiteError if a site is not in the model.
        """
        modules = find_modules(model, {name.path: name.path for name in sites}, component)
        handles = [module.register_forward_pre_hook(self._hook(path)) for path, module in modules.items()]
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, path: str) -> Any:
        def observe(module: nn.Module, args: tuple[Any, ...]) -> None:
            self.add(path, args[0])

        return observe

    @torch.no_grad()
    def add(self, path: str, x: Tensor) -> None:
        """Add activations (..., d_in) of one site."""
        flat = x.detach().reshape(-1, x.shape[-1]).float()
        if len(flat):
            variance, mean = torch.var_mean(flat, dim=0, correction=0)
            self._combine(path, len(flat), mean.cpu().double(), variance.cpu().double() * len(flat))

    def _combine(self, path: str, count: int, mean: Tensor, squares: Tensor) -> None:
        # Chan, Golub & LeVeque's parallel update: stable where the mean is far from zero.
        if path not in self.count:
            self.count[path], self.mean[path], self.squares[path] = count, mean.clone(), squares.clone()
            return
        total = self.count[path] + count
        delta = mean - self.mean[path]
        self.squares[path] = self.squares[path] + squares + delta.square() * (self.count[path] * count / total)
        self.mean[path] = self.mean[path] + delta * (count / total)
        self.count[path] = total

    def merge(self, other: InputStatistics) -> InputStatistics:
        """Add what another one gathered; returns self."""
        for path, count in other.count.items():
            self._combine(path, count, other.mean[path], other.squares[path])
        return self

    def std(self, path: str) -> Tensor:
        """(d_in)"""
        return (self.squares[path] / self.count[path]).sqrt()

    def apply(self, adapter: SparseAdapter) -> None:
        """Set mean and scale of every site. Raises SparseDictError if a site was never seen."""
        missing = [site.name.path for site in adapter.sites.values() if site.name.path not in self.count]
        if missing:
            raise SparseDictError(f"no input statistics for {missing[0]}; run the base model within collect() over all sites.")
        for site in adapter.sites.values():
            site.set_input_statistics(self.mean[site.name.path], self.std(site.name.path))
