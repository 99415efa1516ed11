"""The layer's equation, in every encoder, form and dtype."""

from __future__ import annotations

import math

import pytest
import torch
from torch.overrides import TorchFunctionMode

from sparsedict.sparsedict_core.adapter import SparseAdapter
from sparsedict.sparsedict_core.config import AdapterConfig
from sparsedict.sparsedict_core.encoders import encoder_names, get_encoder
from sparsedict.sparsedict_core.errors import SiteError, SparseDictError
from sparsedict.sparsedict_core.file_format import save
from sparsedict.sparsedict_core.functional import magnitude_quantile, magnitude_subsample, site_update, standardise
from sparsedict.sparsedict_core.site import SiteName, SparseSite

NAME = SiteName("transformer.blocks.0.to_out.0", 0)


def make_site(encoder: str = "quantile", rank: int | None = 4, atoms: int = 12, d_in: int = 10, d_out: int = 7) -> SparseSite:
    generator = torch.Generator().manual_seed(3)
    site = SparseSite.create(NAME, d_in, d_out, AdapterConfig(encoder=encoder, atoms=atoms, rank=rank), generator)
    with torch.no_grad():
        target = site.dictionary_weight if rank is None else site.dictionary_basis
        target.copy_(torch.randn(target.shape, generator=generator))
        if site.encoder.running:
            site.threshold.fill_(0.3)
    return site


def test_update_is_the_equation_written_out():
    site = make_site()
    site.set_input_statistics(torch.randn(10), torch.rand(10) + 0.5)
    x = torch.randn(2, 5, 10)
    x_hat = standardise(x, site.encoder_mean, site.encoder_scale)
    u = x_hat @ site.encoder_basis.T @ site.encoder_weight.T + site.encoder_bias
    c = torch.relu(u - site.threshold)
    gains = torch.rand(12)
    wanted = 0.7 * (c * gains) @ (site.dictionary_weight @ site.dictionary_basis)
    assert torch.allclose(site_update(x, site.tensors(), site.encoder, gains, 0.7), wanted, atol=1e-5)
    assert torch.allclose(site.coefficients(x), c, atol=1e-5)


@pytest.mark.parametrize("encoder", encoder_names())
@pytest.mark.parametrize("rank", [4, None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_any_leading_dimensions_and_dtype(encoder, rank, dtype):
    site = make_site(encoder, rank)
    x = torch.randn(2, 3, 4, 10)
    whole = site(x.to(dtype))
    assert whole.shape == (2, 3, 4, 7) and whole.dtype == dtype
    assert torch.allclose(whole.float(), site(x.to(dtype).float()), atol=0.15, rtol=0.1)
    assert site(x.to(dtype)[0, 0, 0]).shape == (7,)
    assert site(x.to(dtype)[:0]).shape == (0, 3, 4, 7)


@pytest.mark.parametrize("encoder", encoder_names())
@pytest.mark.parametrize("rank", [4, None])
def test_fresh_site_adds_exactly_zero(encoder, rank):
    site = SparseSite.create(NAME, 10, 7, AdapterConfig(encoder=encoder, atoms=12, rank=rank), torch.Generator().manual_seed(0))
    assert torch.equal(site(torch.randn(4, 10)), torch.zeros(4, 7))


@pytest.mark.parametrize("rank", [16, None])
def test_initial_scales(rank):
    site = SparseSite.create(NAME, 400, 300, AdapterConfig(atoms=200, rank=rank), torch.Generator().manual_seed(0))
    assert site.encoder_weight.std().item() == pytest.approx(1 / math.sqrt(rank or 400), rel=0.1)
    if rank is not None:
        assert site.encoder_basis.std().item() == pytest.approx(1 / math.sqrt(400), rel=0.1)
        assert site.dictionary_weight.std().item() == pytest.approx(1 / math.sqrt(rank), rel=0.1)
    assert not site.encoder_bias.any()


@pytest.mark.parametrize("encoder", encoder_names())
def test_every_encoder_trains(encoder):
    site = make_site(encoder)
    x = torch.randn(64, 10)
    (site(x).square().mean()).backward()
    for name, parameter in site.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("encoder", [name for name in encoder_names() if get_encoder(name).running])
def test_the_quantile_reaches_the_density(encoder):
    u = torch.randn(4000, 32)
    made = get_encoder(encoder)
    fired = (made.coefficients(u, magnitude_quantile(u, 0.9)) != 0).float().mean().item()
    assert fired == pytest.approx(0.05 if made.one_sided else 0.1, abs=0.01)


@pytest.mark.parametrize("encoder", ["quantile", "soft", "linear"])
def test_preactivations_for_inverts_the_encoder(encoder):
    made = get_encoder(encoder)
    c = torch.rand(6, 4) + 0.1
    threshold = torch.tensor(0.3)
    assert torch.allclose(made.coefficients(made.preactivations_for(c, threshold), threshold), c, atol=1e-6)


def test_unknown_encoder_and_setting_name_the_near_ones():
    with pytest.raises(SparseDictError, match="quantile"):
        get_encoder("quantil")
    with pytest.raises(SparseDictError, match="momentum"):
        get_encoder("quantile", momentun=1)
    with pytest.raises(SparseDictError, match="density"):
        AdapterConfig(density=0)
    with pytest.raises(SparseDictError, match="atoms"):
        AdapterConfig(atoms=-1)
    with pytest.raises(SparseDictError, match="rank"):
        AdapterConfig.from_dict({"rnk": 3})


@pytest.mark.parametrize("encoder", encoder_names())
def test_every_setting_has_bounds_that_its_default_keeps(encoder):
    made = get_encoder(encoder)
    assert list(made.bounds) == list(made.defaults)
    assert get_encoder(encoder, **made.defaults) == made
    for name, bounds in made.bounds.items():
        for value in ("x", None, True, math.nan, math.inf, 10**400, bounds.low - 1, bounds.high + 1, [[1]]):
            with pytest.raises(SparseDictError, match=f"setting {name} = .*give a .*number from"):
                get_encoder(encoder, **{name: value})


@pytest.mark.parametrize("encoder", encoder_names())
def test_keep_is_a_mask_and_keeps_ids(encoder):
    site = make_site(encoder)
    site.moments = torch.arange(144.0).reshape(12, 12)
    site.firing = torch.arange(12) / 12
    mask = torch.arange(12) % 3 == 0
    x = torch.randn(6, 10)
    masked = site_update(x, site.tensors(), site.encoder, mask.float())
    site.keep(mask)
    assert site.atoms == 4 and site.atom_ids.tolist() == [0, 3, 6, 9]
    assert site.moments[1, 2] == 3 * 12 + 6
    assert site.clone().firing.tolist() == site.firing.tolist() == [0, 0.25, 0.5, 0.75]
    assert torch.allclose(site(x), masked, atol=1e-5)


@pytest.mark.parametrize("atoms", [0, 1, 3, 12])
def test_fold_and_compact_keep_the_update(atoms):
    site = make_site(d_in=40)
    site.set_input_statistics(torch.randn(40), torch.rand(40) + 0.5)
    site.keep(torch.arange(12) < atoms)
    x = torch.randn(6, 40)
    before = site(x)
    site.fold()
    assert torch.allclose(site(x), before, atol=1e-5) and site.standardised
    assert (site.encoder_basis is None) == (atoms * 40 <= atoms * 4 + 4 * 40)
    site.compact()
    assert torch.allclose(site(x), before, atol=1e-5)
    assert site.standardised == (site.encoder_basis is not None)
    assert (site.d_in, site.d_out) == (40, 7)


class NoDoubles(TorchFunctionMode):
    """As on Apple's GPUs: only what `.cpu()` gave may become float64."""

    def __init__(self):
        super().__init__()
        self.moved = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        doubles = func is torch.Tensor.double or (func is torch.Tensor.to and any(v is torch.float64 for v in (*args, *kwargs.values())))
        if doubles and not any(args[0] is tensor for tensor in self.moved):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64.")
        result = func(*args, **kwargs)
        if func is torch.Tensor.cpu:
            result = result.view_as(result)
            self.moved.append(result)
        return result


@pytest.mark.parametrize("atoms", [1, 3])
def test_compacting_needs_no_float64_on_the_device(atoms, tmp_path):
    site = make_site(d_in=40)
    with NoDoubles():
        site.set_input_statistics(torch.randn(40), torch.rand(40) + 0.5)
        site.keep(torch.arange(12) < atoms)
        save(SparseAdapter([site], AdapterConfig()), tmp_path / "a.safetensors")
        site.compact()
    assert site.form == "dense" and not site.standardised


def test_input_statistics_are_checked_and_floored():
    site = make_site()
    with pytest.raises(SiteError, match="channels"):
        site.set_input_statistics(torch.zeros(3), torch.ones(3))
    with pytest.raises(SiteError, match="finite"):
        site.set_input_statistics(torch.full((10,), float("nan")), torch.ones(10))
    std = torch.ones(10)
    std[0] = 0
    site.set_input_statistics(torch.zeros(10), std)
    assert site.encoder_scale[0] > 0.005
    site.set_input_statistics(torch.zeros(10), torch.zeros(10))
    assert torch.equal(site.encoder_scale, torch.ones(10))


def test_subsample_does_not_depend_on_the_split_of_rows_and_sees_all_atoms():
    u = torch.randn(8, 64, 32)
    whole = magnitude_subsample(u, rows=8, limit=1024)
    parts = torch.cat([magnitude_subsample(u[:3], rows=8, limit=1024), magnitude_subsample(u[3:], rows=8, limit=1024)])
    assert torch.equal(whole, parts) and whole.numel() <= 1024
    marked = torch.arange(32.0).expand(1, 200, 32)
    assert len(magnitude_subsample(marked, limit=256).unique()) == 32


def test_quantile_is_near_the_exact_one():
    values = torch.randn(10000)
    assert magnitude_quantile(values, 0.9).item() == pytest.approx(values.abs().quantile(0.9).item(), rel=0.01)
    assert magnitude_quantile(values, 0.0) == values.abs().min()
    assert magnitude_quantile(torch.zeros(0), 0.5) == 0
