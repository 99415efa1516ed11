"""An adapter: its sites by name, its config, and what it says about itself.

Knows how to find its sites in a model; the work at each call is `attachment`'s, the file is `file_format`'s.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .attached import attach_named
from .attachment import Attachment
from .base_check import check_widths
from .config import AdapterConfig
from .errors import SiteError
from .notebook_view import html
from .places import find_places, missing_text, place_of, places_of, widths
from .site import Place, SiteName, SparseSite


@dataclass(frozen=True)
class Member:
    """One of the adapters that a composed adapter is made of."""

    name: str
    strength: float
    config: AdapterConfig


def trigger_words_of(metadata: Mapping[str, Any]) -> list[str]:
    """What to write in a prompt. A file of another tool may hold the words as one text, or anything else under this name."""
    words = metadata.get("trigger_words") or []
    return [words] if isinstance(words, str) else [str(word) for word in words] if isinstance(words, (list, tuple)) else []


class SparseAdapter(nn.Module):
    """Sites in order, by key: the module path with its slice, if any, and `member:` before it in a composed adapter."""

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
                raise SiteError(f"site {site.key} is there twice; each Linear, or slice of one, can be one site of an adapter only.")
            self.sites[site.key] = site
        self.config = config
        self.component = component
        self.metadata: dict[str, Any] = dict(metadata or {})
        self.members: tuple[Member, ...] = tuple(members)
        #: Tensors that are no site's and do nothing here: what a LoRA that became a dictionary holds for the text encoders. They stay in
        #: the file, and leave with it as a LoRA.
        self.aside: dict[str, Tensor] = {}

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
        places = places_of(model, names, component)
        generator = torch.Generator().manual_seed(seed)
        encoder = config.make_encoder()
        made = []
        for name in names:
            found = widths(places[name.place])
            if found is None:
                kind = type(places[name.place].module).__name__
                raise SiteError(f"{name.path} is a {kind}, which tells no widths; a site must be a Linear of some kind.")
            made.append(SparseSite.create(name, *found, config, generator, encoder))
        whole = {name.path: widths(Place(places[name.place].module)) for name in names if name.rows is not None}
        if whole:  # a LoRA of a slice is as high as the Linear, which the slices alone do not tell
            metadata = {**(metadata or {}), "fused": {path.removeprefix(f"{component}."): wide[1] for path, wide in whole.items() if wide}}
        return cls(made, config, component, metadata)

    def attach(
        self,
        model: Any,
        strength: float = 1.0,
        component: str | None = None,
        resolve: Callable[[str], Place | nn.Module | None] | None = None,
        name: str | None = None,
    ) -> Attachment:
        """Hook this adapter to `model`: the denoiser itself, or a pipeline-like object that has it as `component`.

        `component` is the model's own name for what the file calls `self.component`; `resolve` leads from a site's path
        to the host's module or place, for hosts that name their modules otherwise. Several adapters can be attached at once.
        On a pipeline, or with a `name`, the base is checked first and `attached(model)` finds the adapter again (`attached.attach_named`).
        Raises SiteError if any site is not found (with the near names) or has other widths; nothing stays hooked then.
        """
        if resolve is None and component is None and (name is not None or not isinstance(model, nn.Module)):
            return attach_named(self, model, strength, name)
        names = {key: site.name for key, site in self.sites.items()}

        def find(model: Any) -> dict[str, Place]:
            places = find_places(model, names, self.component, component)
            check_widths(self, places)
            return places

        if resolve is None:
            attachment = Attachment(self, find(model), strength)
            if isinstance(model, nn.Module):
                held = component or self.component
                below = f"{held}." if held in model._modules else ""
                attachment.watch(model, [below + name.path.removeprefix(f"{self.component}.") for name in names.values()], find)
            return attachment
        found = {key: resolve(name.path) for key, name in names.items()}
        missing = [names[key].path for key, target in found.items() if target is None]
        if missing:
            raise SiteError(missing_text(missing, len(names), []))
        places = {key: place_of(target, names[key]) for key, target in found.items() if target is not None}
        check_widths(self, places)
        return Attachment(self, places, strength)

    @property
    def trigger_words(self) -> list[str]:
        """What to write in a prompt."""
        return trigger_words_of(self.metadata)

    @property
    def lineage(self) -> list[Any]:
        """What was done to it, oldest first; a file may hold anything under this name."""
        steps = self.metadata.get("lineage")
        return steps if isinstance(steps, list) else []

    def add_step(self, step: dict[str, Any]) -> None:
        """Add to the lineage."""
        self.metadata["lineage"] = [*self.lineage, step]

    def _repr_html_(self) -> str:
        """For notebooks: the layers × atoms map."""
        return html(self)

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
        return sum(parameter.numel() for site in self.sites.values() for parameter in site.parameters(recurse=False))

    @property
    def atom_count(self) -> int:
        """Atoms over all sites."""
        return sum(site.atoms for site in self.sites.values())

    def clone(self) -> SparseAdapter:
        """A copy with tensors of its own."""
        sites = [site.clone() for site in self.sites.values()]
        copied = SparseAdapter(sites, self.config, self.component, copy.deepcopy(self.metadata), self.members)
        copied.aside = dict(self.aside)
        return copied

    def compact(self) -> SparseAdapter:
        """Each site in the form that takes the fewest numbers, in place (see `SparseSite.compact`)."""
        for site in self.sites.values():
            site.compact()
        return self
