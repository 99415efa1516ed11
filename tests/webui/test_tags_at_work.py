"""The host's calls in the orders that were observed on the real ones, replayed against what the pack hands to it.

`test_fake_host.py` checks in the real hosts' sources that these orders and signatures are theirs, `test_real_hosts.py` that they do what is replayed here.
"""

import re
import types

import pytest
import torch
from webui import fake_host
from webui.fake_host import params
from webui.models import write

from sparsedict.sparsedict_core.errors import TagError
from sparsedict.webui_host import files, network

Processing = fake_host.StableDiffusionProcessing


def test_strength_nothing_and_the_tag_taken_away_are_the_base(drawn):
    base, changed = drawn(), drawn("zorp:0.8")
    assert not torch.equal(changed, base)
    assert torch.equal(drawn("zorp:0.8"), changed) and torch.equal(drawn("zorp:0"), base) and torch.equal(drawn("zorp:keep=0"), base)
    assert torch.equal(drawn(), base)


def test_a_pass_without_an_end_leaves_nothing_to_the_next(drawn, model):
    base = drawn()
    drawn("zorp", end=False)  # the picture failed or was interrupted
    assert torch.equal(drawn(), base)
    once = drawn("zorp")
    drawn("zorp", end=False)  # a second pass activates again before the one end
    assert torch.equal(drawn("zorp"), once) and torch.equal(drawn(), base)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_several_tags_compose_and_names_have_folders(drawn):
    both = drawn("zorp:0.5", "animals/cat:0.5")
    assert not torch.equal(both, drawn("zorp:0.5")) and torch.equal(drawn("cat:0.5"), drawn("animals/cat:0.5"))


@pytest.mark.parametrize("tag", ["zrop", "zorp:much", "zorp:atoms=L99", "zorp:keep=7", "zorp:gain=L0*1e39"])
def test_a_mistake_stops_the_picture_with_the_tag_in_the_sentence(drawn, model, tag):
    base = drawn()
    p = Processing(model)
    with pytest.raises(TagError, match=re.escape(f"<sparsedict:{tag}>")):
        drawn(tag, p=p)
    assert f"<sparsedict:{tag}>" in next(iter(p.comments))
    assert torch.equal(drawn(), base)


def test_whatever_goes_wrong_stops_the_picture(drawn, model, monkeypatch):
    """The hosts print what is raised, call again without tags, and draw the base."""
    base = drawn()
    p = Processing(model)
    setattr(p, network.MISTAKE, "the script's argument: 'zorp' is no tag")
    with pytest.raises(TagError, match="is no tag"):
        drawn(p=p)
    with monkeypatch.context() as broken:
        broken.setattr(files, "default_folder", lambda: (_ for _ in ()).throw(FileExistsError("adapters is a file")))
        with pytest.raises(TagError, match="FileExistsError: adapters is a file"):
            drawn("zorp")
    assert torch.equal(drawn(), base)


def test_or_the_picture_is_made_without_and_says_so(drawn, model, host):
    base = drawn()
    host.opts.sparsedict_on_mistake = network.WITHOUT
    p = Processing(model)
    assert torch.equal(drawn("zrop", p=p), base)
    assert "near names are zorp" in next(iter(p.comments)) and "none" in p.extra_generation_params[network.INFOTEXT]


def test_the_pictures_text_names_the_file_by_its_hash(drawn, model, tmp_path):
    p = Processing(model)
    drawn("zorp", p=p)
    assert p.extra_generation_params[network.INFOTEXT] == f"zorp: {files.short_hash(tmp_path / 'zorp.safetensors')}"


def test_start_and_end_follow_the_steps(host, model):
    net = network.make_network()
    net.activate(Processing(model), [params("zorp:start=0.25:end=0.75")])
    acting = []
    for step in range(4):
        network.on_cfg_denoiser(fake_host.CFGDenoiserParams(None, None, None, step, 4, None, None))
        acting.append(network.APPLIED.now[0].attachment.enabled)
    assert acting == [False, True, True, False]


def test_an_axis_changes_the_first_tag(drawn, model):
    p = Processing(model)
    setattr(p, network.CHANGES, {"strength": 0.25, "keep": 0.5, "top": None})
    assert torch.equal(drawn("zorp:2:top=3", p=p), drawn("zorp:0.25:keep=0.5"))


def test_other_hosts_may_pass_more(host, model):
    net = network.make_network()
    net.activate(Processing(model), [], 3, include=["a"], exclude=[])
    net.deactivate(Processing(model), "more")


def test_a_file_added_or_changed_is_seen_without_a_restart(drawn, tmp_path):
    first = drawn("zorp")
    with pytest.raises(TagError):
        drawn("new")
    write(tmp_path, "new")
    assert torch.equal(drawn("new"), first)


class StableDiffusionPipeline:
    """What SD.Next has loaded."""


def test_a_host_that_keeps_its_model_elsewhere_gets_a_sentence(host):
    p = types.SimpleNamespace(sd_model=StableDiffusionPipeline(), extra_generation_params={})
    net = network.make_network()
    net.activate(p, [])  # without a tag nothing is asked of the host
    with pytest.raises(TagError, match=r"holds its model as a StableDiffusionPipeline.*use AUTOMATIC1111"):
        net.activate(p, [params("zorp")], 3, include=[])
    host.opts.sparsedict_on_mistake = network.WITHOUT
    net.activate(p, [params("zorp")])
    assert "none" in p.extra_generation_params[network.INFOTEXT]
