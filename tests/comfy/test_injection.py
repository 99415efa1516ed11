"""Sampling with an adapter on the host's models: it does what was asked, whatever else is on them, and leaves no trace."""

from types import SimpleNamespace

import pytest
import tiny_models
import torch
from host_adapters import loaded, make_adapter

from sparsedict.sparsedict_core.attachment import Attachment


def sample(patcher, family, steps=2):
    """Without guidance: half the work, and the same hooks."""
    return tiny_models.sample(patcher, family, steps=steps, guidance=1.0)


def hooks(patcher) -> int:
    return sum(len(m._forward_hooks) for m in patcher.model.diffusion_model.modules())


@pytest.fixture
def apply(comfy):
    from sparsedict.comfyui_host.injection import apply_adapter

    return apply_adapter


_BASE: dict = {}


@pytest.fixture
def base(family, patcher):
    """The base's latents, and afterwards the proof that nothing stays."""
    if family not in _BASE:
        _BASE[family] = sample(patcher, family)
    yield _BASE[family]
    assert torch.equal(sample(patcher, family), _BASE[family])
    assert hooks(patcher) == 0


def test_identities(family, patcher, base, apply):
    """Bit by bit: strength 0, all gains zero and a removed adapter are the base; all gains one are the adapter."""
    adapter = make_adapter(patcher)

    def sampled(**how):
        return sample(apply(patcher, adapter, **how), family)

    plain = sampled()
    assert torch.isfinite(plain).all() and (plain - base).abs().max() > 1e-3
    assert torch.equal(sampled(strength=0.0), base)
    assert torch.equal(sampled(gains={key: torch.zeros(site.atoms) for key, site in adapter.sites.items()}), base)
    assert torch.equal(sampled(gains={key: torch.ones(site.atoms) for key, site in adapter.sites.items()}), plain)
    half = {key: (torch.arange(site.atoms) % 2).float() for key, site in adapter.sites.items()}
    assert not torch.equal(sampled(gains=half), plain) and not torch.equal(sampled(gains=half), base)


def test_two_branches_do_not_leak(family, patcher, base, apply):
    a, b = apply(patcher, make_adapter(patcher, seed=1)), apply(patcher, make_adapter(patcher, seed=2))
    first = sample(a, family), sample(b, family)
    again = sample(a, family), sample(b, family)
    assert not torch.equal(*first)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])


def test_it_chains_with_itself(family, patcher, base, apply):
    one, two = make_adapter(patcher, seed=1), make_adapter(patcher, seed=2)
    alone = apply(patcher, one)
    # Sampled first, so that the clone is made of a patcher that is loaded and injected.
    single = sample(alone, family)
    both = apply(alone, two)
    chained = sample(both, family)
    assert not torch.equal(chained, single)
    assert torch.equal(chained, sample(apply(apply(patcher, one), two), family))
    assert torch.equal(sample(alone, family), single)
    assert torch.equal(sample(apply(alone, two, strength=0.0), family), single)


def test_an_error_while_sampling_leaves_the_base_clean(family, patcher, base, apply):
    adapter = make_adapter(patcher)
    good = sample(apply(patcher, adapter), family)
    broken = apply(patcher, adapter, start_percent=0.0, end_percent=0.9)

    def fail(executor, *args, **kwargs):
        executor(*args, **kwargs)
        raise RuntimeError("stopped")

    broken.add_wrapper("apply_model", fail)
    with pytest.raises(RuntimeError, match="stopped"):
        sample(broken, family)
    assert torch.equal(sample(patcher, family), base)
    assert torch.equal(sample(apply(patcher, adapter), family), good)


def test_clones_of_a_loaded_patcher_are_hooked_and_collected_without_a_trace(comfy, apply):
    import gc

    patcher = loaded("sd3")
    adapter = make_adapter(patcher)
    a = apply(patcher, adapter)
    with_adapter = sample(a, "sd3")
    sites = hooks(patcher)
    assert sites == len(adapter.sites)
    child = a.clone()  # as the host's LoRA loader makes one
    assert torch.equal(sample(child, "sd3"), with_adapter)
    assert hooks(patcher) == sites
    sample(a, "sd3")
    del child
    gc.collect()
    assert hooks(patcher) == sites, "collecting a child must not eject its parent"
    assert torch.equal(sample(a, "sd3"), with_adapter)
    del a
    gc.collect()
    sample(patcher, "sd3")
    assert hooks(patcher) == 0


def test_with_the_hosts_lora_in_either_order(comfy, apply):
    patcher = loaded("sd3")
    adapter = make_adapter(patcher)
    key = "diffusion_model.joint_blocks.0.x_block.attn.proj.weight"
    change = {key: ("diff", (torch.full((128, 128), 0.02),))}

    def lora(on):
        clone = on.clone()
        assert clone.add_patches(change, 1.0) == [key]
        return clone

    base = sample(patcher, "sd3")
    only = sample(lora(patcher), "sd3")
    assert not torch.equal(base, only)
    before, after = lora(apply(patcher, adapter)), apply(lora(patcher), adapter)
    assert torch.equal(sample(before, "sd3"), sample(after, "sd3"))
    assert torch.equal(sample(apply(lora(patcher), adapter, strength=0.0), "sd3"), only)
    assert torch.equal(sample(patcher, "sd3"), base)


@pytest.mark.parametrize("name", ["sd3", "sd15"])
def test_the_range_of_percents_is_a_range_of_noise_levels(comfy, apply, name):
    from sparsedict.comfyui_host.injection import applied_to, attachments_of

    patcher = loaded(name)
    adapter = make_adapter(patcher)

    def acting(start, end):
        applied = apply(patcher, adapter, start_percent=start, end_percent=end)
        seen = []

        def watch(executor, *args, **kwargs):
            seen.append(attachments_of(applied)[0].enabled)
            return executor(*args, **kwargs)

        applied.add_wrapper("apply_model", watch)
        latents = sample(applied, name, steps=4)
        assert attachments_of(applied)[0].enabled and len(applied_to(applied)) == 1
        return seen, latents

    whole, _ = acting(0.0, 1.0)
    early, first = acting(0.0, 0.5)
    late, second = acting(0.5, 1.0)
    assert whole == [True] * 4
    assert early[0] and not early[-1] and not late[0] and late[-1]
    assert [a != b for a, b in zip(early, late)] == [True] * 4, "two ranges that meet share no step and leave none out"
    assert not torch.equal(first, second)


def test_outside_its_range_an_adapter_is_silent_and_comes_back(comfy, apply):
    from sparsedict.comfyui_host.injection import applied_to

    applied = apply(loaded("sd3"), make_adapter(loaded("sd3")), start_percent=0.2, end_percent=0.5)
    [one] = applied_to(applied)
    before = hooks(applied)  # another test's model may still be loaded
    one.inject(applied)
    attachment = one.attachment(applied)

    class Executor:
        class_obj = SimpleNamespace(model_sampling=SimpleNamespace(percent_to_sigma=lambda percent: 1 - percent))
        error = None

        def __call__(self, x, sigma):
            if self.error is not None:
                raise self.error
            return attachment.enabled

    executor = Executor()
    levels = {0.9: False, 0.8: True, 0.6: True, 0.5: False, 0.1: False}  # it begins at 1 − 0.2, and has ended at 1 − 0.5
    for level, acts in levels.items():
        assert one.within_range(executor, None, torch.tensor([level], dtype=torch.float64)) is acts, level
        assert attachment.enabled
    executor.error = RuntimeError("stopped")
    with pytest.raises(RuntimeError, match="stopped"):
        one.within_range(executor, None, torch.tensor([0.1]))
    assert attachment.enabled
    one.eject(applied)
    one.eject(applied)
    assert hooks(applied) == before


def test_an_empty_range_is_refused(comfy, apply):
    from sparsedict.sparsedict_core.errors import SparseDictError

    with pytest.raises(SparseDictError, match=r"range 0\.5 to 0\.5 is empty; start must be below end"):
        apply(loaded("sd3"), make_adapter(loaded("sd3")), start_percent=0.5, end_percent=0.5)


def test_the_hosts_memory_management_counts_the_adapter_as_a_model_of_its_own(family, patcher, base, apply, comfy):
    from sparsedict.comfyui_host.injection import AppliedTensors

    one, two = make_adapter(patcher, seed=1), make_adapter(patcher, seed=2)
    both = apply(apply(patcher, one), two)
    counted = [each for each in both.get_nested_additional_models() if isinstance(each.model, AppliedTensors)]
    assert [each.model_size() for each in counted] == [sum(t.nbytes for t in adapter.state_dict().values()) for adapter in (one, two)]
    assert patcher.get_nested_additional_models() == []
    sample(both, family)
    loaded_now = [each.model for each in comfy.model_management.current_loaded_models]
    assert sum(isinstance(each.model, AppliedTensors) for each in loaded_now) >= 2


def elsewhere(dtype, cast=None):
    """A patcher as `tensors_for` sees it, on any device but the CPU: nothing is computed there."""
    return SimpleNamespace(
        load_device=torch.device("meta"), offload_device=torch.device("cpu"), model_dtype=lambda: dtype, get_model_object={"manual_cast_dtype": cast}.get
    )


def test_what_is_moved_is_one_copy_of_an_adapter_and_never_the_sockets_own(comfy):
    from sparsedict.comfyui_host.injection import tensors_for

    adapter = make_adapter(loaded("sd3"))
    for site in adapter.sites.values():
        site.moments = torch.eye(site.atoms)
    held = tensors_for(adapter, elsewhere(torch.float32))
    assert held is tensors_for(adapter, elsewhere(torch.float32)) and held.model.adapter is not adapter
    assert all(site.moments is None for site in held.model.adapter.sites.values())
    assert all(site.moments is not None and site.encoder_weight.device.type == "cpu" for site in adapter.sites.values())
    assert tensors_for(adapter, loaded("sd3")).model.adapter is adapter
    # In the type that the model computes in, which that of its weights may not be.
    for dtype, cast in ((torch.bfloat16, None), (torch.float8_e4m3fn, torch.bfloat16)):
        assert {t.dtype for t in tensors_for(adapter, elsewhere(dtype, cast)).model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapters_tensors_are_held_once(comfy, dtype):
    """After calls nothing is kept beside what the host moves and counts: no fp32 beside the model's own type."""
    from sparsedict.comfyui_host.injection import tensors_for

    adapter = make_adapter(loaded("sd3"))
    for site in adapter.sites.values():
        site.set_input_statistics(torch.randn(site.d_in), torch.rand(site.d_in) + 0.5)
    held = tensors_for(adapter, elsewhere(dtype)).model.adapter
    linears = {key: torch.nn.Linear(site.d_in, site.d_out).to(dtype) for key, site in adapter.sites.items()}
    xs = {key: torch.randn(1, 8, site.d_in).to(dtype) for key, site in adapter.sites.items()}

    def called(which):
        attachment = Attachment(which, linears)
        with torch.no_grad():
            outputs = {key: linear(xs[key]) for key, linear in linears.items()}
        kept = {t.untyped_storage().data_ptr(): t for t in tensors_in(attachment._prepared)}
        attachment.detach()
        return outputs, kept

    outputs, kept = called(held)
    theirs = {t.untyped_storage().data_ptr() for t in [*held.parameters(), *held.buffers()]}
    beside = sum(t.nbytes for address, t in kept.items() if address not in theirs)
    assert beside <= sum(4 * site.atoms for site in adapter.sites.values()) * 2, "the strengths, and a bias with its threshold"
    exact, _ = called(adapter)
    assert all(torch.equal(outputs[key], exact[key]) for key in exact)


def tensors_in(prepared):
    """All tensors that prepared sites hold."""
    found = []
    for one in prepared.values():
        for value in vars(one).values():
            found += [t for t in (value if isinstance(value, tuple) else [value]) if isinstance(t, torch.Tensor)]
    return found
