"""What a step waits for, exchanges and keeps: counted, as a test has neither a GPU nor a cluster."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from tiny_pipelines import SIDE, save_tiny
from waiting import waits

sys.path.insert(0, str(Path(__file__).parent))
import small_run
from small_run import zorp_data

from sparsedict.sparsedict_core.functional import decode, row_energies
from sparsedict.trainer import Callbacks, ConceptData
from sparsedict.trainer.backends import open_backend
from sparsedict.trainer.distribution import Processes
from sparsedict.trainer.loop import new_adapter
from sparsedict.trainer.optimisers import make_optimiser
from sparsedict.trainer.revival import DeadAtoms
from sparsedict.trainer.step import TrainingStep, draw_plan
from sparsedict.trainer.training_sets import build_sets


class Counted(Processes):
    """The first of two processes, the other of which does the same; counts the exchanges."""

    def __init__(self, device):
        super().__init__(device)
        self.world, self.exchanges = 2, 0

    def mean(self, value):
        self.exchanges += 1
        return value.clone()


def begun(folder, backend, processes=None, data=None, **more):
    """(step, draw a plan, step's attachment) of a run that is about to take its first step."""
    config = small_run.settings(folder, **more)
    processes = processes or Processes(backend.device)
    sets, _ = build_sets(config, backend, data or zorp_data(), Processes(backend.device), Callbacks())
    adapter = new_adapter(config, backend).trainable().to(backend.device)
    attachment = adapter.attach(backend.denoiser, component=backend.component)
    optimiser, dead = make_optimiser(config, [p for _, p in adapter.trainable_parameters()]), DeadAtoms(adapter)
    step = TrainingStep(config, backend, attachment, optimiser, dead, processes, False)
    attachment.tap(lambda key, site, x, c, update, output: step.session.recording and dead.observe(key, c))
    generator = torch.Generator().manual_seed(0)
    return step, lambda number: draw_plan(config, backend, adapter, sets, number, generator), generator, attachment


@pytest.fixture(params=["demo", "sd15", "sdxl", "sd3", "flux"])
def opened(request, tmp_path):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return open_backend("demo" if request.param == "demo" else save_tiny(request.param, tmp_path / "base"))


def pictures(backend):
    return None if getattr(backend, "fixed_size", False) else ConceptData.from_tensors([torch.zeros(3, SIDE, SIDE)] * 2, "a zorp")


def test_a_step_waits_once_and_a_micro_batch_never(tmp_path, opened, monkeypatch):
    size = {} if getattr(opened, "fixed_size", False) else {"resolution": SIDE}
    step, plan, generator, attachment = begun(tmp_path, opened, data=pictures(opened), gradient_accumulation=2, revive_after=0, **size)
    read = TrainingStep._read
    told = []
    monkeypatch.setattr(TrainingStep, "_read", lambda self, values: told.append(values))
    with attachment:
        for number in range(2):
            now = plan(number)
            with waits() as inside:
                step.gradients(now)
            assert not inside, f"a micro-batch waits: {inside}"
            with waits() as outside:
                step.exchanged(now)
            assert outside == {"cpu": 1}, outside
            numbers = read(step, told[-1])
            optimise = step.optimiser.step
            with monkeypatch.context() as patch, waits() as after:
                patch.setattr(step.optimiser, "step", lambda: None)  # Adam reads its counts of steps, which are on the CPU
                step.apply(now, numbers, generator)
            optimise()
            assert not after, f"after the numbers were read: {after}"
    assert numbers.loss > 0 and numbers.quiet_ratio is not None


def test_a_wait_would_be_seen():
    x = torch.randn(4)
    for waiting in (lambda: float(x.sum()), lambda: x[x > 0], lambda: x.nonzero(), lambda: x.sum().item(), lambda: x.cpu(), lambda: x.tolist(), lambda: bool(x.any())):
        with waits() as counts:
            waiting()
        assert counts


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_cuda_sees_one_wait_a_step(tmp_path):
    backend = open_backend("demo", torch.device("cuda"))
    step, plan, generator, attachment = begun(tmp_path, backend, gradient_accumulation=2, revive_after=0)
    with attachment:
        for number in range(3):  # the first may set up what the libraries need
            now = plan(number)
            torch.cuda.set_sync_debug_mode("error" if number else "default")
            try:
                step.gradients(now)
                torch.cuda.set_sync_debug_mode("default")
                numbers = step.exchanged(now)
                torch.cuda.set_sync_debug_mode("error" if number else "default")
                step.apply(now, numbers, generator)
            finally:
                torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_several_processes_exchange_three_times_a_step_at_most(tmp_path, backend, accumulation):
    processes = Counted(backend.device)
    step, plan, generator, attachment = begun(tmp_path, backend, processes, batch_size=8, gradient_accumulation=accumulation, nested=0.5)
    with attachment:
        for number in range(4):
            before, now = processes.exchanges, plan(number)
            step.gradients(now)
            numbers = step.exchanged(now, stop=number == 2)
            step.apply(now, numbers, generator)
            assert 2 <= processes.exchanges - before <= 3 and numbers.stop == (number == 2)


def test_processes_that_do_the_same_step_as_one_alone(tmp_path, backend, monkeypatch):
    """Two that see the same rows have the gradients and numbers of one, and its thresholds but for the place between two values."""
    own_row = TrainingStep._own_row

    def both_rows(self, like):
        rows = own_row(self, like)
        return (rows + rows.roll(1, 0)) / 2

    monkeypatch.setattr(TrainingStep, "_own_row", both_rows)
    found = []
    for processes in (Processes(backend.device), Counted(backend.device)):
        torch.manual_seed(0)
        step, plan, generator, attachment = begun(tmp_path, backend, processes, batch_size=4, nested=0.0, revive_after=0)
        step.processes.world = 1  # the same rows
        with attachment:
            for number in range(3):
                now = plan(number)
                step.gradients(now)
                step.processes.world = 2 if isinstance(processes, Counted) else 1
                numbers = step.exchanged(now)
                step.apply(now, numbers, generator)
                step.processes.world = 1
        found.append((numbers, [value.clone() for value in step.adapter.state_dict().values()]))
    (alone, tensors), (together, others) = found
    assert (together.loss, together.gradient_norm, together.quiet_ratio) == pytest.approx((alone.loss, alone.gradient_norm, alone.quiet_ratio), rel=1e-3)
    assert all(torch.allclose(a.float(), b.float(), rtol=1e-2, atol=1e-3) for a, b in zip(tensors, others, strict=True))


# -- the quiet term's energies


@pytest.mark.parametrize("factored", [True, False])
@pytest.mark.parametrize("tokens", [(), (7,), (3, 5)])
def test_energies_are_those_of_the_update_and_so_are_their_gradients(factored, tokens):
    generator = torch.Generator().manual_seed(0)
    c = torch.randn(2, *tokens, 6, generator=generator).relu().double().requires_grad_()
    weight = torch.randn(6, 3 if factored else 10, generator=generator).double().requires_grad_()
    basis = torch.randn(3, 10, generator=generator).double().requires_grad_() if factored else None
    leaves = [leaf for leaf in (c, weight, basis) if leaf is not None]
    wanted = decode(c, weight, basis).square().flatten(1).mean(1)
    found = row_energies(c, weight, basis)
    assert torch.allclose(found.double(), wanted, rtol=1e-5)
    for a, b in zip(torch.autograd.grad(found.sum(), leaves), torch.autograd.grad(wanted.sum(), leaves), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def test_energies_under_autocast_are_in_fp32():
    c, weight, basis = torch.rand(2, 5, 6), torch.randn(6, 3), torch.randn(3, 10)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(row_energies(c, weight, basis), row_energies(c, weight, basis))
        inside = row_energies(c, weight, basis)
    assert torch.equal(inside, row_energies(c, weight, basis)) and inside.dtype == torch.float32


def kept_bytes(call) -> int:
    """Bytes of the tensors that a call keeps for its backward, each storage once."""
    seen = {}

    def pack(tensor):
        seen[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = call()
    assert result.requires_grad
    return sum(seen.values())


@pytest.mark.parametrize(("name", "sites"), [
    ("SDXL at 1024²", [(10, 4096, 640)] * 2 + [(50, 1024, 1280)] * 2 + [(10, 1024, 1280)] * 2),
    ("Flux at 1024²", [(19, 4096, 3072), (19, 512, 3072), (38, 4608, 3072)]),
])  # fmt: skip
def test_a_row_keeps_its_coefficients_and_no_update(name, sites):
    """Shapes of the real models, on tensors that hold nothing: (sites, tokens, width)."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        before, after = kept_by_both(sites)
    print(f"{name}: {before / 1e9:.3f} GB a row before, {after / 1e9:.3f} GB now")
    assert after < 0.05 * before


def kept_by_both(sites):
    before = after = 0
    for count, tokens, width in sites:
        c = torch.empty(1, tokens, 128, dtype=torch.bfloat16)
        weight, basis = (torch.empty(*shape, requires_grad=True) for shape in ((128, 16), (16, width)))
        half = weight.to(torch.bfloat16), basis.to(torch.bfloat16)
        layer = kept_bytes(lambda c=c, half=half: decode(c, *half))
        before += count * (kept_bytes(lambda c=c, half=half: decode(c, *half).float().square().flatten(1).mean(1)) - layer)
        after += count * (kept_bytes(lambda c=c, weight=weight, basis=basis: row_energies(c, weight, basis)) - kept_bytes(lambda c=c, half=half: c @ half[0]))
    return before, after
