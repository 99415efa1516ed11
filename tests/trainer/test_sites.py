"""Training on other sites than the attention outputs."""

import pytest
import torch
from small_base import small_base
from trainer.small_run import run

from sparsedict.sparsedict_core.addresses import site_labels
from sparsedict.sparsedict_core.errors import SiteError
from sparsedict.sparsedict_core.file_format import load
from sparsedict.trainer import Callbacks


def test_kinds_of_sites(tmp_path, backend):
    result = run(tmp_path, backend, sites="out,q,ff", steps=2, atoms=8, checkpoint_every=100)
    adapter = load(result.path)
    labels = set(site_labels(adapter).values())
    assert {"L0.image", "L0.text", "L0.image.q", "L0.text.q", "L0.image.ff.up", "L0.text.ff.down"} <= labels and "L0.image.k" not in labels
    assert all(bool(site.encoder_scale.ne(1).any()) for site in adapter.sites.values()), "every site's input was measured"
    assert sum(bool(site.importance.any()) for site in adapter.sites.values()) > len(adapter.sites) / 2


def test_a_kind_that_is_not_there_ends_before_anything_is_sampled(tmp_path, backend):
    with pytest.raises(SiteError, match="no site is a 'w' in this model; choose among out, all"):
        run(tmp_path, backend, sites="out,w")


def test_linears_that_a_step_does_not_call_are_left_out_in_plain_sight(tmp_path):
    told, report = [], Callbacks()
    report.on_warning = told.append
    backend = small_base()
    backend.denoiser.transformer_blocks[0].attn.spare = torch.nn.Linear(8, 8)
    result = run(tmp_path, backend, report, sites="all", steps=2, atoms=4, rank=2, quiet_samples=4, checkpoint_every=1)
    assert any("1 of" in text and "transformer_blocks.0.attn.spare" in text and "left out" in text for text in told)
    assert result.adapter.sites and not any("spare" in key for key in load(result.path).sites)
    assert run(tmp_path, backend, sites="all", steps=3, atoms=4, rank=2, quiet_samples=4, checkpoint_every=1, resume=True).steps == 3
