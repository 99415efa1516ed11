"""An adapter at work on a model: one forward hook on each site's module, live strength and gains.

Hooks read the module's input and add to its output; they never touch the module's weights, so quantised weights, other
adapters and the host's own patches are all the same to them, and detaching leaves the model as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .errors import SiteError
from .functional import add_decoded, decode, encode
from .prepared import PreparedSite
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


class Attachment:
    """Live: `strength`, `member_strengths` (composed adapters), `enabled` and `set_gains` act from the next call on."""

    def __init__(self, adapter: SparseAdapter, modules: Mapping[str, nn.Module], strength: float = 1.0) -> None:
        """Hooks the sites to `modules` by site key."""
        self.adapter = adapter
        self.strength = float(strength)
        self.member_strengths: dict[str, float] = {member.name: member.strength for member in adapter.members}
        self.enabled = True
        self.session: TrainingSession | None = None
        self._taps: list[TapCallback] = []
        self._prepared = {key: PreparedSite(site) for key, site in adapter.sites.items()}
        self._handles: list[RemovableHandle] = []
        for key in adapter.sites:
            self._handles.append(modules[key].register_forward_hook(self._hook(key), with_kwargs=True))

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
            values = torch.as_tensor(values, dtype=torch.float32).detach().clone()
            if values.shape != (atoms,):
                raise SiteError(f"{key}: {tuple(values.shape)} gains were given for {atoms} atoms; give one an atom.")
            if not bool(torch.isfinite(values).all()):
                raise SiteError(f"{key}: a gain is not finite; give numbers, 1 leaves an atom as it is and 0 removes it.")
            wanted[key] = values
        for key, prepared in self._prepared.items():
            prepared.set_gains(wanted.get(key))

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
            strength = self.strength
            if member is not None:
                strength *= self.member_strengths[member]
            if not self._taps and (strength == 0 or prepared.silent):
                return output
            return self._run(key, prepared, _input(key, args, kwargs), output, strength)

        return add_update

    def _run(self, key: str, prepared: PreparedSite, x: Tensor, output: Any, strength: float) -> Tensor:
        site, session, observed = prepared.site, self.session, bool(self._taps)
        if not isinstance(output, Tensor):
            raise SiteError(f"{key}: the module returns a {type(output).__name__}; a site must return one tensor.")
        if x.shape[-1] != site.d_in or output.shape[-1] != site.d_out:
            raise SiteError(
                f"{key}: the model's widths are {x.shape[-1]} and {output.shape[-1]}, the adapter's are {site.d_in} and "
                f"{site.d_out}; use it with the base model that it was trained on."
            )
        prefix = None if session is None else session.prefix(key)
        density = None if session is None else session.density
        # Where atoms compete, those of gain 0 must be out of the competition, observed or not.
        all_atoms = observed and site.encoder.atomwise
        tensors = prepared.tensors(x.dtype, x.device, prefix, all_atoms)
        u, coefficients = encode(x, tensors, site.encoder, density)
        # Within a training step the first forward and a checkpoint's second one must run the same operations.
        if not observed and density is None and coefficients.dtype == output.dtype:
            return add_decoded(output, coefficients, tensors.dictionary_weight, tensors.dictionary_basis, strength)
        gained = coefficients
        if all_atoms and prepared.gains is not None:
            gained = coefficients * prepared.gains[: coefficients.shape[-1]].to(coefficients)
        update = decode(gained, tensors.dictionary_weight, tensors.dictionary_basis)
        if observed and not all_atoms:
            coefficients = prepared.spread(coefficients, prefix)
        if session is not None and session.recording:
            session.observe(key, site, u, coefficients, update)
        for tap in tuple(self._taps):
            tap(key, site, x, coefficients, update, output)
        if strength == 0 or prepared.silent:
            return output
        return torch.add(output, update.to(output.dtype), alpha=strength)


def _input(key: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    x = args[0] if args else next(iter(kwargs.values()), None)
    if not isinstance(x, Tensor):
        raise SiteError(f"{key}: the module was called without a tensor as its first argument; it cannot be a site.")
    return x
