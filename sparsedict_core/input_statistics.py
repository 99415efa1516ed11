"""Mean and std of the base's activations at the sites' inputs, from which an adapter standardises them.

Run the *base* on its own samples for other prompts within `collect()`; parts gathered apart can be merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .adapter import SparseAdapter
from .errors import SparseDictError
from .functional import widened
from .places import places_of
from .site import SiteName
from .tokens import first_tensor, input_tokens


class InputStatistics:
    """Count, mean and squared deviations per channel, float64, on the device that they were gathered on, by `SiteName.place`."""

    def __init__(self) -> None:
        self.count: dict[str, int] = {}
        self.mean: dict[str, Tensor] = {}
        self.squares: dict[str, Tensor] = {}

    @contextmanager
    def collect(self, model: Any, sites: Iterable[SiteName], component: str = "") -> Iterator[InputStatistics]:
        """Gather the inputs of `sites` from every forward of `model` within the block.

        Raises SiteError if a site is not in the model.
        """
        sharing: dict[nn.Module, list[str]] = {}
        for place, (module, _) in places_of(model, sites, component).items():
            sharing.setdefault(module, []).append(place)
        handles = [module.register_forward_pre_hook(self._hook(names), with_kwargs=True) for module, names in sharing.items()]
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, places: list[str]) -> Any:
        def observe(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found = _moments(input_tokens(module, first_tensor(places[0], args, kwargs)))
            for place in places:
                self._combine(place, *found)

        return observe

    def add(self, place: str, x: Tensor) -> None:
        """Add activations (..., d_in) of one site."""
        self._combine(place, *_moments(x))

    def _combine(self, path: str, count: int, mean: Tensor, squares: Tensor) -> None:
        if not count:
            return
        # Chan, Golub & LeVeque's parallel update: stable where the mean is far from zero.
        if path not in self.count:
            self.count[path], self.mean[path], self.squares[path] = count, mean.clone(), squares.clone()
            return
        total = self.count[path] + count
        mean, squares = mean.to(self.mean[path].device), squares.to(self.mean[path].device)
        delta = mean - self.mean[path]
        self.squares[path] = self.squares[path] + squares + delta.square() * (self.count[path] * count / total)
        self.mean[path] = self.mean[path] + delta * (count / total)
        self.count[path] = total

    def merge(self, other: InputStatistics) -> InputStatistics:
        """Add what another one gathered; returns self."""
        for path, count in other.count.items():
            self._combine(path, count, other.mean[path], other.squares[path])
        return self

    def std(self, place: str) -> Tensor:
        """(d_in)"""
        return (self.squares[place] / self.count[place]).sqrt()

    def apply(self, adapter: SparseAdapter) -> None:
        """Set mean and scale of every site. Raises SparseDictError if a site was never seen."""
        missing = [site.name.place for site in adapter.sites.values() if site.name.place not in self.count]
        if missing:
            raise SparseDictError(f"no input statistics for {missing[0]}; run the base model within collect() over all sites.")
        for site in adapter.sites.values():
            site.set_input_statistics(self.mean[site.name.place], self.std(site.name.place))


@torch.no_grad()
def _moments(x: Tensor) -> tuple[int, Tensor, Tensor]:
    """How many tokens of x (..., d_in) there are, their mean and the sum of their squared deviations, (d_in) each."""
    flat = x.detach().reshape(-1, x.shape[-1]).float()
    if not len(flat):
        return 0, flat.sum(0), flat.sum(0)
    variance, mean = torch.var_mean(flat, dim=0, correction=0)
    return len(flat), widened(mean), widened(variance) * len(flat)
