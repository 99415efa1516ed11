"""The loop's parts, each by itself: the quiet term on a split batch, dead atoms, weights, views of a picture, quiet prompts; and what is refused early."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from few_probes import probe_few_rows
from safetensors.torch import load_file, save_file
from small_base import small_base
from tiny_pipelines import save_tiny

sys.path.insert(0, str(Path(__file__).parent))
import small_run
from small_run import run, zorp_data

from sparsedict.sparsedict_core.errors import TrainingError
from sparsedict.trainer import Callbacks, ConceptData, TrainConfig, train
from sparsedict.trainer.backends import open_backend
from sparsedict.trainer.batches import concept_rows, draw_batch
from sparsedict.trainer.data import make_buckets, random_part
from sparsedict.trainer.distribution import Processes
from sparsedict.trainer.forward import recomputed_blocks
from sparsedict.trainer.losses import QuietTerm, min_snr_weights, quiet_term
from sparsedict.trainer.quiet import bucket_counts, load_or_make, quiet_prompts
from sparsedict.trainer.revival import DeadAtoms
from sparsedict.trainer.training_sets import buckets_for, build_sets

# -- the quiet term


def energies(updates: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    return [update.square().flatten(1).mean(1) for update in updates.values()]


def updates(rows: int, sites: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows)
    return {f"site {i}": torch.randn(rows, 5, 4, generator=generator) * (i + 1) for i in range(sites)}


def test_the_quiet_term_of_a_whole_batch():
    whole, quiet = updates(8), torch.arange(8) >= 6
    expected = sum(float(u[6:].square().mean() / u[:6].square().mean()) for u in whole.values()) / 3
    assert float(quiet_term(whole, quiet)) == pytest.approx(expected, rel=1e-5)


def test_processes_with_unequal_numbers_of_quiet_rows_have_the_whole_batchs_term():
    whole, quiet = updates(8), torch.arange(8) >= 5
    parts = [slice(0, None, 2), slice(1, None, 2)]  # one quiet row in the first, two in the second
    sums = []

    def note(value):
        sums.append(value)
        return value

    for rows in parts:
        QuietTerm(3, 5, 2, note)(energies({k: u[rows] for k, u in whole.items()}), quiet[rows])
    values = [QuietTerm(3, 5, 2, lambda value: (sums[0] + sums[1]) / 2)(energies({k: u[rows] for k, u in whole.items()}), quiet[rows]) for rows in parts]
    assert float(sum(values) / 2) == pytest.approx(float(quiet_term(whole, quiet)), rel=1e-5)


def test_micro_batches_without_a_quiet_row_do_not_weaken_the_term():
    one = updates(1)
    whole, quiet = {k: u.expand(4, -1, -1) for k, u in one.items()}, torch.tensor([False, False, False, True])
    term = QuietTerm(1, 3, 4)
    values = [float(term(energies({k: u[i : i + 1] for k, u in whole.items()}), quiet[i : i + 1])) for i in range(4)]
    assert values[:3] == [0, 0, 0] and sum(values) / 4 == pytest.approx(float(quiet_term(whole, quiet)), rel=1e-5)


def test_micro_batches_of_several_processes_have_the_terms_of_one_process():
    """Two processes with two micro-batches each, and one with two that are twice as large: micro-batch by micro-batch."""
    whole, quiet = updates(8), torch.arange(8) >= 5

    def terms(rows, parts, mean=None):
        term = QuietTerm(3, 5, parts, mean, 2)
        return [float(term(energies({k: u[chosen] for k, u in whole.items()}), quiet[chosen])) for chosen in rows]

    alone = terms([slice(micro, None, 2) for micro in (0, 1)], 2)
    rows = [[slice(2 * process + micro, None, 4) for micro in (0, 1)] for process in (0, 1)]
    sent = [[], []]
    for process in (0, 1):
        terms(rows[process], 4, lambda value, process=process: sent[process].append(value) or value)
    found = []
    for process in (0, 1):
        answers = iter([(one + other) / 2 for one, other in zip(*sent, strict=True)])
        found.append(terms(rows[process], 4, lambda value, answers=answers: next(answers)))
    assert [len(values) for values in sent] == [2, 2], "an exchange at the first and at the last micro-batch"
    assert [sum(pair) / 2 for pair in zip(*found, strict=True)] == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize(
    ("rows", "accumulation", "processes", "most"), [(16, 1, 4, 0.0), (16, 16, 1, 0.0), (4, 4, 1, 0.0), (16, 2, 1, 0.02), (16, 4, 1, 0.04), (16, 4, 2, 0.06), (16, 4, 4, 0.08)]
)
def test_the_term_of_a_step_in_parts_is_near_the_whole_batchs(rows, accumulation, processes, most):
    """A part's denominators are of the rows that were seen so far; over many sites the term may only come out a little larger for it."""
    quiet = torch.arange(rows) >= rows - rows // 4
    values = torch.exp(0.63 * torch.randn(2000, rows, generator=torch.Generator().manual_seed(0))) * torch.where(quiet, 0.3, 1.0)  # vary by 70 %
    parts = accumulation * processes

    def term(process, mean):
        of_step = QuietTerm(rows // 4, rows - rows // 4, parts, mean if processes > 1 else None, accumulation)
        chosen = [slice(process * accumulation + micro, None, parts) for micro in range(accumulation)]
        return [float(of_step(list(values[:, part]), quiet[part])) for part in chosen]

    sent = [[] for _ in range(processes)]
    for process in range(processes):
        term(process, lambda value, process=process: sent[process].append(value) or value)
    answers = [sum(each) / processes for each in zip(*sent, strict=True)]
    found = []
    for process in range(processes):
        left = iter(answers)
        found += term(process, lambda value, left=left: next(left))
    whole = float(QuietTerm(rows // 4, rows - rows // 4)(list(values), quiet))
    assert -1e-5 < sum(found) / parts / whole - 1 < most + 0.005


def loud_updates(factor: float) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Site 0 answers the quiet rows `factor` times as loudly as the others; leaves, to take gradients of."""
    whole, quiet = updates(8), torch.arange(8) >= 5
    first = whole["site 0"]
    first[5:] *= (factor * first[:5].square().mean() / first[5:].square().mean()).sqrt()
    return {k: u.requires_grad_() for k, u in whole.items()}, quiet


@pytest.mark.parametrize(("factor", "pulled"), [(0.5, True), (2.0, True), (4.0, False), (1e6, False)])
def test_a_site_that_is_loudest_on_quiet_rows_is_turned_but_not_put_out(factor, pulled):
    whole, quiet = loud_updates(factor)
    term = quiet_term(whole, quiet)
    term.backward()
    pull = whole["site 0"].grad * whole["site 0"].detach()
    # Along its own direction a site can only shrink: no pull there, however loud it is.
    assert (float(pull.sum()) > 0.01) == pulled
    assert float(pull[5:].sum()) > 0 and float(pull[:5].sum()) <= 0
    assert float(pull.abs().sum()) < 5 and term.item() > factor / 3


def test_parts_of_a_batch_pull_a_loud_site_as_the_whole_batch_does():
    whole, quiet = loud_updates(5.0)
    quiet_term(whole, quiet).backward()
    wanted = {k: u.grad.clone() for k, u in whole.items()}
    parts, sums = [slice(0, None, 2), slice(1, None, 2)], []
    for rows in parts:
        QuietTerm(3, 5, 2, lambda value: sums.append(value) or value)(energies({k: u[rows].detach() for k, u in whole.items()}), quiet[rows])
    for u in whole.values():
        u.grad = None
    for rows in parts:
        (QuietTerm(3, 5, 2, lambda value: (sums[0] + sums[1]) / 2)(energies({k: u[rows] for k, u in whole.items()}), quiet[rows]) / 2).backward()
    assert all(torch.allclose(u.grad, wanted[k], rtol=1e-4, atol=1e-7) for k, u in whole.items())


@pytest.mark.parametrize(("batch_size", "accumulation"), [(4, 4), (1, 1), (6, 3)])
def test_batches_that_split_unevenly_train(tmp_path, backend, batch_size, accumulation):
    result = run(tmp_path, backend, batch_size=batch_size, gradient_accumulation=accumulation, steps=3, quiet_ramp=(0.0, 0.1))
    assert all(torch.isfinite(torch.tensor([entry["loss"], entry["quiet_ratio"]])).all() for entry in result.log)
    assert (result.log[-1]["quiet_ratio"] > 0) == (batch_size > 1)  # a batch of one has no room for a quiet row


# -- dead atoms


def toy_adapter() -> SimpleNamespace:
    generator = torch.Generator().manual_seed(0)
    shapes = {"encoder_weight": (4, 3), "encoder_bias": (4,), "dictionary_weight": (4, 3)}
    site = SimpleNamespace(atoms=4, **{name: torch.nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in shapes.items()})
    return SimpleNamespace(sites={"a": site})


def test_an_atom_that_stays_silent_is_started_anew():
    adapter = toy_adapter()
    site, dead = adapter.sites["a"], DeadAtoms(adapter)
    optimiser = torch.optim.Adam([site.encoder_weight, site.encoder_bias, site.dictionary_weight])
    sum(p.square().sum() for p in optimiser.param_groups[0]["params"]).backward()
    optimiser.step()
    fires = torch.tensor([[1.0, 0.0, 2.0, 0.5]])
    for _ in range(3):
        dead.observe("a", fires)
        assert dead.end_step(None)[0] == 1
    before = site.encoder_weight.detach().clone()
    assert dead.revive(adapter, optimiser, 3, torch.Generator().manual_seed(1)) == 1
    changed = (site.encoder_weight != before).any(1)
    assert changed.tolist() == [False, True, False, False] and site.encoder_bias[1] == 0
    moments = optimiser.state[site.encoder_weight]["exp_avg"]
    assert not moments[1].any() and moments[0].all() and dead.idle["a"].tolist() == [0, 0, 0, 0]


def test_atoms_outside_of_a_prefix_are_not_counted_as_silent():
    dead = DeadAtoms(toy_adapter())
    dead.observe("a", torch.tensor([[1.0, 0.0]]))
    assert dead.end_step({"a": 2})[0] == 1 and dead.idle["a"].tolist() == [0, 1, 0, 0]


def test_an_atom_that_fires_in_another_process_is_alive():
    dead = DeadAtoms(toy_adapter())
    dead.observe("a", torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
    assert dead.end_step(None, dead.fired | torch.tensor([False, True, False, False]))[0] == 2
    assert dead.idle["a"].tolist() == [0, 0, 1, 1]


def test_a_run_revives_dead_atoms(tmp_path, backend, monkeypatch):
    revived = []
    revive = DeadAtoms.revive
    monkeypatch.setattr(DeadAtoms, "revive", lambda *a: revived.append(revive(*a)))
    monkeypatch.setattr(DeadAtoms, "observe", lambda self, key, c: self._seen.add(key))
    sites = run(tmp_path, backend, steps=4, revive_after=2, nested=0.0).adapter.sites
    assert revived == [24 * len(sites)]  # not in the last 30 % of the steps, where they could learn nothing any more


# -- weights


def test_min_snr_weights():
    snr = torch.tensor([0.5, 5.0, 50.0])
    assert min_snr_weights(snr, 5.0, "epsilon").tolist() == pytest.approx([1.0, 1.0, 0.1])
    assert min_snr_weights(snr, 5.0, "v").tolist() == pytest.approx([0.5 / 1.5, 5 / 6, 5 / 51])
    assert min_snr_weights(snr, 5.0, "flow").tolist() == [1, 1, 1] == min_snr_weights(snr, None, "epsilon").tolist()


# -- data


def test_views_of_a_picture_are_rows_with_its_caption(backend):
    data = zorp_data()
    bucket = make_buckets(data, backend.default_size, backend.size_multiple)[0]
    plain, more = concept_rows(backend, data, bucket), concept_rows(backend, data, bucket, flip=True, crops=2, seed=1)
    assert len(more.latents) == 6 * len(plain.latents) and [row[0] for row in more.captions] == [i for i in range(3) for _ in range(6)]
    assert torch.equal(more.latents[0], plain.latents[0]) and torch.equal(more.latents, concept_rows(backend, data, bucket, True, 2, 1).latents)
    mirrored = backend.encode_images(data[0].image.flip(-1)[None])[0]
    assert torch.allclose(more.latents[3], mirrored, atol=1e-5)


def test_a_random_part_keeps_the_shape_of_the_picture():
    part = random_part(torch.zeros(3, 80, 40), torch.Generator().manual_seed(0))
    assert part.shape[1] / part.shape[2] == pytest.approx(2, rel=0.05) and 60 <= part.shape[1] <= 80


def test_quiet_samples_are_shared_out_to_the_buckets(tmp_path):
    assert bucket_counts(96, [5]) == [96] and bucket_counts(96, [9, 3, 1]) == [66, 22, 16] and bucket_counts(4, [1, 1]) == [4, 4]
    backend = open_backend(save_tiny("sd3", tmp_path / "base"))
    data = ConceptData.from_tensors([torch.zeros(3, 32, 32), torch.zeros(3, 24, 40), torch.zeros(3, 32, 32)], "a zorp")
    config = small_run.settings(tmp_path, quiet_samples=20, resolution=32)
    sets, quiet = build_sets(config, backend, data, Processes(backend.device), Callbacks())
    assert [len(q.latents) for q in quiet] == [16, 16] and quiet[0].captions != quiet[1].captions
    sizes = {tuple(draw_batch(config, backend, sets, torch.Generator().manual_seed(seed)).latents.shape[-2:]) for seed in range(12)}
    assert len(sizes) == 2  # batches of both buckets, each with quiet rows of its own size
    train(small_run.settings(tmp_path, quiet_samples=20, resolution=32, steps=4), backend, data, Callbacks())


def test_a_base_of_one_size_gets_every_picture_at_that_size(tmp_path, backend):
    data = ConceptData.from_tensors([torch.zeros(3, 64, 64), torch.zeros(3, 48, 80)], "a zorp")
    assert [bucket.indices for bucket in buckets_for(backend, data, backend.default_size)] == [[0, 1]]
    with pytest.raises(TrainingError, match="96×96 only"):
        train(small_run.settings(tmp_path, resolution=128), backend, data, Callbacks())


class Share(Processes):
    """One of several processes; `others` is what they have made."""

    def __init__(self, device, rank, world, others=0):
        super().__init__(device)
        self.rank, self.world, self.others = rank, world, others

    def sum(self, value):
        return value + self.others


def test_quiet_samples_are_made_by_all_processes_together(tmp_path, backend, monkeypatch):
    config = small_run.settings(tmp_path, quiet_samples=20, batch_size=4)
    alone = load_or_make(config, backend, (16, 16), tmp_path / "alone").latents
    asked, sample = [], type(backend).sample
    monkeypatch.setattr(type(backend), "sample", lambda self, captions, *more, **named: asked.append(len(captions)) or sample(self, captions, *more, **named))
    shares = [load_or_make(config, backend, (16, 16), tmp_path / str(rank), processes=Share(backend.device, rank, 3)).latents for rank in range(3)]
    assert sorted(asked) == [4] * 5 and torch.equal(sum(shares), alone)
    # No more than one call of the sampler apart.
    assert sorted(int((share != 0).flatten(1).any(1).sum()) for share in shares) == [4, 8, 8]


def test_quiet_prompts_with_words_that_the_base_never_learned(backend):
    config = TrainConfig(quiet_samples=48, quiet_word_share=1 / 3, placeholder="zorp")
    prompts, plain = quiet_prompts(config, backend), quiet_prompts(TrainConfig(quiet_samples=48), backend)
    changed = [(p, q) for p, q in zip(prompts, plain, strict=True) if p != q]
    assert 12 <= len(changed) <= 16 and "a blick" in prompts and not any("zorp" in p for p in prompts) and plain.count("") == prompts.count("") == 6
    backend.encode_captions(prompts)
    with pytest.raises(TrainingError, match="quiet_words"):
        quiet_prompts(config, SimpleNamespace(quiet_prompts=lambda: ["a cat"]))


# -- what is refused, and said


def test_a_place_that_cannot_be_written_is_refused_before_training(tmp_path, backend, monkeypatch):
    monkeypatch.setattr(type(backend), "predict", lambda *a: pytest.fail("worked for nothing"))
    (tmp_path / "a.safetensors").write_bytes(b"mine")
    with pytest.raises(TrainingError, match="exists"):
        run(tmp_path, backend)
    assert (tmp_path / "a.safetensors").read_bytes() == b"mine"
    with pytest.raises(TrainingError, match="cannot be made"):
        run(tmp_path / "a.safetensors" / "inside", backend)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore"), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9")])
def test_out_of_memory_names_settings_to_lower(tmp_path, backend, monkeypatch, error):
    def full(*args):
        raise error

    monkeypatch.setattr(type(backend), "predict", full)
    with pytest.raises(TrainingError, match=r"out of memory.*gradient_checkpointing.*gradient_accumulation.*resolution"):
        run(tmp_path, backend)
    with pytest.raises(TrainingError, match=r"out of memory.*lower resolution") as told:
        run(tmp_path, backend, gradient_checkpointing=True, precision="bf16", batch_size=2, gradient_accumulation=2)
    assert "gradient_" not in str(told.value) and "\n" not in str(told.value)


def test_other_errors_stay_as_they_are(tmp_path, backend, monkeypatch):
    def broken(*args):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(type(backend), "predict", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        run(tmp_path, backend)


def test_resuming_with_other_images_or_another_base_is_refused(tmp_path, backend, monkeypatch):
    run(tmp_path, backend, steps=2)
    other = ConceptData.from_tensors([item.image * 0.5 for item in zorp_data()], [item.captions for item in zorp_data()])
    with pytest.raises(TrainingError, match="other training images"):
        train(small_run.settings(tmp_path, steps=2, resume=True), backend, other, Callbacks())
    monkeypatch.setattr(type(backend), "fingerprint", lambda self: "another")
    with pytest.raises(TrainingError, match="other base weights"):
        run(tmp_path, backend, steps=2, resume=True)


def test_recomputing_is_switched_off_again_even_after_an_error(backend):
    with pytest.raises(ZeroDivisionError), recomputed_blocks(backend, True):
        assert backend.denoiser.is_gradient_checkpointing
        raise ZeroDivisionError
    assert not backend.denoiser.is_gradient_checkpointing


# -- several processes


TO_THE_END = {"steps": 3, "batch_size": 8, "gradient_accumulation": 2, "quiet_ramp": (0.0, 0.1)}
STOPPED = {"steps": 8, "batch_size": 8, "quiet_share": 0.375, "revive_after": 2, "nested": 0.0, "encoder_settings": {"momentum": 0.0}}


class WishesToStop(Callbacks):
    """After step `last`, and only in one process."""

    def __init__(self, last, wishes=True):
        self.done, self.last, self.wishes = 0, last, wishes

    def on_step(self, report):
        self.done = report.step

    def should_stop(self):
        return self.wishes and self.done == self.last


def in_one_of_two(folder):
    """What each process of `two_processes` does."""
    probe_few_rows()
    rank = os.environ["RANK"]
    backend = small_base()
    run(folder / "end", backend, **TO_THE_END)
    # Among several, the wish is asked for before a step's exchange and heeded after it.
    result = run(folder / "stopped", backend, WishesToStop(4, rank == "1"), **STOPPED)
    # Files, as the prints of two processes run into each other.
    (folder / f"rank{rank}.txt").write_text(f"process {rank} of {os.environ['WORLD_SIZE']}, {result.steps} steps")
    save_file({k: v.contiguous().clone() for k, v in result.adapter.state_dict().items()}, str(folder / f"rank{rank}.safetensors"))


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """The folder in which two processes have trained together, once to the end and once until one of them wished to stop."""
    folder = tmp_path_factory.mktemp("two")
    program = folder / "program.py"
    tests = Path(__file__).parents[1]
    program.write_text(
        f"import sys; sys.path[:0] = [{str(tests)!r}, {str(tests / 'trainer')!r}]\n"
        "import pathlib, test_parts\n"
        f"test_parts.in_one_of_two(pathlib.Path({str(folder)!r}))\n"
    )
    # `--cpu` would start one process only (accelerate wants mpirun for more); without a GPU, --multi_gpu's processes are on the CPU.
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no",
              "--dynamo_backend", "no", "--main_process_port", "0", str(program)]  # fmt: skip
    done = subprocess.run(launch, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def test_two_processes_train_to_the_same_as_one(tmp_path, backend, two_processes):
    one, two = load_file(str(run(tmp_path, backend, **TO_THE_END).path)), load_file(str(two_processes / "end" / "a.safetensors"))
    assert one.keys() == two.keys()
    for key, value in one.items():
        assert torch.allclose(value.float(), two[key].float(), rtol=5e-3, atol=5e-3), key


def test_two_processes_stop_together_and_revive_the_same_atoms(tmp_path, backend, two_processes):
    """Only the second process wants to stop; parts hold unequal numbers of quiet rows; atoms die and are revived on the way."""
    assert sorted(path.read_text() for path in two_processes.glob("rank*.txt")) == [f"process {rank} of 2, 5 steps" for rank in (0, 1)]
    result = run(tmp_path, backend, WishesToStop(5), **STOPPED)
    assert result.steps == 5
    ranks = [load_file(str(two_processes / f"rank{rank}.safetensors")) for rank in (0, 1)]
    alone = result.adapter.state_dict()
    for key, value in ranks[0].items():
        if "importance" not in key and "moments" not in key:
            assert torch.equal(value, ranks[1][key]), key
            assert torch.allclose(value, alone[key], rtol=5e-3, atol=5e-3), key
