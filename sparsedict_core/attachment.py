"""An adapter at work on a model: one forward hook on each site's module, live strength and gains.

Hooks read the module's input and add to its output; they never touch the module's weights, so quantised weights, other
adapters and the host's own patches are all the same to them, and detaching leaves the model as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .errors import SiteError
from .functional import add_decoded, decode, encode, rectified
from .prepared import PreparedSite, choices
from .site import SparseSite

if TYPE_CHECKING:
    from .adapter import SparseAdapter
    from .training_state import TrainingSession

#: (site_key, site, x, coefficients, update, output): x (..., d_in), coefficients (..., m) of all atoms and before
#: gains, update (..., d_out) with gains at strength 1, output (..., d_out) before this update is added.
TapCallback = Callable[[str, SparseSite, Tensor, Tensor, Tensor, Tensor], None]


class Tap:
    """A registered observer; `remove()` it, or use it as a context manager."""

    def __init__(self, taps: list[TapCallback], callback: TapCallback) -> None:
        self._taps, self._callback = taps, callback
        taps.append(callback)

    def remove(self) -> None:
        if self._callback in self._taps:
            self._taps.remove(self._callback)

    def __enter__(self) -> Tap:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


class _MemberStrengths(dict[str, float]):
    """Strengths by member's name, which tell when one is set."""

    def __init__(self, values: Iterable[tuple[str, float]], changed: Callable[[], None]) -> None:
        super().__init__(values)
        self._changed = changed

    def __setitem__(self, name: str, strength: float) -> None:
        super().__setitem__(name, strength)
        self._changed()


class Attachment:
    """Live: `strength`, `member_strengths` (composed adapters), `enabled` and `set_gains` act from the next call on.

    Under torch.compile, strengths and gains are values of tensors: changing them compiles nothing anew. `capturable` takes the
    same way without compiling, for CUDA graphs: a captured graph follows them too. The price of both is that atoms of gain 0
    are computed; atoms that `prune` took away cost nothing in any case.
    """

    def __init__(self, adapter: SparseAdapter, modules: Mapping[str, nn.Module], strength: float = 1.0) -> None:
        """Hooks the sites to `modules` by site key."""
        self.adapter = adapter
        self.enabled = True
        self.capturable = False
        self.session: TrainingSession | None = None
        self._strength = float(strength)
        self._taps: list[TapCallback] = []
        self._sizes = [site.atoms for site in adapter.sites.values()]
        self._gains = torch.ones(sum(self._sizes))  # of all sites, one after another
        # One tensor for all sites, as a change then is one operation. In inference mode it could only be written to there.
        with torch.inference_mode(False):
            self._scale = torch.ones(sum(self._sizes), device=_device_of(modules.values()))
            scales = self._scale.split(self._sizes)
        self._prepared = {key: PreparedSite(site, scale) for (key, site), scale in zip(adapter.sites.items(), scales, strict=True)}
        self.member_strengths: dict[str, float] = _MemberStrengths(((m.name, m.strength) for m in adapter.members), self._rescale)
        self._rescale()
        self._handles: list[RemovableHandle] = []
        for key in adapter.sites:
            self._handles.append(modules[key].register_forward_hook(self._hook(key), with_kwargs=True))

    # -- strength -------------------------------------------------------------------------------------------

    @property
    def strength(self) -> float:
        """s, of all members together."""
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        self._strength = float(value)
        self._rescale()

    def _strength_at(self, member: str | None) -> float:
        return self._strength if member is None else self._strength * self.member_strengths[member]

    @torch.no_grad()
    def _rescale(self) -> None:
        scale = self._gains * self._strength
        if self.member_strengths:
            for part, prepared in zip(scale.split(self._sizes), self._prepared.values(), strict=True):
                part.copy_(part if prepared.site.member is None else part * self.member_strengths[prepared.site.member])
        self._scale.copy_(scale)

    # -- gains ----------------------------------------------------------------------------------------------

    @property
    def gains(self) -> dict[str, Tensor]:
        """The gains (m) of every site."""
        return {
            key: torch.ones(prepared.site.atoms) if prepared.gains is None else prepared.gains.clone()
            for key, prepared in self._prepared.items()
        }

    def set_gains(self, gains: Mapping[str, Tensor] | None) -> None:
        """Gains (m) by site key; sites not named get ones again. None: all ones.

        Raises SiteError for an unknown site, a wrong length or a gain that is not finite; nothing changes then.
        """
        wanted: dict[str, Tensor] = {}
        for key, values in (gains or {}).items():
            if key not in self._prepared:
                raise SiteError(f"the adapter has no site {key}; its sites are {', '.join(list(self._prepared)[:4])}, ….")
            atoms = self._prepared[key].site.atoms
            values = torch.as_tensor(values).detach().to("cpu", torch.float32)
            if values.shape != (atoms,):
                raise SiteError(f"{key}: {tuple(values.shape)} gains were given for {atoms} atoms; give one an atom.")
            wanted[key] = values
        parts = [wanted.get(key) for key in self._prepared]
        whole = torch.cat([torch.ones(size) if part is None else part for part, size in zip(parts, self._sizes, strict=True)] or [torch.ones(0)])
        if not bool(torch.isfinite(whole).all()):
            key = next(key for key, values in wanted.items() if not bool(torch.isfinite(values).all()))
            raise SiteError(f"{key}: a gain is not finite; give numbers, 1 leaves an atom as it is and 0 removes it.")
        self._gains = whole
        for prepared, choice in zip(self._prepared.values(), choices(whole, self._sizes), strict=True):
            prepared.choose(choice)
        self._rescale()

    # -- observers ------------------------------------------------------------------------------------------

    def tap(self, callback: TapCallback) -> Tap:
        """Call `callback(site_key, site, x, coefficients, update, output)` at every call of a site, also at strength 0."""
        return Tap(self._taps, callback)

    # -- life -----------------------------------------------------------------------------------------------

    def detach(self) -> None:
        """Take the hooks away; once more does no harm."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def __enter__(self) -> Attachment:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.detach()

    # -- the call -------------------------------------------------------------------------------------------

    def _hook(self, key: str) -> Callable[..., Any]:
        prepared, member = self._prepared[key], self.adapter.sites[key].member

        def add_update(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            if not self.enabled:
                return output
            if (self.capturable or torch.compiler.is_compiling()) and self._traceable():
                return self._run_traced(key, prepared, _input(key, args, kwargs), output)
            strength = self._strength_at(member)
            if not self._taps and (strength == 0 or prepared.silent):
                return output
            return self._run(key, prepared, _input(key, args, kwargs), output, strength, module)

        add_update.attachment, add_update.prepared = self, prepared  # type: ignore[attr-defined]  # read by _owned
        return add_update

    def _traceable(self) -> bool:
        """Observers and training sessions want more than a graph has."""
        return not self._taps and (self.session is None or self.session.density is None)

    def _run_traced(self, key: str, prepared: PreparedSite, x: Tensor, output: Any) -> Tensor:
        _check(key, prepared.site, x, output)
        if prepared.site.atoms == 0:
            return output
        tensors = prepared.traced(x.dtype, x.device)
        coefficients = encode(x, tensors, prepared.site.encoder)[1].to(output.dtype)
        tensors = tensors.cast(output.dtype, output.device)
        return add_decoded(output, coefficients, tensors.dictionary_weight, tensors.dictionary_basis)

    def _run(self, key: str, prepared: PreparedSite, x: Tensor, output: Any, strength: float, module: nn.Module) -> Tensor:
        site, session, observed = prepared.site, self.session, bool(self._taps)
        _check(key, site, x, output)
        if not observed and (session is None or session.density is None):
            return _fused(prepared, x, output, strength, module)
        prefix = None if session is None else session.prefix(key)
        tensors = prepared.tensors(x.dtype, x.device, prefix, all_atoms=observed)
        u, coefficients = encode(x, tensors, site.encoder)
        gained = coefficients
        if observed and prepared.gains is not None:
            gained = coefficients * prepared.gains[: coefficients.shape[-1]].to(coefficients)
        update = decode(gained, tensors.dictionary_weight, tensors.dictionary_basis)
        if session is not None and session.density is not None:
            session.observe(key, site, u, coefficients, update)
        for tap in tuple(self._taps):
            tap(key, site, x, coefficients, update, output)
        if strength == 0 or prepared.silent:
            return output
        return torch.add(output, update.to(output.dtype), alpha=strength)


def _fused(prepared: PreparedSite, x: Tensor, output: Tensor, strength: float, module: nn.Module) -> Tensor:
    """The call outside training, with nobody looking: no tensor for u, ΔO or, where that is safe, the sum."""
    encoder = prepared.site.encoder
    tensors = prepared.tensors(x.dtype, x.device, rectified=encoder.rectifies)
    coefficients = rectified(x, tensors) if encoder.rectifies else encode(x, tensors, encoder)[1]
    weight, basis = tensors.dictionary_weight, tensors.dictionary_basis
    if coefficients.dtype != output.dtype:
        return torch.add(output, decode(coefficients, weight, basis).to(output.dtype), alpha=strength)
    return add_decoded(output, coefficients, weight, basis, strength, _owned(module, prepared, x, output))


def _owned(module: nn.Module, prepared: PreparedSite, x: Tensor, output: Tensor) -> bool:
    """Whether `output` may be written to: a Linear made it just now, no gradient needs it, and nobody was shown it before us."""
    if torch.is_grad_enabled() or not isinstance(module, nn.Linear) or output.data_ptr() == x.data_ptr():
        return False
    for hook in module._forward_hooks.values():
        attachment = getattr(hook, "attachment", None)
        if not isinstance(attachment, Attachment) or attachment._taps:
            return False
        if hook.prepared is prepared:
            return True
    return False


def _device_of(modules: Iterable[nn.Module]) -> torch.device | None:
    """Where the first module that has a parameter is, as far as that is known."""
    parameter = next((parameter for module in modules for parameter in module.parameters()), None)
    return None if parameter is None or parameter.device.type == "meta" else parameter.device


def _check(key: str, site: SparseSite, x: Tensor, output: Any) -> None:
    """Raises SiteError for outputs and widths that are not the site's."""
    if not isinstance(output, Tensor):
        raise SiteError(f"{key}: the module returns a {type(output).__name__}; a site must return one tensor.")
    if x.shape[-1] != site.d_in or output.shape[-1] != site.d_out:
        raise SiteError(
            f"{key}: the model's widths are {x.shape[-1]} and {output.shape[-1]}, the adapter's are {site.d_in} and "
            f"{site.d_out}; use it with the base model that it was trained on."
        )


def _input(key: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    x = args[0] if args else next(iter(kwargs.values()), None)
    if not isinstance(x, Tensor):
        raise SiteError(f"{key}: the module was called without a tensor as its first argument; it cannot be a site.")
    return x
