"""What a step learns from: the quiet term, whole and in parts, and the weights of noise levels."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from small_run import run

from sparsedict.trainer.losses import QuietTerm, min_snr_weights, quiet_term


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


def test_min_snr_weights():
    snr = torch.tensor([0.5, 5.0, 50.0])
    assert min_snr_weights(snr, 5.0, "epsilon").tolist() == pytest.approx([1.0, 1.0, 0.1])
    assert min_snr_weights(snr, 5.0, "v").tolist() == pytest.approx([0.5 / 1.5, 5 / 6, 5 / 51])
    assert min_snr_weights(snr, 5.0, "flow").tolist() == [1, 1, 1] == min_snr_weights(snr, None, "epsilon").tolist()
