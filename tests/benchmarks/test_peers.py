"""The peers are what they say: as large as ours, the base at first, gone without a trace, and what they add is what the quiet term sees."""

import pytest
import torch

from sparsedict.evaluation.peers import LABELS, attached_peer, size_for, targets, watch_updates
from sparsedict.trainer.backends.demo import DemoBackend

PARAMETERS = 86_912


@pytest.fixture(scope="module")
def backend():
    return DemoBackend.load()


def predict(backend):
    noise = torch.randn(1, 16, 16, 16, generator=torch.Generator().manual_seed(1))
    return backend.predict(noise, torch.tensor([0.5]), backend.encode_captions(["a zorp"]))


@pytest.mark.parametrize("method", LABELS)
@torch.no_grad()
def test_a_peer_starts_as_the_base_and_leaves_it(backend, method):
    before = {name: value.clone() for name, value in backend.denoiser.state_dict().items()}
    base, added = predict(backend), {}
    with attached_peer(backend, method, size_for(method, PARAMETERS, backend)) as named:
        count = sum(p.numel() for _, p in named)
        # OFT and LoKr have no size that is nearer.
        assert method == "full" or abs(count - PARAMETERS) < (0.35 if method in ("oft", "lokr") else 0.15) * PARAMETERS
        assert torch.allclose(predict(backend), base, atol=1e-5)
        handles = watch_updates(backend, added)
        for _, parameter in named:
            parameter.add_(0.02 * torch.randn_like(parameter))
        assert not torch.allclose(predict(backend), base, atol=1e-3)
        assert len(added) == 7 and all(float(update.abs().mean()) > 1e-6 for update in added.values())
        for handle in handles:
            handle.remove()
    after = backend.denoiser.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], value) for name, value in before.items())
    assert torch.equal(predict(backend), base)


@torch.no_grad()
def test_vera_through_its_weight_is_what_peft_computes(backend):
    with attached_peer(backend, "vera", 64) as named:
        for _, parameter in named:
            parameter.copy_(torch.randn_like(parameter))
        layer = backend.denoiser.get_submodule(targets(backend)[0])
        x = torch.randn(2, 3, layer.in_features)
        assert torch.allclose(layer(x), type(layer).forward(layer, x), atol=1e-4)
        assert not torch.allclose(layer(x), layer.base_layer(x), atol=1e-2)
