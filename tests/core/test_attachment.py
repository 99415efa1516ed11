"""An adapter at work: identities that hold bit for bit, live changes, several at once, errors that name names."""

from __future__ import annotations

import pytest
import torch
from core.tiny_adapters import INNER, WIDTH, TinyModel, make_adapter, site_names
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sparsedict.sparsedict_core.adapter import SparseAdapter
from sparsedict.sparsedict_core.config import AdapterConfig
from sparsedict.sparsedict_core.encoders import encoder_names
from sparsedict.sparsedict_core.errors import SiteError
from sparsedict.sparsedict_core.site import SiteName


@pytest.mark.parametrize("encoder", encoder_names())
@pytest.mark.parametrize("rank", [6, None])
def test_identities(model, x, encoder, rank):
    base = model(x)
    with make_adapter(model, fresh=True, encoder=encoder, rank=rank).attach(model):
        assert torch.equal(model(x), base)
    adapter = make_adapter(model, encoder=encoder, rank=rank)
    with adapter.attach(model) as attachment:
        full = model(x)
        assert not torch.equal(full, base)
        attachment.set_gains({key: torch.ones(24) for key in adapter.sites})
        assert torch.equal(model(x), full)
        attachment.strength = 0
        assert torch.equal(model(x), base)
        attachment.strength = 1
        attachment.set_gains({key: torch.zeros(24) for key in adapter.sites})
        assert torch.equal(model(x), base)
        attachment.set_gains(None)
        assert torch.equal(model(x), full)
        attachment.enabled = False
        assert torch.equal(model(x), base)
    assert torch.equal(model(x), base)
    attachment.detach()
    assert all(not module._forward_hooks for module in model.modules())


def test_same_seed_same_tensors(model):
    one, two, other = (dict(make_adapter(model, seed=s, fresh=True).named_parameters()) for s in (5, 5, 6))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_gains_are_live_and_equal_the_equation(model, x):
    adapter = make_adapter(model).requires_grad_(False)
    key = next(iter(adapter.sites))
    gains = torch.rand(24) * (torch.arange(24) % 4 == 0)
    taps = []
    with adapter.attach(model, strength=0.5) as attachment:
        attachment.set_gains({key: gains})
        assert torch.equal(attachment.gains[key], gains) and attachment.gains[list(adapter.sites)[1]].eq(1).all()
        plain = model(x)
        with attachment.tap(lambda *args: taps.append(args)):
            tapped = model(x)
        assert torch.allclose(plain, tapped, atol=1e-5)
        model(x)
    name, site, site_input, c, update, output = taps[0]
    assert len(taps) == 3 and name == key and c.shape == (3, 30, 24)
    assert torch.allclose(c, site.coefficients(site_input), atol=1e-6)
    assert torch.allclose(update, (c * gains) @ site.dictionary(), atol=1e-5)
    assert torch.equal(output, model.blocks[0]["to_out"][0](site_input))


@pytest.mark.parametrize("encoder", encoder_names())
def test_being_observed_changes_nothing(model, x, encoder):
    adapter = make_adapter(model, encoder=encoder).requires_grad_(False)
    gains = {key: torch.rand(24) * (torch.arange(24) % 3 == 0) for key in adapter.sites}
    seen = []
    with adapter.attach(model) as attachment:
        attachment.set_gains(gains)
        alone = model(x)
        with attachment.tap(lambda *args: seen.append(args[3])):
            assert torch.allclose(model(x), alone, atol=1e-5)
    assert all(c.shape == (3, 30, 24) for c in seen)


@pytest.mark.parametrize("encoder", encoder_names())
def test_state_dict_carries_everything(model, x, encoder):
    adapter = make_adapter(model, encoder=encoder)
    other = make_adapter(model, 9, fresh=True, encoder=encoder)
    other.load_state_dict(adapter.state_dict())
    with adapter.attach(model):
        wanted = model(x)
    with other.attach(model):
        assert torch.equal(model(x), wanted)


def test_taps_see_statistics_at_strength_zero_without_changing_anything(model, x):
    seen = []
    base = model(x)
    with make_adapter(model).attach(model, strength=0) as attachment, attachment.tap(lambda *args: seen.append(args[3])):
        assert torch.equal(model(x), base)
    assert len(seen) == 3 and seen[0].abs().sum() > 0


def test_bad_gains_change_nothing(model, x):
    adapter = make_adapter(model)
    key = next(iter(adapter.sites))
    with adapter.attach(model) as attachment:
        full = model(x)
        for bad, match in (
            ({"nope": torch.ones(24)}, "nope"),
            ({key: torch.ones(3)}, "24"),
            ({key: torch.full((24,), float("nan"))}, "finite"),
        ):
            with pytest.raises(SiteError, match=match):
                attachment.set_gains(bad)
        assert torch.equal(model(x), full)


def test_several_adapters_in_any_order_add_up(model, x):
    a, b = make_adapter(model, 1), make_adapter(model, 2)
    single = TinyModel(1).requires_grad_(False)
    one, two = make_adapter(single, 1), make_adapter(single, 2)
    with one.attach(single), two.attach(single, 0.5):
        both = single(x)
    with two.attach(single, 0.5), one.attach(single):
        assert torch.allclose(single(x), both, atol=1e-6)
    base = model(x)
    first, second = a.attach(model), b.attach(model)
    first.detach()
    with_b = model(x)
    second.detach()
    with b.attach(model):
        assert torch.equal(model(x), with_b)
    assert torch.equal(model(x), base)


def test_changes_in_place_are_seen_without_reattaching(model, x):
    adapter = make_adapter(model)
    with torch.no_grad(), adapter.attach(model):
        before = model(x)
        for site in adapter.sites.values():
            site.dictionary_basis.mul_(2)
        assert not torch.equal(model(x), before)


def test_dtype_is_taken_from_the_input(model, x):
    adapter = make_adapter(model).requires_grad_(False)
    full = None
    with adapter.attach(model):
        full = model(x)
        for dtype in (torch.float16, torch.bfloat16):
            half = model.to(dtype)(x.to(dtype))
            assert half.dtype == dtype and torch.allclose(half.float(), full, atol=0.2)
        model.float()


def test_autocast_forward_and_backward(model, x):
    adapter = make_adapter(model)
    with adapter.attach(model), torch.autocast("cpu", dtype=torch.bfloat16):
        y = model(x)
    y.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in adapter.parameters())


def test_inference_mode_then_training(model, x):
    adapter = make_adapter(model)
    with adapter.attach(model):
        with torch.inference_mode():
            model(x)
        with torch.no_grad():
            model(x)
        model(x).sum().backward()


def test_module_that_is_no_nn_linear(x):
    class PackedLinear(nn.Module):
        """Like the hosts' quantised Linears: its weight tells no widths."""

        def __init__(self, inner):
            super().__init__()
            self.inner = inner
            self.weight = torch.zeros(5, dtype=torch.uint8)

        def forward(self, x):
            return self.inner(x)

    model = TinyModel()
    adapter = make_adapter(model)
    with adapter.attach(model):
        full = model(x)
    for block in model.blocks:
        block["to_out"][0] = PackedLinear(block["to_out"][0])
    with adapter.attach(model):
        assert torch.equal(model(x), full)
    with pytest.raises(SiteError, match="PackedLinear"):
        make_adapter(model)


def test_attach_to_a_pipeline_or_to_a_host_with_other_names(model, x):
    adapter = make_adapter(model)
    with adapter.attach(model):
        full = model(x)

    class Pipeline:
        transformer = model

    class Host(nn.Module):
        def __init__(self):
            super().__init__()
            self.diffusion_model = model

    with adapter.attach(Pipeline()):
        assert torch.equal(model(x), full)
    with adapter.attach(Host(), component="diffusion_model"):
        assert torch.equal(model(x), full)
    with adapter.attach(None, resolve=lambda path: model.get_submodule(path.removeprefix("transformer."))):
        assert torch.equal(model(x), full)
    with pytest.raises(SiteError, match="not in the model"):
        adapter.attach(None, resolve=lambda path: None)


def test_unmatched_sites_name_the_near_ones_and_leave_no_hook(model):
    adapter = make_adapter(model)
    with pytest.raises(SiteError, match=r"blocks\.1\.to_out\.0"):
        SparseAdapter.create(model, [SiteName("transformer.block.1.to_out.0", 0)], component="transformer")
    with pytest.raises(SiteError, match="not in the model"):
        SparseAdapter.create(model, [SiteName("transformer.blocks.²", 0)], component="transformer")
    with pytest.raises(SiteError, match="1 of 3 sites"):
        adapter.attach(TinyModel(2))
    with pytest.raises(SiteError, match="no sites"):
        SparseAdapter.create(model, [])
    wide = TinyModel()
    wide.blocks[2]["to_out"][0] = nn.Linear(INNER, WIDTH + 1)
    with pytest.raises(SiteError, match="17"):
        adapter.attach(wide)
    assert all(not module._forward_hooks for other in (model, wide) for module in other.modules())


def test_widths_that_only_show_at_the_call(model):
    adapter = make_adapter(model)
    odd = nn.Identity()
    attachment = adapter.attach(None, resolve=lambda path: odd)
    with pytest.raises(SiteError, match="widths"):
        odd(torch.randn(1, WIDTH))
    attachment.detach()


def test_no_atoms_at_a_site(model, x):
    base = model(x)
    empty = make_adapter(model, atoms=0)
    with empty.attach(model) as attachment, attachment.tap(lambda *args: None):
        assert torch.equal(model(x), base)


def test_trainable_parameters_are_named_as_in_the_file(model):
    adapter = make_adapter(model)
    names = [name for name, _ in adapter.trainable_parameters()]
    assert names[0] == "transformer.blocks.0.to_out.0.encoder.weight"
    assert {n.removeprefix("transformer.blocks.0.to_out.0.") for n in names[:5]} == {
        "encoder.weight", "encoder.basis", "encoder.bias", "dictionary.weight", "dictionary.basis",
    }  # fmt: skip
    r, m = 6, 24
    assert adapter.parameter_count() == 3 * (r * INNER + r * WIDTH + 2 * m * r + m)
    assert adapter.atom_count == 3 * m


def test_gain_zero_saves_work():
    """Atoms that are masked away are skipped, not multiplied by zero."""
    torch.manual_seed(0)
    linear = nn.Linear(64, 64)
    model = nn.ModuleDict({"out": linear})
    adapter = SparseAdapter.create(model, [SiteName("out", 0)], AdapterConfig(atoms=2048, rank=None)).requires_grad_(False)
    data = torch.randn(512, 64)

    def operations():
        with FlopCounterMode(display=False) as counter:
            linear(data)
        return counter.get_total_flops()

    base = operations()
    with torch.no_grad(), adapter.attach(model) as attachment:
        full = operations() - base
        attachment.set_gains({"out": (torch.arange(2048) < 64).float()})
        assert operations() - base <= full * 64 / 2048


def test_sites_named_twice_are_refused(model):
    with pytest.raises(SiteError, match="twice"):
        SparseAdapter.create(model, [*site_names(), site_names()[0]], component="transformer")
