"""What training needs: records, thresholds that move in commit only, prefixes, checkpointed blocks."""

from __future__ import annotations

import pytest
import torch
from core.tiny_adapters import make_adapter
from torch.utils.checkpoint import checkpoint

from sparsedict.sparsedict_core.errors import TrainingError
from sparsedict.sparsedict_core.training_state import TrainingSession


def thresholds(adapter):
    return [site.threshold.item() for site in adapter.sites.values()]


def test_record_and_commit(model, x):
    adapter = make_adapter(model)
    with adapter.attach(model) as attachment:
        plain = model(x)
        session = TrainingSession(attachment, energies=True)
        session.begin(density=0.2)
        updates = {}
        with attachment.tap(lambda key, site, x, c, update, output: updates.update({key: update.detach()})):
            assert torch.allclose(model(x), plain, atol=1e-6)
        record = session.end_forward()
        assert list(record.energies) == list(adapter.sites)
        assert all(torch.allclose(record.energies[key], update.square().flatten(1).mean(1), rtol=1e-4) for key, update in updates.items())
        sum(energy.sum() for energy in record.energies.values()).backward()
        assert all(p.grad is not None for p in adapter.parameters())
        for key, site in adapter.sites.items():
            assert 0 < record.density[key].item() < 1 and not record.density[key].requires_grad
            assert record.subsamples[key].shape[0] == 3
            assert site.threshold.item() == pytest.approx(0.4)
        observed = session.observed_thresholds()
        session.commit()
        for key, site in adapter.sites.items():
            assert site.threshold.item() == pytest.approx(0.9 * 0.4 + 0.1 * observed[key].item(), rel=1e-5)
        session.close()
        assert attachment.session is None


def test_thresholds_reach_the_density(model, x):
    adapter = make_adapter(model)
    with torch.no_grad(), adapter.attach(model) as attachment:
        session = TrainingSession(attachment)
        for _ in range(60):
            session.begin(density=0.1)
            model(x)
            record = session.end_forward()
            session.commit()
    assert all(0.01 < d.item() < 0.12 for d in record.density.values())


def test_thresholds_do_not_depend_on_micro_batches(model, x):
    one, two = make_adapter(model), make_adapter(model)
    for adapter, parts in ((one, [x]), (two, [x[:1], x[1:]])):
        with torch.no_grad(), adapter.attach(model) as attachment:
            session = TrainingSession(attachment)
            for part in parts:
                session.begin(0.1, rows=len(x))
                model(part)
                session.end_forward()
            session.commit()
    assert thresholds(one) == pytest.approx(thresholds(two), rel=1e-6)


def test_gathered_thresholds_go_before_own_ones(model, x):
    adapter = make_adapter(model)
    key = next(iter(adapter.sites))
    with torch.no_grad(), adapter.attach(model) as attachment:
        session = TrainingSession(attachment)
        session.begin(0.1)
        model(x)
        session.end_forward()
        assert session.pending_subsamples()[key].ndim == 1
        session.commit({key: torch.tensor(1.4)})
    assert thresholds(adapter) == pytest.approx([0.5, 0.4, 0.4])


def test_prefix_runs_the_first_atoms_and_lasts_until_commit(model, x):
    adapter = make_adapter(model)
    key = next(iter(adapter.sites))
    with adapter.attach(model) as attachment:
        full = model(x)
        attachment.set_gains({key: (torch.arange(24) < 5).float()})
        masked = model(x)
        attachment.set_gains(None)
        session = TrainingSession(attachment, energies=True)
        session.begin(0.1, {key: 5})
        assert torch.allclose(model(x), masked, atol=1e-5)
        record = session.end_forward()
        assert key not in record.subsamples and len(record.subsamples) == 2
        assert torch.allclose(model(x), masked, atol=1e-5)
        record.energies[key].sum().backward()
        assert not adapter.sites[key].dictionary_weight.grad[5:].any()
        session.commit()
        assert not torch.equal(model(x), masked)
        session.reset()
        assert full.shape == masked.shape


def test_a_checkpointed_block_recomputes_the_same_and_records_once(model, x):
    gradients = []
    for use_checkpoint in (False, True):
        adapter = make_adapter(model)
        calls = []
        with adapter.attach(model) as attachment, attachment.tap(lambda *args, calls=calls: calls.append(args[0])):
            session = TrainingSession(attachment, energies=True)
            session.begin(0.1, {next(iter(adapter.sites)): 7})
            y = checkpoint(model, x.clone().requires_grad_(), use_reentrant=False) if use_checkpoint else model(x)
            record = session.end_forward()
            recorded = dict(record.energies)
            (y.square().mean() + sum(energy.sum() for energy in record.energies.values())).backward()
            assert record.energies == recorded and len(session._pending[list(adapter.sites)[1]]) == 1
            session.commit()
        assert len(calls) > 3 if use_checkpoint else len(calls) == 3
        gradients.append([p.grad for p in adapter.parameters()] + [torch.tensor(thresholds(adapter))])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_steps_out_of_order_are_refused(model):
    adapter = make_adapter(model)
    with adapter.attach(model) as attachment:
        session = TrainingSession(attachment)
        with pytest.raises(TrainingError, match="begin"):
            session.end_forward()
        with pytest.raises(TrainingError, match="density"):
            session.begin(0)
        with pytest.raises(TrainingError, match="no site"):
            session.begin(0.1, {"nope": 1})
        with pytest.raises(TrainingError, match="1 atom"):
            session.begin(0.1, {next(iter(adapter.sites)): 0})
        session.begin(0.1)
        with pytest.raises(TrainingError, match="middle"):
            session.commit()
