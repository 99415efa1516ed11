"""An adapter: its sites by name, its config, and what it says about itself.

Knows how to find its sites in a model; the work at each call is `attachment`'s, the file is `file_format`'s.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .attachment import Attachment
from .config import AdapterConfig
from .errors import SiteError
from .site import SiteName, SparseSite


@dataclass(frozen=True)
class Member:
    """One of the adapters that a composed adapter is made of."""

    name: str
    strength: float
    config: AdapterConfig


class SparseAdapter(nn.Module):
    """Sites in order, by key: the module path, or `member:path` in a composed adapter."""

    def __init__(
        self,
        sites: Iterable[SparseSite],
        config: AdapterConfig,
        component: str = "",
        metadata: dict[str, Any] | None = None,
        members: Iterable[Member] = (),
    ) -> None:
        """`metadata`: base_family, base_fingerprint, title, trigger_words, training, lineage, modelspec.*, and whatever else;
        text, lists and dicts of plain values (a bare number comes back from a file as text)."""
        super().__init__()
        self._site_modules = nn.ModuleList(sites)
        self.sites: dict[str, SparseSite] = {}
        for site in self._site_modules:
            assert isinstance(site, SparseSite)
            if site.key in self.sites:
                raise SiteError(f"site {site.key} is there twice; each Linear can be one site of an adapter only.")
            self.sites[site.key] = site
        self.config = config
        self.component = component
        self.metadata: dict[str, Any] = dict(metadata or {})
        self.members: tuple[Member, ...] = tuple(members)

    @classmethod
    def create(
        cls,
        model: Any,
        sites: Iterable[SiteName],
        config: AdapterConfig | None = None,
        component: str = "",
        seed: int = 0,
        metadata: dict[str, Any] | None = None,
    ) -> SparseAdapter:
        """A fresh adapter for `sites` of `model`, whose update is exactly zero. The same seed gives the same tensors.

        Raises SiteError if a site is not in the model or tells no widths.
        """
        config = config or AdapterConfig()
        names = list(sites)
        if not names:
            raise SiteError("no sites were given; discover_sites(model) lists those of a diffusers model.")
        modules = find_modules(model, {name.path: name.path for name in names}, component)
        generator = torch.Generator().manual_seed(seed)
        encoder = config.make_encoder()
        made = []
        for name in names:
            widths = module_widths(modules[name.path])
            if widths is None:
                kind = type(modules[name.path]).__name__
                raise SiteError(f"{name.path} is a {kind}, which tells no widths; a site must be a Linear of some kind.")
            made.append(SparseSite.create(name, *widths, config, generator, encoder))
        return cls(made, config, component, metadata)

    def attach(
        self,
        model: Any,
        strength: float = 1.0,
        component: str | None = None,
        resolve: Callable[[str], nn.Module | None] | None = None,
    ) -> Attachment:
        """Hook this adapter to `model`: the denoiser itself, or a pipeline-like object that has it as `component`.

        `component` is the model's own name for what the file calls `self.component`; `resolve` leads from a site's path
        to the host's module, for hosts that name their modules otherwise. Several adapters can be attached at once.
        Raises SiteError if any site is not found (with the near names) or has other widths; nothing stays hooked then.
        """
        paths = {key: site.name.path for key, site in self.sites.items()}
        if resolve is None:
            modules = find_modules(model, paths, self.component, component)
        else:
            found = {key: resolve(path) for key, path in paths.items()}
            missing = [paths[key] for key, module in found.items() if module is None]
            if missing:
                raise SiteError(_missing_text(missing, len(paths), []))
            modules = {key: module for key, module in found.items() if module is not None}
        check_widths(self, modules)
        return Attachment(self, modules, strength)

    @property
    def trigger_words(self) -> list[str]:
        """What to write in a prompt; a file of another tool may hold them as one text."""
        words = self.metadata.get("trigger_words") or []
        return [words] if isinstance(words, str) else [str(word) for word in words]

    # -- parameters -----------------------------------------------------------------------------------------

    def trainable(self) -> SparseAdapter:
        """Float32 and with gradients, in place: what training goes on from, after `load`."""
        self.float()
        self.requires_grad_(True)
        return self

    def trainable_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """(`<site key>.<tensor>`, parameter) in the sites' order, under the tensors' names in the file."""
        for key, site in self.sites.items():
            for name, parameter in site.named_parameters():
                yield f"{key}.{name.replace('_', '.', 1)}", parameter

    def parameter_count(self) -> int:
        """How many numbers are trained: weights, bases and biases."""
        return sum(parameter.numel() for _, parameter in self.trainable_parameters())

    @property
    def atom_count(self) -> int:
        """Atoms over all sites."""
        return sum(site.atoms for site in self.sites.values())

    def clone(self) -> SparseAdapter:
        """A copy with tensors of its own."""
        sites = [site.clone() for site in self.sites.values()]
        return SparseAdapter(sites, self.config, self.component, copy.deepcopy(self.metadata), self.members)

    def compact(self) -> SparseAdapter:
        """Each site in the form that takes the fewest numbers, in place (see `SparseSite.compact`)."""
        for site in self.sites.values():
            site.compact()
        return self


def module_widths(module: nn.Module) -> tuple[int, int] | None:
    """(d_in, d_out) as far as the module tells; packed weights of quantised Linears have other shapes, so names go first."""
    d_in, d_out = getattr(module, "in_features", None), getattr(module, "out_features", None)
    if isinstance(d_in, int) and isinstance(d_out, int):
        return d_in, d_out
    weight = getattr(module, "weight", None)
    if isinstance(weight, Tensor) and weight.ndim == 2 and weight.is_floating_point():
        return weight.shape[1], weight.shape[0]
    return None


def check_widths(
    adapter: SparseAdapter, modules: Mapping[str, nn.Module], model: str = "this model", advice: str = "use it with the base model that it was trained on"
) -> None:
    """Raises SiteError if a module (by site key) has other widths than its site; modules that tell none pass. `model` and `advice` are for
    the message."""
    for key, module in modules.items():
        site, widths = adapter.sites[key], module_widths(module)
        if widths is not None and widths != (site.d_in, site.d_out):
            raise SiteError(
                f"{site.name.path} maps {widths[0]} channels to {widths[1]} in {model}, the adapter was made for "
                f"{site.d_in} to {site.d_out}; {advice}."
            )


def _get(root: Any, path: str) -> nn.Module | None:
    for part in path.split("."):
        root = getattr(root, part, None)
        if root is None:
            return None
    return root if isinstance(root, nn.Module) else None


def find_modules(model: Any, paths: dict[str, str], component: str, host_component: str | None = None) -> dict[str, nn.Module]:
    """The module of each path. `model` may hold the component (a pipeline) or be it. Raises SiteError with near names."""
    found: dict[str, nn.Module] = {}
    missing: list[str] = []
    for key, path in paths.items():
        inner = path[len(component) + 1 :] if component and path.startswith(component + ".") else path
        candidates = [path, inner] if host_component is None else [f"{host_component}.{inner}", path, inner]
        module = next((m for m in (_get(model, candidate) for candidate in candidates) if m is not None), None)
        if module is None:
            missing.append(path)
        else:
            found[key] = module
    if missing:
        roots = [model, getattr(model, host_component or component or "-", None)]
        names = [name for root in roots if isinstance(root, nn.Module) for name, _ in root.named_modules() if name]
        raise SiteError(_missing_text(missing, len(paths), names))
    return found


def _missing_text(missing: list[str], total: int, names: list[str]) -> str:
    path = missing[0]
    tail = path.rsplit(".", 1)[-1]
    # Comparing with thousands of names takes seconds; those with the same ending are the likely ones.
    alike = [name for name in names if name.rsplit(".", 1)[-1] == tail] or names
    near = difflib.get_close_matches(path, alike[:2000], n=3, cutoff=0.4)
    hint = f"near names are {', '.join(near)}" if near else "no name in the model is near"
    return (
        f"{len(missing)} of {total} sites are not in the model, the first is {path} ({hint}); "
        "use the base model family that the adapter was made for."
    )
