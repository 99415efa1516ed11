"""An adapter at work on a model: one forward hook on each module that has sites, live strength and gains.

Hooks (`module_hook`) never touch the module's weights, so quantised weights, other adapters and the host's own patches are all the
same to them, and detaching leaves the model as it was. A deep copy or a pickle of a hooked model is the bare model.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .bounds import checked_strength
from .errors import SiteError, SparseDictError
from .model_changes import ModelWatch
from .module_hook import ModuleHook, SiteCall, mark, unmark
from .places import place_of
from .prepared import PreparedSite, choices
from .site import Place, SparseSite

if TYPE_CHECKING:
    from .adapter import SparseAdapter

#: (site_key, site, x, coefficients, update, output): x (..., d_in), coefficients (..., m) of all atoms and before
#: gains, update (..., d_out) with gains at strength 1, output (..., d_out) before this update is added.
TapCallback = Callable[[str, SparseSite, Tensor, Tensor, Tensor, Tensor], None]


class Session(Protocol):
    """What an attachment asks of a training at its sites (`training_state.TrainingSession`)."""

    density: float | None  # None: it computes as at inference

    def prefix(self, key: str) -> int | None: ...

    def observe(self, key: str, site: SparseSite, u: Tensor, coefficients: Tensor) -> None: ...


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


class MemberStrengths(MutableMapping[str, float]):
    """Strengths by member's name. Live: a change acts from the next call on.

    Raises SparseDictError for a name that is no member's and for a strength that is not finite.
    """

    def __init__(self, attachment: Attachment, values: dict[str, float]) -> None:
        self._values = values
        self._attachment = weakref.ref(attachment)  # not to keep each other, and tensors on a device, alive

    def __getitem__(self, name: str) -> float:
        return self._values[name]

    def __setitem__(self, name: str, strength: float) -> None:
        if name not in self._values:
            known = f"the members are {', '.join(self._values)}" if self._values else "the adapter is not composed and has no members"
            raise SparseDictError(f"there is no member {name!r}; {known}.")
        self._values[name] = checked_strength(strength, f"the strength of {name!r}")
        attachment = self._attachment()
        if attachment is not None:
            attachment._rescale()

    def __delitem__(self, name: str) -> None:
        raise SparseDictError(f"the member {name!r} cannot be taken out of an attached adapter; set its strength to 0.")

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(self._values)


class Attachment:
    """Live: `strength`, `member_strengths` (composed adapters), `enabled` and `set_gains` act from the next call on.

    Under torch.compile, strengths and gains are values of tensors: changing them compiles nothing anew. `capturable` takes the
    same way without compiling, for CUDA graphs: a captured graph follows them too. The price of both is that atoms of gain 0
    are computed; atoms that `prune` took away cost nothing in any case.
    """

    def __init__(self, adapter: SparseAdapter, places: Mapping[str, Place | nn.Module], strength: float = 1.0) -> None:
        """Hooks the sites to `places` by site key; a bare module stands for all of its output.

        Raises SparseDictError for a strength that is not finite.
        """
        self.adapter = adapter
        self.enabled = True
        self.capturable = False
        self.session: Session | None = None
        self.taps: list[TapCallback] = []
        self.companions: list[Callable[[], None]] = []  # what ends what else came with the adapter, when that is detached
        self._strength = checked_strength(strength, "the strength")
        self._sizes = [site.atoms for site in adapter.sites.values()]
        self._gains = torch.ones(sum(self._sizes))  # of all sites, one after another
        device = _device_of(place.module if isinstance(place, Place) else place for place in places.values())
        # One tensor for all sites, as a change then is one operation. In inference mode it could only be written to there.
        with torch.inference_mode(False):
            self._scale = torch.ones(sum(self._sizes), device=device)
            scales = self._scale.split(self._sizes)
            self._prepared = {key: PreparedSite(site, scale) for (key, site), scale in zip(adapter.sites.items(), scales, strict=True)}
        self.member_strengths = MemberStrengths(self, {member.name: member.strength for member in adapter.members})
        self._rescale()
        # Weakly, as the modules hold their hooks and those hold this.
        self._hooked: list[tuple[weakref.ref[nn.Module], RemovableHandle]] = []
        self._watches: list[RemovableHandle] = []
        self._hook(places)

    def _hook(self, places: Mapping[str, Place | nn.Module]) -> None:
        sharing: dict[nn.Module, list[SiteCall]] = {}
        for key, prepared in self._prepared.items():
            module, rows = place_of(places[key], prepared.site.name)
            sharing.setdefault(module, []).append(SiteCall(key, prepared, rows))
            if (device := _device_of([module])) is not None:
                with torch.inference_mode(False):
                    prepared.move(device)
        for module, calls in sharing.items():
            self._hooked.append((weakref.ref(module), module.register_forward_hook(ModuleHook(self, calls), with_kwargs=True)))
            mark(module)

    def _unhook(self) -> None:
        for module, handle in self._hooked:
            handle.remove()
            if (hooked := module()) is not None:
                unmark(hooked)
        self._hooked.clear()

    # -- strength -------------------------------------------------------------------------------------------

    @property
    def strength(self) -> float:
        """s, of all members together."""
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        self._strength = checked_strength(value, "the strength")
        self._rescale()

    def strength_at(self, member: str | None) -> float:
        """s of a member's sites; of all sites of an adapter that is not composed, with None."""
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
        return Tap(self.taps, callback)

    # -- life -----------------------------------------------------------------------------------------------

    @property
    def attached(self) -> bool:
        """Whether it is on its model still."""
        return bool(self._hooked)

    def modules(self) -> list[nn.Module]:
        """Those that it has hooks on."""
        return [module for reference, _ in self._hooked if (module := reference()) is not None]

    def move(self, places: Mapping[str, Place]) -> None:
        """Go to other modules of the model, by site key."""
        self._unhook()
        self._hook(places)

    def watch(self, model: nn.Module, paths: Iterable[str], find: Callable[[nn.Module], Mapping[str, Place]]) -> None:
        """Follow `model` where modules on the way to the sites, at `paths` below it, are exchanged; `find` finds the places anew."""
        self._watches += ModelWatch(self, getattr(model, "_orig_mod", model), paths, find).register(model)

    @torch.no_grad()
    def take(self, other: SparseAdapter) -> bool:
        """Copy another adapter's values into this one's tensors, so that compiled code goes on with them. False, with nothing
        changed, where its sites, their sizes or their encoders differ."""
        mine, theirs = self.adapter.sites, other.sites
        if mine.keys() != theirs.keys() or self.adapter.members != other.members or not all(mine[key].has_same_shapes(theirs[key]) for key in mine):
            return False
        for key, site in mine.items():
            site.take(theirs[key])
        self.adapter.metadata = dict(other.metadata)
        for prepared in self._prepared.values():
            prepared.refresh()
        return True

    def detach(self) -> None:
        """Take the hooks away, and let go of what was on the device for them; once more does no harm."""
        self._unhook()
        for watch in self._watches:
            watch.remove()
        self._watches.clear()
        while self.companions:
            self.companions.pop()()
        for prepared in self._prepared.values():
            prepared.release()
        self._scale = self._scale.to("cpu")

    def __enter__(self) -> Attachment:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.detach()


def _device_of(modules: Iterable[nn.Module]) -> torch.device | None:
    """Where the first module that has a parameter is, as far as that is known."""
    for module in modules:
        # Its own come first: to walk through all that is below each Linear is the most of attaching a small adapter.
        for parameter in itertools.chain(module._parameters.values(), module.parameters()):
            if parameter is not None:
                return None if parameter.device.type == "meta" else parameter.device
    return None
