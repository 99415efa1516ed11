"""Training on other sites than the attention outputs."""

import pytest
from trainer.small_run import run

from sparsedict.sparsedict_core.addresses import site_labels
from sparsedict.sparsedict_core.errors import SiteError
from sparsedict.sparsedict_core.file_format import load


def test_kinds_of_sites(tmp_path):
    result = run(tmp_path, sites="out,q,ff", steps=2, atoms=8, checkpoint_every=100)
    adapter = load(result.path)
    labels = set(site_labels(adapter).values())
    assert {"L0.image", "L0.text", "L0.image.q", "L0.text.q", "L0.image.ff.up", "L0.text.ff.down"} <= labels and "L0.image.k" not in labels
    assert all(bool(site.encoder_scale.ne(1).any()) for site in adapter.sites.values()), "every site's input was measured"
    assert sum(bool(site.importance.any()) for site in adapter.sites.values()) > len(adapter.sites) / 2


def test_a_kind_that_is_not_there_ends_before_anything_is_sampled(tmp_path):
    with pytest.raises(SiteError, match="no site is a 'w' in this model; choose among out, all"):
        run(tmp_path, sites="out,w")
