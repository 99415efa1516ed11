"""One module's call with an adapter on it: all of the adapter's sites there, added to the module's output.

The hook reads the module's input and adds to its output. It writes into the output only where nobody else can hold it.
"""

from __future__ import annotations

import types
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext

from .errors import SiteError
from .functional import add_decoded, decode, encode, rectified
from .prepared import PreparedSite
from .site import SparseSite
from .tokens import first_tensor, input_tokens, output_tokens

if TYPE_CHECKING:
    from .attachment import Attachment

Rows = tuple[int, int] | None

#: Forward functions that give a new tensor at every call; a host adds those of its own Linears.
FRESH_FORWARDS: set[Any] = {nn.Linear.forward}


class SiteCall(NamedTuple):
    """One site as its module's hook calls it."""

    key: str
    prepared: PreparedSite
    rows: Rows  # the slice of the module's output, None: all of it

    @property
    def site(self) -> SparseSite:
        return self.prepared.site


def _left_behind() -> Any:
    warnings.warn("a copy of a model with an adapter on it is the model without the adapter; attach the adapter to the copy.", stacklevel=1)
    return _nothing


def _nothing(*args: Any) -> None:
    """What stands for a hook in a copy of a hooked model: the copy is the bare base."""


class _Bare:
    """`_nothing` in the making: one for all hooks, as what copies or pickles a model does so once for each object, and so warns once."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _left_behind, ()


_BARE = _Bare()


def _itself(value: Any) -> Any:
    return value


class Uncopied:
    """A hook that a copy of the model, or a pickle of it, goes without."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (_BARE,)


class ModuleHook(Uncopied):
    """The forward hook of one module for one attachment. Sites are added in their order in the adapter."""

    def __init__(self, attachment: Attachment, calls: Sequence[SiteCall]) -> None:
        self.attachment = attachment
        self.calls = list(calls)
        self.called = False
        self.rounds = _rounds(self.calls)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        attachment, self.called = self.attachment, True
        if not attachment.enabled:
            return output
        traced = (attachment.capturable or torch.compiler.is_compiling()) and self._traceable()
        if not traced and not attachment.taps and self._silent():
            return output
        key = self.calls[0].key
        x = input_tokens(module, first_tensor(key, args, kwargs))
        output, back = output_tokens(module, output)
        if not isinstance(output, Tensor):
            raise SiteError(f"{key}: the module returns a {type(output).__name__}; a site must return one tensor.")
        own = not traced and back is None and _owned(module, self, output)
        for parts in self.rounds:
            output = self._add_round(parts, x, output, traced, own)
        return output if back is None else back(output)

    # -- one site -------------------------------------------------------------------------------------------

    def _silent(self) -> bool:
        strength_at = self.attachment.strength_at
        return all(call.prepared.silent or strength_at(call.site.member) == 0 for call in self.calls)

    def _traceable(self) -> bool:
        """Observers and training sessions want more than a graph has."""
        session = self.attachment.session
        return not self.attachment.taps and (session is None or session.density is None)

    def _add_round(self, parts: list[tuple[Rows, list[SiteCall]]], x: Tensor, output: Tensor, traced: bool, own: bool) -> Tensor:
        """The output with all slices of one round changed: in place if it is ours, else one new tensor for all of them."""
        pieces, at = [], 0
        for rows, calls in parts:
            piece = output if rows is None else output[..., rows[0] : rows[1]]
            for call in calls:
                # A slice's sum is made apart: in place its product would round otherwise than that of a Linear of its own.
                new = self._add(call, x, piece, traced, own and rows is None)
                piece = piece.copy_(new) if own and rows is not None and new is not piece else new
            if rows is None:
                return piece
            pieces += [output[..., at : rows[0]], piece]
            at = rows[1]
        return output if own else torch.cat([*pieces, output[..., at:]], -1)

    def _add(self, call: SiteCall, x: Tensor, output: Tensor, traced: bool, own: bool) -> Tensor:
        """O + s·ΔO of one site; x (..., d_in), output (..., d_out) the site's own channels."""
        _check(call.key, call.site, x, output)
        if traced:
            return _traced(call.prepared, x, output)
        attachment = self.attachment
        strength = attachment.strength_at(call.site.member)
        if not attachment.taps and (attachment.session is None or attachment.session.density is None):
            if strength == 0 or call.prepared.silent:
                return output
            return _fused(call.prepared, x, output, strength, own)
        return self._observed(call, x, output, strength)

    def _observed(self, call: SiteCall, x: Tensor, output: Tensor, strength: float) -> Tensor:
        attachment, prepared, site = self.attachment, call.prepared, call.site
        session, taps = attachment.session, tuple(attachment.taps)
        if not taps and (strength == 0 or prepared.silent):
            return output
        prefix = None if session is None else session.prefix(call.key)
        tensors = prepared.tensors(x.dtype, x.device, prefix, all_atoms=bool(taps), keep=not _transformed())
        u, coefficients = encode(x, tensors, site.encoder)
        gained = coefficients
        if taps and prepared.gains is not None:
            gained = coefficients * prepared.gains[: coefficients.shape[-1]].to(coefficients)
        update = decode(gained, tensors.dictionary_weight, tensors.dictionary_basis)
        if session is not None and session.density is not None:
            session.observe(call.key, site, u, coefficients)
        for tap in taps:
            tap(call.key, site, x, coefficients, update, output)
        if strength == 0 or prepared.silent:
            return output
        return torch.add(output, update.to(output.dtype), alpha=strength)


def _traced(prepared: PreparedSite, x: Tensor, output: Tensor) -> Tensor:
    """The call in compiled code and captured graphs."""
    if prepared.site.atoms == 0:
        return output
    tensors = prepared.traced(x.dtype, x.device)
    coefficients = encode(x, tensors, prepared.site.encoder)[1].to(output.dtype)
    tensors = tensors.cast(output.dtype, output.device)
    return add_decoded(output, coefficients, tensors.dictionary_weight, tensors.dictionary_basis)


def _fused(prepared: PreparedSite, x: Tensor, output: Tensor, strength: float, own: bool) -> Tensor:
    """The call outside training, with nobody looking: no tensor for u, ΔO or, where that is safe, the sum."""
    encoder = prepared.site.encoder
    tensors = prepared.tensors(x.dtype, x.device, rectified=encoder.rectifies, keep=not _transformed())
    coefficients = rectified(x, tensors) if encoder.rectifies else encode(x, tensors, encoder)[1]
    weight, basis = tensors.dictionary_weight, tensors.dictionary_basis
    if coefficients.dtype != output.dtype:
        return torch.add(output, decode(coefficients, weight, basis).to(output.dtype), alpha=strength)
    return add_decoded(output, coefficients, weight, basis, strength, own)


def _owned(module: nn.Module, hook: ModuleHook, output: Tensor) -> bool:
    """Whether `output` may be written to: a Linear made it just now, no gradient needs it, and nobody was shown it before us."""
    if torch.is_grad_enabled() or type(output) is not Tensor or not output.is_contiguous() or _transformed() or _watched():
        return False
    if type(module).forward not in FRESH_FORWARDS or not _plain_forward(module) or torch_module._global_forward_hooks:
        return False
    for other in module._forward_hooks.values():
        if other is hook:
            return not hook.attachment.taps
        if not isinstance(other, ModuleHook) or other.attachment.taps:
            return False
    return False


def _transformed() -> bool:
    """Whether a mode or a transform (vmap, jvp, make_fx, …) sees each operation: it may keep tensors, and its own must not be kept."""
    return bool(torch._C._len_torch_dispatch_stack()) or torch._C._functorch.peek_interpreter_stack() is not None


def _watched() -> bool:
    """Whether a mode sees each call of a function; the one that stands for a default device keeps nothing."""
    return bool(torch._C._len_torch_function_stack()) and not all(isinstance(mode, DeviceContext) for mode in _get_current_function_mode_stack())


# -- slices -----------------------------------------------------------------------------------------------------


def _rounds(calls: Sequence[SiteCall]) -> list[list[tuple[Rows, list[SiteCall]]]]:
    """The calls in groups whose slices don't overlap, in order; a site of the whole output is a group of its own."""
    rounds: list[list[tuple[Rows, list[SiteCall]]]] = []
    for call in calls:
        if rounds:
            same = next((old for rows, old in rounds[-1] if rows == call.rows), None)
            if same is not None:
                same.append(call)
                continue
            if call.rows is not None and all(rows is not None and (rows[1] <= call.rows[0] or call.rows[1] <= rows[0]) for rows, _ in rounds[-1]):
                rounds[-1].append((call.rows, [call]))
                continue
        rounds.append([(call.rows, [call])])
    return [sorted(parts, key=lambda part: part[0] or (0, 0)) for parts in rounds]


def _check(key: str, site: SparseSite, x: Tensor, output: Tensor) -> None:
    """Raises SiteError for widths that are not the site's."""
    if x.shape[-1] != site.d_in or output.shape[-1] != site.d_out:
        raise SiteError(
            f"{key}: the model's widths are {x.shape[-1]} and {output.shape[-1]}, the adapter's are {site.d_in} and "
            f"{site.d_out}; use it with the base model that it was trained on."
        )


# -- what compiled code sees ------------------------------------------------------------------------------------


def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """What a hooked module's own `forward` does: what its class says. Of that name, so that it can be pickled as a method."""
    return type(self).forward(self, *args, **kwargs)


def _is_ours(own: Any) -> bool:
    return getattr(own, "__func__", None) is forward or hasattr(own, "around")


def _plain_forward(module: nn.Module) -> bool:
    own = module.__dict__.get("forward")
    return own is None or getattr(own, "__func__", None) in (forward, type(module).forward)


def mark(module: nn.Module) -> None:
    """Make compiled code look at the module anew.

    torch.compile does not watch hooks (`skip_nnmodule_hook_guards`), but it watches whether a module has a forward of its own, and
    which. So a hooked module gets one that does what it did before; code that was compiled before is out while it is there.
    """
    other = module.__dict__.get("forward")
    if other is None:
        module.__dict__["forward"] = types.MethodType(forward, module)
    elif not _is_ours(other):

        def around(*args: Any, **kwargs: Any) -> Any:
            return other(*args, **kwargs)

        around.around = other  # type: ignore[attr-defined]
        module.__dict__["forward"] = around


def unmark(module: nn.Module) -> None:
    """Undo `mark` when the module's last hook of ours is gone, unless somebody has put a forward of theirs in its place."""
    own = module.__dict__.get("forward")
    if not _is_ours(own) or any(isinstance(hook, ModuleHook) for hook in module._forward_hooks.values()):
        return
    if hasattr(own, "around"):
        module.__dict__["forward"] = own.around
    else:
        del module.__dict__["forward"]
