"""A healed merge: the same atoms, nearer to what each member does alone, silent where nobody is asked for."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from small_run import run

from sparsedict.sparsedict_core import compose
from sparsedict.sparsedict_core.errors import TrainingError
from sparsedict.trainer import Callbacks
from sparsedict.trainer.merge import Part, held_back, merge

FEW = {"pictures": 6, "quiet_samples": 8}


@pytest.fixture(scope="module")
def backend(demo):
    """What is learned is asked here."""
    return demo


@pytest.fixture(scope="module")
def members(backend, tmp_path_factory):
    """Two adapters of one drawing under two words."""
    found = []
    for seed, word in enumerate(("zorp", "quax")):
        adapter = run(tmp_path_factory.mktemp(word), backend, steps=25, seed=seed, learning_rate=2e-2, quiet_weight=0.0).adapter
        adapter.metadata["training"]["captions"] = [f"a {word} in the center on a night background"]
        adapter.metadata["trigger_words"] = [word]
        found.append(Part(word, adapter))
    return found


@torch.no_grad()
def change(backend, adapter, caption, other=None):
    """Squared distance between two adapters' predictions (None: the base)."""
    noise = torch.randn(4, 16, 16, 16, generator=torch.Generator().manual_seed(7))
    levels, told = torch.linspace(0.3, 0.9, 4), backend.encode_captions([caption] * 4)

    def predicted(one):
        if one is None:
            return backend.predict(noise, levels, told)
        with one.attach(backend.denoiser, component="transformer"):
            return backend.predict(noise, levels, told)

    return float((predicted(adapter) - predicted(other)).square().mean())


def test_each_member_keeps_to_its_own_word(backend, members):
    plain = compose([(part.name, part.adapter, part.strength) for part in members])
    merged = merge(members, backend, 25, Callbacks(), **FEW)
    assert [m.name for m in merged.members] == ["zorp", "quax"] and merged.metadata["lineage"][-1]["operation"] == "heal"
    assert {k: s.atom_ids.tolist() for k, s in merged.sites.items()} == {k: s.atom_ids.tolist() for k, s in plain.sites.items()}
    captions = {part.name: f"a {part.name} in the center on a night background" for part in members}
    before, after = ([change(backend, one, captions[part.name], part.adapter) for part in members] for one in (plain, merged))
    # The one that suffers most is mended most; one that the other hardly touched may give a little.
    assert max(after) < 0.7 * max(before) and sum(after) < 0.8 * sum(before)
    other = "a flat fox in the center on a night background"
    assert change(backend, merged, other) < change(backend, plain, other)
    assert not any(module._forward_hooks for module in backend.denoiser.modules())


def test_without_healing_it_is_the_composition(backend, members):
    plain, merged = compose([(p.name, p.adapter, 1.0) for p in members]), merge(members, backend, 0, Callbacks())
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), merged.state_dict().values(), strict=True))


def test_a_member_without_words_is_named_in_the_error(backend, members):
    nameless = members[0].adapter.__class__.create(backend.denoiser, [s.name for s in members[0].adapter.sites.values()], component="transformer")
    with pytest.raises(TrainingError, match="trigger word"):
        merge([members[0], Part("nameless", nameless)], backend, 2, Callbacks(), **FEW)


def test_the_second_is_held_back_where_the_first_is_at_work():
    first = torch.zeros(1, 2, 4, 4)
    first[..., :2] = 5.0
    second = held_back(first, torch.ones(1, 2, 4, 4))
    assert float(second[..., 2:].min()) == 1.0 and float(second[..., :2].max()) < 0.5
