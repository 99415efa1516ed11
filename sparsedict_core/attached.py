"""The adapters on a model by name: several at once, each with its strength, found again from the model or its pipeline alone.

A pipeline is known by what it holds, its denoiser as `transformer` or `unet`; diffusers is never imported.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from torch import nn

from .attachment import Attachment
from .base_check import check_base
from .errors import SiteError
from .fingerprint import fingerprint
from .shown_text import escaped, shown
from .site_discovery import called_denoiser, denoiser_of, discover_sites
from .text_encoders import attach_text_encoders, text_encoder_tensors

if TYPE_CHECKING:
    from .adapter import SparseAdapter

class _OnModel:
    """What is on one denoiser."""

    def __init__(self) -> None:
        self.by_name: dict[str, Attachment] = {}
        self.paused: dict[str, float] | None = None  # strengths to go back to; None: nothing is disabled


_MODELS: WeakKeyDictionary[nn.Module, _OnModel] = WeakKeyDictionary()


class Attached(Mapping[str, Attachment]):
    """The named adapters of one model, as they are now. `attached(pipe)["zorp"].strength = 0.8` acts from the next call on.

    Under torch.compile all of it but attaching and removing changes values only, and compiles nothing anew.
    """

    def __init__(self, denoiser: nn.Module) -> None:
        self._denoiser = denoiser

    def __getitem__(self, name: str) -> Attachment:
        found = self._on().by_name
        if name not in found:
            known = f"there are {', '.join(found)}" if found else "there is none"
            raise SiteError(f"no adapter named {name!r} is on this model; {known}.")
        return found[name]

    def __contains__(self, name: object) -> bool:
        return name in self._on().by_name

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._on().by_name))

    def __len__(self) -> int:
        return len(self._on().by_name)

    def __repr__(self) -> str:
        return f"Attached({', '.join(f'{escaped(name)}={strength:g}' for name, strength in self.strengths.items())})"

    def _repr_html_(self) -> str:
        """For notebooks: each adapter's layers × atoms map under its name and strength."""
        shown_ones = (f"<h4>{escape(shown(name))} at {one.strength:g}</h4>{one.adapter._repr_html_()}" for name, one in self._on().by_name.items())
        return "".join(shown_ones) or "no adapter is attached"

    @property
    def strengths(self) -> dict[str, float]:
        """The strength of each adapter as it acts now."""
        return {name: attachment.strength for name, attachment in self._on().by_name.items()}

    def set_adapters(self, names: str | Sequence[str], strengths: float | Sequence[float] = 1.0) -> None:
        """These adapters at these strengths, one for all or one each, and all others at 0, as diffusers' `set_adapters`.

        Raises SiteError for a name that is not there or another number of strengths; nothing changes then.
        """
        chosen = [names] if isinstance(names, str) else list(names)
        values = list(strengths) if isinstance(strengths, Sequence) else [strengths] * len(chosen)
        if len(values) != len(chosen):
            raise SiteError(f"there are {len(chosen)} names but {len(values)} strengths; give one for all, or one for each.")
        wanted = {self[name]: value for name, value in zip(chosen, values)}
        self._on().paused = None
        for attachment in self.values():
            attachment.strength = wanted.get(attachment, 0.0)

    def disable(self) -> None:
        """The bare base until `enable`."""
        on = self._on()
        if on.paused is None:
            on.paused = self.strengths
            for attachment in on.by_name.values():
                attachment.strength = 0.0

    def enable(self) -> None:
        """All at the strengths that they had before `disable`."""
        on = self._on()
        for name, strength in (on.paused or {}).items():
            if name in on.by_name:
                on.by_name[name].strength = strength
        on.paused = None

    def exchange(self, name: str, adapter: SparseAdapter) -> Attachment:
        """Another adapter in this one's place, under its name and at its strength; gains go back to ones.

        One with the same sites and sizes goes into the same tensors, which compiled code goes on with; the adapter that was
        attached then holds the new one's values. Any other is attached anew. Raises SiteError as attaching does.
        """
        attachment = self[name]
        if text_encoder_tensors(adapter) or attachment.companions:
            raise SiteError(f"{name!r} or what should take its place has parts for text encoders, which cannot be exchanged; remove the one and attach the other.")
        _check(adapter, self._denoiser)
        if not attachment.take(adapter):
            strength = attachment.strength
            attachment.detach()
            attachment = attach_named(adapter, self._denoiser, strength, name)
        attachment.set_gains(None)
        return attachment

    def remove(self, name: str) -> None:
        """Take one off the model. Raises SiteError where it is not there."""
        self[name].detach()

    def remove_all(self) -> None:
        """Take all off the model."""
        for attachment in list(self.values()):
            attachment.detach()

    def _on(self) -> _OnModel:
        on = _MODELS.get(self._denoiser) or _OnModel()
        # One that was detached by itself, or by the end of its `with`, is gone.
        for name in [name for name, attachment in on.by_name.items() if not attachment.attached]:
            del on.by_name[name]
        return on


def attached(model: Any) -> Attached:
    """The adapters that were attached to a pipeline or its denoiser by name. Raises SiteError for what is neither."""
    return Attached(denoiser_of(model))


def attach_named(adapter: SparseAdapter, model: Any, strength: float, name: str | None) -> Attachment:
    """Attach under a name, the adapter's title where none is given, after a look at whether it fits.

    Raises SiteError for another family, widths that differ, a site that is missing, and a name that is there already; warns where
    the base is another model of the family.
    """
    if name is not None and not (isinstance(name, str) and name.strip()):
        raise SiteError(f"an adapter's name is a text that is not empty, not {name!r}; leave name out for the file's title.")
    denoiser = denoiser_of(model)
    name = name or str(adapter.metadata.get("title") or "adapter")
    if name in attached(denoiser):
        raise SiteError(f"an adapter named {name!r} is on this model already; take it off with attached(pipe).remove({name!r}), or give another name.")
    _check(adapter, denoiser)
    attachment = adapter.attach(called_denoiser(model), strength)
    if text_encoder_tensors(adapter):
        if isinstance(model, nn.Module):
            warnings.warn(f"{name!r} holds parts for text encoders, which do nothing from here; attach it to the pipeline for them.", stacklevel=4)
        else:
            try:
                attach_text_encoders(model, attachment, name)
            except BaseException:
                attachment.detach()
                raise
    on = _MODELS.setdefault(denoiser, _OnModel())
    on.by_name[name] = attachment
    return attachment


def _check(adapter: SparseAdapter, denoiser: nn.Module) -> None:
    try:
        found = discover_sites(denoiser)
    except SiteError:  # a class that no family knows: the sites' names and widths decide
        return check_base(adapter, model=denoiser)
    try:
        known = fingerprint(denoiser, found.sites, found.component) if adapter.metadata.get("base_fingerprint") else None
    except (RuntimeError, NotImplementedError):  # weights that are not at hand, as offloading leaves them
        known = None
    return check_base(adapter, found.family, known, denoiser)
