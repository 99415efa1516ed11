"""An adapter on the host's MODEL: forward hooks that are there exactly while that clone of the patcher is loaded.

The host calls `inject` when it loads a patcher and `eject` when another clone takes its place, so weights are never patched and a
change of strength or gains costs a few hooks. A clone of a clone shares its injection objects and is told to eject when it is
collected, even if it was never loaded; what is hooked is therefore kept by patcher.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.attachment import Attachment
from ..sparsedict_core.bounds import checked_strength
from ..sparsedict_core.errors import SparseDictError
from ..sparsedict_core.prepared import ready
from .rest import rest_on_model
from .sites import modules_for

KEY = "sparsedict"


class AppliedTensors(nn.Module):
    """An adapter's tensors as the host's memory management sees them: a model of their own, which it moves and counts."""

    def __init__(self, adapter: SparseAdapter) -> None:
        super().__init__()
        self.adapter = adapter


#: What is moved: one copy of each adapter for a device and dtype, so that another strength or selection is the same model to the host.
_copies: weakref.WeakKeyDictionary[SparseAdapter, dict[tuple[str, torch.dtype], Any]] = weakref.WeakKeyDictionary()


def tensors_for(adapter: SparseAdapter, patcher: Any) -> Any:
    """A ModelPatcher over the tensors that calls use, in the model's own dtype. What is on the SPARSE_DICT socket stays on the CPU, with all
    that no call needs."""
    from comfy.model_patcher import ModelPatcher

    def made(used: SparseAdapter) -> Any:
        return ModelPatcher(AppliedTensors(used), load_device=patcher.load_device, offload_device=patcher.offload_device)

    if patcher.load_device.type == "cpu":
        return made(adapter)
    copies, key = _copies.setdefault(adapter, {}), (str(patcher.load_device), compute_dtype(patcher))
    if key not in copies:
        copies[key] = made(SparseAdapter([ready(site, key[1]) for site in adapter.sites.values()], adapter.config, adapter.component, {}, adapter.members))
    return copies[key]


def compute_dtype(patcher: Any) -> torch.dtype:
    """What the model's Linears take in; weights in eight bits are cast for it."""
    dtype = patcher.get_model_object("manual_cast_dtype") or patcher.model_dtype()
    return dtype if dtype in (torch.float16, torch.bfloat16) else torch.float32


class AppliedAdapter:
    """One adapter as one node applied it; has the shape of the host's PatcherInjection, and hooks of its own for each patcher."""

    def __init__(
        self,
        patcher: Any,
        adapter: SparseAdapter,
        strength: float,
        gains: Mapping[str, Tensor] | None,
        start_percent: float,
        end_percent: float,
        name: str | None = None,
    ) -> None:
        """Raises SiteError if the adapter does not fit the model."""
        self.adapter = adapter
        self.name = name
        self.strength = strength
        self.gains = gains
        self.start_percent, self.end_percent = start_percent, end_percent
        self._model, self._modules = patcher.model, modules_for(adapter, patcher)
        #: What the host moves and counts beside the model.
        self.tensors = tensors_for(adapter, patcher)
        self._attachments: dict[int, Attachment] = {}

    def inject(self, patcher: Any) -> None:
        """Hook the sites of `patcher`'s model; called by the host after loading."""
        self.eject(patcher)
        attachment = Attachment(self.tensors.model.adapter, self._modules_of(patcher), self.strength)
        attachment.set_gains(self.gains)
        self._attachments[id(patcher)] = attachment

    def eject(self, patcher: Any) -> None:
        """Take the hooks away; the host also asks patchers that were never loaded."""
        attachment = self._attachments.pop(id(patcher), None)
        if attachment is not None:
            attachment.detach()

    def attachment(self, patcher: Any) -> Attachment | None:
        """What is hooked for `patcher` now; None while it is not loaded."""
        return self._attachments.get(id(patcher))

    def within_range(self, executor: Any, x: Tensor, sigma: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Wrapper around the host's `apply_model`: hooks are silent where the noise level is outside the range of percents."""
        sampling = executor.class_obj.model_sampling
        now = float(sigma.max())
        # Half open, so that two adapters whose ranges meet never act in the same step.
        inside = float(sampling.percent_to_sigma(self.end_percent)) < now <= float(sampling.percent_to_sigma(self.start_percent))
        attachments = list(self._attachments.values())
        for attachment in attachments:
            attachment.enabled = inside
        try:
            return executor(x, sigma, *args, **kwargs)
        finally:
            for attachment in attachments:
                attachment.enabled = True

    def _modules_of(self, patcher: Any) -> Mapping[str, nn.Module]:
        # Clones share the model; a copy on another device does not.
        return self._modules if patcher.model is self._model else modules_for(self.adapter, patcher)


def apply_adapter(
    patcher: Any,
    adapter: SparseAdapter,
    strength: float = 1.0,
    gains: Mapping[str, Tensor] | None = None,
    start_percent: float = 0.0,
    end_percent: float = 1.0,
    name: str | None = None,
) -> Any:
    """A clone of `patcher` with the adapter on it, beside whatever is on it already; `patcher` stays as it is.
    `name` is what nodes after it call the adapter.

    Raises SiteError if the adapter does not fit the model, SparseDictError for an empty range of percents and for what is no strength.
    """
    from comfy.patcher_extension import WrappersMP

    if not 0 <= start_percent < end_percent <= 1:
        raise SparseDictError(f"the range {start_percent:g} to {end_percent:g} is empty; start must be below end, both from 0 to 1.")
    strength = checked_strength(strength, f"the strength of {name or 'the adapter'}")
    applied = AppliedAdapter(patcher, adapter, strength, gains, start_percent, end_percent, name)
    clone = rest_on_model(patcher, adapter, strength, gains)
    clone.set_injections(KEY, [*applied_to(clone), applied])
    clone.set_additional_models(KEY, [*clone.get_additional_models_with_key(KEY), applied.tensors])
    if (start_percent, end_percent) != (0.0, 1.0):
        clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, applied.within_range)
    return clone


def applied_to(patcher: Any) -> list[AppliedAdapter]:
    """The adapters on `patcher`, in the order in which they were applied."""
    return list(patcher.get_injections(KEY) or [])


def attachments_of(patcher: Any) -> list[Attachment]:
    """The hooks at work for `patcher`, in the order of `applied_to`; empty while the host has not loaded it."""
    return [attachment for applied in applied_to(patcher) if (attachment := applied.attachment(patcher)) is not None]
