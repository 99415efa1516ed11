"""Rotated atoms: the same update, other atoms."""

import pytest
import torch

from sparsedict.lora.rotations import ROTATIONS
from sparsedict.sparsedict_core.errors import SiteError
from sparsedict.sparsedict_core.low_rank import linear_factors, linear_site, singular_factors
from sparsedict.sparsedict_core.rotation import rotate, varimax
from sparsedict.sparsedict_core.site import SiteName


@pytest.fixture
def case():
    """A site whose update is made of four directions that are at work at few tokens each, and inputs."""
    generator = torch.Generator().manual_seed(0)
    sources = torch.randn(600, 4, generator=generator) * (torch.rand(600, 4, generator=generator) < 0.1)
    reading = torch.linalg.qr(torch.randn(12, 4, generator=generator)).Q
    x = sources @ reading.T + 0.01 * torch.randn(600, 12, generator=generator)
    atoms = torch.linalg.qr(torch.randn(20, 4, generator=generator)).Q.T
    mixed = torch.linalg.qr(torch.randn(4, 4, generator=generator)).Q
    down, up = mixed @ reading.T, (mixed @ atoms).T
    return linear_site(SiteName("transformer.x", 0), *singular_factors(down, up)), x, sources


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_update_stays(case, rotation):
    if rotation == "ica":
        pytest.importorskip("sklearn")
    site, x, sources = case
    made = rotate(site, site.coefficients(x).double(), ROTATIONS[rotation])
    (down, up), (new_down, new_up) = linear_factors(site), linear_factors(made)
    torch.testing.assert_close(new_up @ new_down, up @ down, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(made.importance, (made.coefficients(x).abs().mean(0) * made.dictionary_norms()), rtol=1e-4, atol=1e-5)
    assert bool((made.importance.diff() <= 1e-6).all())
    c = made.coefficients(x)
    torch.testing.assert_close(made.moments, c.T @ c / len(c), rtol=1e-3, atol=1e-5)
    if rotation != "svd":
        # Each atom is one of the sources again.
        agreement = torch.corrcoef(torch.cat([c, sources], dim=1).T)[:4, 4:].abs()
        assert float(agreement.amax(1).min()) > 0.95


def test_varimax_is_a_rotation():
    mix = varimax(torch.randn(50, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    torch.testing.assert_close(mix @ mix.T, torch.eye(5, dtype=torch.float64))


def test_gated_sites_are_refused(case):
    site, x, _ = case
    site.encoder_bias.data.add_(1.0)
    with pytest.raises(SiteError, match="thresholds"):
        rotate(site, site.coefficients(x), ROTATIONS["svd"])
