"""What a hook may not do: write into tensors that others hold, keep what a transform made, keep memory, or go along in a copy."""

from __future__ import annotations

import copy
import gc
import io
import weakref

import pytest
import torch
from core.tiny_adapters import INNER, WIDTH, TinyModel, make_adapter
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from sparsedict.sparsedict_core.compose import compose
from sparsedict.sparsedict_core.errors import SparseDictError
from sparsedict.sparsedict_core.functional import add_decoded


@pytest.fixture
def frozen(model):
    return make_adapter(model).requires_grad_(False)


# -- tensors that others hold ---------------------------------------------------------------------------------------


class Cached(nn.Linear):
    """Gives the same tensor at every call."""

    kept: torch.Tensor | None = None

    def forward(self, x):
        if self.kept is None:
            self.kept = super().forward(x)
        return self.kept


class Keeping(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.kept = []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        out = op(*args, **(kwargs or {}))
        if op is torch.ops.aten.addmm.default and out.shape[-1] == WIDTH:
            self.kept.append((out, out.clone()))
        return out


@torch.no_grad()
def test_a_global_hook_keeps_what_it_saw(model, x, frozen):
    shown = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, output: shown.append((output, output.clone())))
    try:
        with frozen.attach(model):
            model(x)
    finally:
        handle.remove()
    assert shown and all(torch.equal(*pair) for pair in shown)


@torch.no_grad()
def test_a_patched_forward_keeps_what_it_returned(model, x, frozen):
    linear, kept = model.blocks[0]["to_out"][0], []

    def forward(x):
        kept.append(nn.Linear.forward(linear, x))
        return kept[-1]

    linear.forward = forward
    with frozen.attach(model):
        model(x)
    assert torch.equal(kept[0], nn.Linear.forward(linear, torch.tanh(model.blocks[0]["inner"](x))))


@torch.no_grad()
def test_a_cached_output_is_not_added_to_twice(model, x, frozen):
    linear = Cached(INNER, WIDTH)
    model.blocks[0]["to_out"][0] = linear
    with frozen.attach(model):
        assert torch.equal(model(x), model(x))
    assert torch.equal(linear.kept, nn.Linear.forward(linear, torch.tanh(model.blocks[0]["inner"](x))))


@torch.no_grad()
def test_a_mode_keeps_what_it_saw(model, x, frozen):
    with frozen.attach(model), Keeping() as mode:
        model(x)
    assert len(mode.kept) >= 3 and all(torch.equal(*pair) for pair in mode.kept)


class KeepingCalls(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.kept = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if function is nn.functional.linear and out.shape[-1] == WIDTH:
            self.kept.append((out, out.clone()))
        return out


@torch.no_grad()
def test_a_mode_of_functions_keeps_what_it_saw(model, x, frozen):
    with frozen.attach(model), KeepingCalls() as mode:
        model(x)
    assert len(mode.kept) >= 3 and all(torch.equal(*pair) for pair in mode.kept)


@torch.no_grad()
def test_in_place_where_nobody_looks(model, x, frozen, monkeypatch):
    from sparsedict.sparsedict_core import module_hook

    calls = []
    monkeypatch.setattr(module_hook, "add_decoded", lambda *args: calls.append(args[-1]) or add_decoded(*args))
    with frozen.attach(model), make_adapter(model, 1).requires_grad_(False).attach(model) as second:
        model(x)
        assert calls == [True] * 6
        with torch.device("cpu"):  # a default device is a mode, too
            model(x)
        assert calls == [True] * 12 and second._prepared["transformer.blocks.0.to_out.0"]._cached is not None


# -- transforms -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_transforms_without_gradients(model, x, frozen):
    with frozen.attach(model, 0.6):
        full = model(x)
        assert torch.allclose(torch.vmap(model)(x), full, atol=1e-5)
        direction = torch.randn_like(x)
        value, slope = torch.func.jvp(model, (x,), (direction,))
        assert torch.allclose(value, full, atol=1e-5)
        with torch.enable_grad():
            assert torch.allclose(slope, torch.autograd.functional.jvp(model, x, direction)[1], atol=1e-4)
        graph = make_fx(model)(x)
        assert torch.allclose(graph(x), full, atol=1e-5) and torch.allclose(graph(x * 0.5), model(x * 0.5), atol=1e-5)
        assert torch.equal(model(x), full), "a transform left something behind"


def test_transforms_first(model, x, frozen):
    """Nothing that a transform made is kept for plain calls."""
    with frozen.attach(model):
        wanted = model(x)
    with frozen.attach(model), torch.no_grad():
        torch.vmap(model)(x)
        torch.func.jvp(model, (x,), (x,))
        make_fx(model)(x)
        from torch._subclasses import FakeTensorMode

        with FakeTensorMode(allow_non_fake_inputs=True) as fake:
            assert model(fake.from_tensor(x)).shape == wanted.shape
        assert torch.allclose(model(x), wanted, atol=1e-6)


# -- memory ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_nothing_is_left_after_detaching(model, x):
    gc.disable()
    try:
        adapter = compose([("a", make_adapter(model), 1.0), ("b", make_adapter(model, 1), 1.0)]).requires_grad_(False)
        attachment = adapter.attach(model)
        model(x)
        prepared = next(iter(attachment._prepared.values()))
        made = weakref.ref(prepared._cached.encoder_basis)
        attachment.detach()
        assert made() is None, "an attachment that is kept still holds what it made for its calls"
        gone = weakref.ref(attachment)
        del attachment
        assert gone() is None, "a reference cycle"
        attachment = adapter.attach(model)
        model_gone, gone = weakref.ref(model), weakref.ref(attachment)
        del attachment
        assert gone() is not None
        del model
    finally:
        gc.enable()
    assert model_gone() is not None  # the fixture's own


@torch.no_grad()
def test_tensors_move_once(model, x, frozen, monkeypatch):
    """On another device than the model, they are copied at attach, not at each call, captured or not."""
    from sparsedict.sparsedict_core import prepared

    moves = []
    on = prepared.SiteTensors.on
    monkeypatch.setattr(prepared.SiteTensors, "on", lambda self, device: moves.append(device) or on(self, device))
    with frozen.attach(model.to("meta"), 0.5) as attachment:
        assert moves == []  # nowhere to move to
        del attachment
    model = TinyModel().requires_grad_(False)
    with frozen.attach(model) as attachment:
        for one in attachment._prepared.values():
            one.move(torch.device("meta"))
        assert len(moves) == 3
        for _ in range(3):
            for one in attachment._prepared.values():
                assert one.traced(torch.float32, torch.device("meta")).encoder_weight.is_meta
                assert one.tensors(torch.float32, torch.device("meta")).encoder_weight.is_meta
        assert len(moves) == 3
        next(iter(frozen.sites.values())).dictionary_basis.mul_(2)
        for one in attachment._prepared.values():
            one.tensors(torch.float32, torch.device("meta"))
        assert len(moves) == 4


# -- copies ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_copy_is_the_bare_model(model, x, frozen):
    base = model(x)
    with frozen.attach(model):
        full = model(x)
        with pytest.warns(UserWarning, match="without the adapter") as told:
            twin = copy.deepcopy(model)
        assert len(told) == 1 and len(frozen.sites) > 1
        with pytest.warns(UserWarning, match="without the adapter") as told:
            file = io.BytesIO()
            torch.save(model, file)
            file.seek(0)
            loaded = torch.load(file, weights_only=False)
        assert len(told) == 1
        with pytest.warns(UserWarning, match="without the adapter") as told:
            pair = copy.deepcopy([model, {"again": model}])
        assert len(told) == 1 and pair[0] is pair[1]["again"]
        for other in (twin, loaded):
            assert torch.equal(other(x), base)
            with frozen.attach(other):
                assert torch.equal(other(x), full)
            assert torch.equal(other(x), base)
        assert torch.equal(model(x), full)
    assert torch.equal(model(x), base) and torch.equal(twin(x), base)


# -- strengths ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_member_strengths(model, x):
    adapter = compose([("a", make_adapter(model), 1.0), ("b", make_adapter(model, 1), 0.5)])
    with adapter.attach(model) as attachment:
        model(x)
        attachment.member_strengths.update(a=0.0, b=1.0)
        changed = model(x)
        assert attachment._scale[:24].eq(0).all() and attachment._scale[-24:].eq(1).all()
        for name, value, match in (("c", 1.0, "no member 'c'; the members are a, b"), ("a", float("nan"), "strength of 'a' is nan")):
            with pytest.raises(SparseDictError, match=match):
                attachment.member_strengths[name] = value
            with pytest.raises(SparseDictError, match=match):
                attachment.member_strengths.update({name: value})
        with pytest.raises(SparseDictError, match="set its strength to 0"):
            del attachment.member_strengths["a"]
        assert dict(attachment.member_strengths) == {"a": 0.0, "b": 1.0} and torch.equal(model(x), changed)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30, -251])
@torch.no_grad()
def test_a_strength_is_finite(model, x, frozen, value):
    with pytest.raises(SparseDictError, match="the strength is"):
        frozen.attach(model, value)
    assert all(not module._forward_hooks for module in model.modules())
    with frozen.attach(model) as attachment:
        full = model(x)
        with pytest.raises(SparseDictError, match="give a finite number"):
            attachment.strength = value
        assert attachment.strength == 1.0 and torch.equal(model(x), full)
