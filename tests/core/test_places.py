"""Sites that are slices of a module, share a module, or are convolutions: the identities hold for every kind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparsedict.sparsedict_core.adapter import SparseAdapter
from sparsedict.sparsedict_core.addresses import resolve
from sparsedict.sparsedict_core.compose import compose
from sparsedict.sparsedict_core.config import AdapterConfig
from sparsedict.sparsedict_core.errors import FileFormatError, SiteError
from sparsedict.sparsedict_core.file_format import load, save
from sparsedict.sparsedict_core.fingerprint import fingerprint
from sparsedict.sparsedict_core.input_statistics import InputStatistics
from sparsedict.sparsedict_core.places import find_places
from sparsedict.sparsedict_core.prune import prune
from sparsedict.sparsedict_core.selection import Selection, select
from sparsedict.sparsedict_core.site import Place, SiteName
from sparsedict.sparsedict_core.training_state import TrainingSession

WIDTH = 12


class Separate(nn.Module):
    """q, k and v as three Linears, an output, a convolution: what canonical names are made for."""

    def __init__(self) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(WIDTH, n) for n in (6, 6, 10))
        self.to_out = nn.Linear(10, WIDTH)
        self.conv = nn.Conv2d(WIDTH, 8, 3, stride=2, padding=1)

    def qkv(self, x):
        return self.to_q(x), self.to_k(x), self.to_v(x)

    def forward(self, x):
        q, k, v = self.qkv(x)
        x = x + self.to_out(torch.softmax(q @ k.mT, -1) @ v)
        return self.conv(x.mT.unflatten(-1, (4, 5)))


class Fused(Separate):
    """The same weights, q, k and v in one Linear: what a host has."""

    def __init__(self, twin: Separate) -> None:
        super().__init__()
        self.load_state_dict(twin.state_dict())
        self.fused = nn.Linear(WIDTH, 22)
        self.fused.weight.data = torch.cat([twin.to_q.weight, twin.to_k.weight, twin.to_v.weight]).detach()
        self.fused.bias.data = torch.cat([twin.to_q.bias, twin.to_k.bias, twin.to_v.bias]).detach()

    def qkv(self, x):
        return self.fused(x).split((6, 6, 10), -1)

    def resolve(self, path):
        rows = {"m.to_q": (0, 6), "m.to_k": (6, 12), "m.to_v": (12, 22)}
        return Place(self.fused, rows[path]) if path in rows else self.get_submodule(path.removeprefix("m."))


NAMES = [SiteName("m.to_out", 0), *(SiteName(f"m.to_{s}", 0, s) for s in "qkv"), SiteName("m.conv", 1, "conv")]
FUSED = [SiteName("m.fused", 0, stream, rows) for stream, rows in (("v", (12, 22)), ("q", (0, 6)))]


@pytest.fixture
def separate():
    torch.manual_seed(0)
    return Separate().requires_grad_(False)


@pytest.fixture
def fused(separate):
    return Fused(separate).requires_grad_(False)


@pytest.fixture
def x():
    return torch.randn(2, 20, WIDTH, generator=torch.Generator().manual_seed(1))


def trained(model, names, seed=0, **config):
    made = SparseAdapter.create(model, names, AdapterConfig(**{"atoms": 9, "rank": 3, **config}), "m", seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for site in made.sites.values():
        target = site.dictionary_weight if site.dictionary_basis is None else site.dictionary_basis
        target.data = torch.randn(target.shape, generator=generator) * 0.3
        site.threshold.fill_(0.1)
        site.importance.copy_(torch.rand(9, generator=generator))
    return made.requires_grad_(False)


def fused_attach(adapter, model, strength=1.0):
    return adapter.attach(model, strength, resolve=model.resolve)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("rank", [3, None])
def test_fused_is_separate(separate, fused, x, grad, rank):
    """Bit for bit: q, k and v of one adapter on one Linear or on three, which give the same without it."""
    adapter = trained(separate, NAMES, rank=rank).requires_grad_(grad)
    apart = [separate.to_q, separate.to_k, separate.to_v]
    for linear in (*apart, fused.fused):  # products of other shapes may round otherwise, so that not even the bases were equal
        linear.weight.zero_()
    with torch.set_grad_enabled(grad):
        for strength in (1.0, 0.7, 0.0):
            with adapter.attach(separate, strength), fused_attach(adapter, fused, strength):
                assert torch.equal(torch.cat([linear(x) for linear in apart], -1), fused.fused(x))
                assert torch.equal(separate(x), fused(x))
        assert torch.equal(torch.cat([linear(x) for linear in apart], -1), fused.fused(x))


@pytest.mark.parametrize("kind", ["separate", "fused under canonical names", "slices as such"])
@pytest.mark.parametrize("grad", [False, True])
def test_identities(separate, fused, x, kind, grad, tmp_path):
    model, names = (separate, NAMES) if kind == "separate" else (fused, NAMES if kind.startswith("fused") else [*FUSED, NAMES[4]])
    adapter = trained(separate if kind.startswith("fused") else model, names).requires_grad_(grad)

    def attach(which, strength=1.0):
        return fused_attach(which, model, strength) if kind.startswith("fused") else which.attach(model, strength)

    with torch.set_grad_enabled(grad):
        base = model(x)
        with attach(adapter, 0.0):
            assert torch.equal(model(x), base)
        with attach(adapter) as attachment:
            full = model(x)
            assert not torch.equal(full, base)
            attachment.set_gains({key: torch.ones(9) for key in adapter.sites})
            assert torch.equal(model(x), full)
            attachment.set_gains({key: torch.zeros(9) for key in adapter.sites})
            assert torch.equal(model(x), base)
            gains = {key: (torch.arange(9) < 4).float() for key in adapter.sites}
            attachment.set_gains(gains)
            masked = model(x)
            attachment.set_gains(None)
            with attachment.tap(lambda *args: None):
                assert torch.allclose(model(x), full, atol=1e-5)
            attachment.capturable = True
            assert torch.allclose(model(x), full, atol=1e-5)
        assert torch.equal(model(x), base)
        kept = prune(adapter, select(adapter, Selection(atoms="L0-L1")))
        with attach(kept):
            assert torch.equal(model(x), full)
        text = ",".join(f"{label}[0-3]" for label in (("L0.out", "L0.q", "L0.k", "L0.v", "L1") if len(names) == 5 else ("L0.q", "L0.v", "L1")))
        with attach(prune(adapter, select(adapter, Selection(atoms=text)))):
            assert torch.allclose(model(x), masked, atol=1e-6)
        save(adapter, tmp_path / "a.safetensors", torch.float32, moments=False)
        loaded = load(tmp_path / "a.safetensors")
        assert [site.name for site in loaded.sites.values()] == names
        one, two = trained(separate if kind.startswith("fused") else model, names, 3), adapter
        with attach(one, 0.5), attach(two):
            after = model(x)
        with attach(compose([("one", one, 0.5), ("two", two, 1.0)])):
            assert torch.allclose(model(x), after, atol=1e-6)


def test_save_and_load_give_the_same_bits(fused, x, tmp_path):
    adapter = trained(fused, [*FUSED, NAMES[4]])
    save(adapter, tmp_path / "a.safetensors", torch.float32)
    loaded = load(tmp_path / "a.safetensors")
    assert list(loaded.sites) == ["m.fused[12:22]", "m.fused[0:6]", "m.conv"]
    save(loaded, tmp_path / "b.safetensors", torch.float32)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    with load(tmp_path / "b.safetensors").attach(fused):
        wanted = fused(x)
    with loaded.attach(fused):
        assert torch.equal(fused(x), wanted)


def test_a_slice_changes_its_channels_only(fused, x):
    base = fused.fused(x)
    with torch.no_grad(), trained(fused, FUSED[:1]).attach(fused):
        out = fused.fused(x)
    assert torch.equal(out[..., :12], base[..., :12]) and not torch.equal(out[..., 12:], base[..., 12:])


@torch.no_grad()
def test_sites_that_overlap_are_added_in_their_order(fused, x):
    names = [SiteName("m.fused", 0, "q", (0, 6)), SiteName("m.fused", 0, "all"), SiteName("m.fused", 0, "part", (4, 9)), SiteName("m.fused", 0, "v", (12, 22))]
    adapter = trained(fused, names)
    wanted = fused.fused(x)
    for site in adapter.sites.values():
        wanted[..., slice(*(site.name.rows or (0, 22)))] += site(x)
    with adapter.attach(fused):
        assert torch.allclose(fused.fused(x), wanted, atol=1e-5)


def test_a_convolution_is_a_linear_over_patches(separate, x):
    """A dictionary over whole patches is a convolution with the encoder's rows as kernels, then one of 1×1."""
    adapter = trained(separate, NAMES[4:], encoder="linear", rank=None)
    site = adapter.sites["m.conv"]
    assert (site.d_in, site.d_out) == (WIDTH * 9, 8)
    pictures = torch.randn(2, WIDTH, 7, 6)
    u = nn.functional.conv2d(pictures, site.encoder_weight.view(9, WIDTH, 3, 3), site.encoder_bias, stride=2, padding=1)
    update = nn.functional.conv2d(u, site.dictionary().T[:, :, None, None])
    base = separate.conv(pictures)
    with adapter.attach(separate, 0.5):
        assert torch.allclose(separate.conv(pictures), base + 0.5 * update, atol=1e-5)
        assert separate.conv(pictures).shape == base.shape and separate.conv(pictures[0]).shape == base.shape[1:]
    separate.conv = nn.Conv2d(WIDTH, 6, 3, groups=2)
    with pytest.raises(SiteError, match="tells no widths"):
        trained(separate, NAMES[4:])


def test_training_every_kind(fused, x):
    adapter = SparseAdapter.create(fused, [*FUSED, NAMES[4]], AdapterConfig(atoms=9, rank=3), "m")
    statistics = InputStatistics()
    with statistics.collect(fused, [*FUSED, NAMES[4]], "m"):
        fused(x)
    statistics.apply(adapter)
    assert torch.allclose(adapter.sites["m.fused[0:6]"].encoder_mean, x.flatten(0, 1).mean(0), atol=1e-6)
    target = torch.randn_like(fused(x))
    optimiser = torch.optim.Adam(adapter.parameters(), 0.02)
    with adapter.attach(fused) as attachment:
        session, losses = TrainingSession(attachment), []
        for _ in range(8):
            session.begin(0.5)
            loss = (fused(x) - target).square().mean()
            assert set(session.end_forward().density) == set(adapter.sites)
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            session.commit()
            losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_fingerprints_are_of_the_same_weights(separate, fused):
    fused.places = {name.place: place for name in NAMES if isinstance(place := fused.resolve(name.path), Place)}
    assert fingerprint(separate, NAMES, "m") == fingerprint(fused, NAMES, "m")


def test_a_model_that_names_its_places(separate, fused, x):
    adapter = trained(separate, NAMES)
    fused.places = {name.place: place for name in NAMES if isinstance(place := fused.resolve(name.path), Place)}
    with fused_attach(adapter, fused):
        wanted = fused(x)
    with adapter.attach(fused):
        assert torch.equal(fused(x), wanted)


@pytest.mark.parametrize("name", ["flux", "wan", "sd15"])
def test_projections_that_diffusers_fused(name):
    from core.tiny_denoisers import DENOISERS

    torch.manual_seed(0)
    model, inputs = DENOISERS[name][0]()
    model.requires_grad_(False)
    attentions = {path: module for path, module in model.named_modules() if hasattr(module, "fuse_projections")}
    names = [
        SiteName(f"{path}.{leaf}", 0, f"s{number}_{leaf}")
        for number, (path, module) in enumerate(attentions.items())
        for leaf in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj")
        if getattr(module, leaf, None) is not None
    ]
    adapter = trained(model, names)
    with adapter.attach(model):
        wanted = model(**inputs, return_dict=False)[0]
    model.fuse_qkv_projections()
    places = find_places(model, {name.place: name for name in names}, "")
    assert sum(place.rows is not None for place in places.values()) > len(places) / 2
    base = model(**inputs, return_dict=False)[0]
    with adapter.attach(model):
        found = model(**inputs, return_dict=False)[0]
    assert torch.allclose(found, wanted, atol=1e-4) and not torch.allclose(found, base, atol=1e-4)


def test_slices_that_do_not_fit_are_refused(fused, tmp_path):
    with pytest.raises(SiteError, match=r"m\.fused\[20:30\] maps 12 channels to 0"):
        site = trained(fused, FUSED)
        site.sites["m.fused[0:6]"].name = SiteName("m.fused", 0, "q", (20, 30))
        site.attach(fused)
    adapter = trained(fused, FUSED)
    adapter.sites["m.fused[0:6]"].name = SiteName("m.fused", 0, "q", (0, 7))
    with pytest.raises(FileFormatError, match=r"slice of m\.fused"):
        save(adapter, tmp_path / "a.safetensors")


def test_addresses_tell_slices_apart(fused):
    adapter = trained(fused, FUSED)
    assert {key for key, mask in resolve(adapter, "L0.q[3]").items() if mask.any()} == {"m.fused[0:6]"}
