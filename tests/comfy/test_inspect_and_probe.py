"""Inspect Sparse Dict and Probe Atoms: what an adapter holds, and which of its atoms act on a picture."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from node_calls import SELECT, dicts, make_value, run, sample
from waiting import waits

from sparsedict.sparsedict_core.errors import SparseDictError
from sparsedict.sparsedict_core.file_format import save

PROBE = {"seed": 3, "steps": 3, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0, "top": 6, "which": -1}


def test_inspect_shows_and_tells(nodes, value):
    selected, _, _ = run(nodes, "SparseDictSelectAtoms", sparse_dict=value, **SELECT)
    image, text = run(nodes, "SparseDictInspect", sparse_dict=selected, strongest=3)
    assert image.ndim == 4 and image.shape[0] == 1 and image.shape[-1] == 3 and image.min() >= 0 and image.max() <= 1
    for part in ("zorp: 36 atoms at 3 sites", "the selection keeps 9 of 36 atoms", "trigger words: zorp", "L0.image", "base sd3", "steps 5"):
        assert part in text, text
    whole, _ = run(nodes, "SparseDictInspect", sparse_dict=value, strongest=0)
    assert not torch.equal(whole, image), "atoms that are not selected fade"


def applied(nodes, model, value, **more):
    return run(nodes, "SparseDictApply", model=model, sparse_dict=value, **{"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0, **more})[0]


def probe(nodes, on, **more):
    inputs = {"positive": tiny_models.conditioning("sd3", 1), "latent_image": tiny_models.latent("sd3"), **PROBE, **more}
    return run(nodes, "SparseDictProbe", model=on, **inputs)


def test_probe_tells_which_atoms_fire(nodes, model, value):
    base = sample(model)
    on = applied(nodes, model, value)
    plain = sample(on)
    probed, image, text = probe(nodes, on)
    assert image.shape[-1] == 3 and text.splitlines()[0].split()[0] == "atom" and len(text.splitlines()) == 7 + 2
    # On dark, as the graph is, in letters that a node of the usual width shows at 11 pixels or more.
    assert float(image[0, -1, -1].max()) < 0.15 and 14 * 420 / image.shape[2] >= 11
    assert max(map(len, text.splitlines()[:7])) <= 64  # what a node of the usual width shows in one line
    importance = torch.cat([site.importance for site in probed.adapter.sites.values()])
    assert torch.isfinite(importance).all() and importance.max() > 0
    assert not torch.equal(importance, torch.cat([site.importance for site in value.adapter.sites.values()]))
    first = text.splitlines()[1].split()[0]
    _, _, count = run(nodes, "SparseDictSelectAtoms", sparse_dict=probed, **{**SELECT, "mode": "addresses", "atoms": first})
    assert count == 1
    _, strongest, _ = run(nodes, "SparseDictSelectAtoms", sparse_dict=probed, **{**SELECT, "mode": "top", "top": 1})
    assert strongest == first
    assert torch.equal(sample(on), plain) and torch.equal(sample(model), base), "a probe leaves no trace"
    assert not any(attachment.taps for one in on.get_injections("sparsedict") for attachment in one._attachments.values())


def test_probe_watches_the_positive_rows_only(nodes, model, value):
    """With guidance both prompts are in one batch; where both are the same prompt, the same must come out as without guidance."""
    on = applied(nodes, model, value)
    same = tiny_models.conditioning("sd3", 1)
    alone, _, _ = probe(nodes, on, steps=1)
    beside, _, _ = probe(nodes, on, steps=1, cfg=4.0, negative=tiny_models.conditioning("sd3", 9))
    for key, site in alone.adapter.sites.items():
        assert torch.allclose(site.importance, beside.adapter.sites[key].importance, atol=1e-5)
    assert same


def test_probe_waits_for_the_device_at_no_site(nodes, model, value):
    """Read once at the end: with three times the steps and sites, a GPU is waited for no oftener."""
    from sparsedict.comfyui_host.probe import Probe

    probe = Probe(applied(nodes, model, value), 0)
    probe._each_call(lambda x, sigma, options: None, torch.zeros(2, 4), torch.ones(1), {"cond_or_uncond": [0, 1]})
    adapter = probe.adapter
    with waits() as counts:
        for _ in range(3):
            for key, site in adapter.sites.items():
                probe._gather(key, site, torch.zeros(()), torch.rand(2, 16, site.atoms), torch.zeros(()), torch.zeros(()))
                probe.stats._observe(key, site, torch.zeros(()), torch.rand(2, 16, site.atoms), torch.zeros(()), torch.rand(2, 16, 8))
    assert not counts
    assert probe._maps and all(total.shape == (16, adapter.sites[key].atoms) for key, total in probe._maps.items())


def test_probe_with_several_adapters_and_a_vae(nodes, model, value):
    two = applied(nodes, applied(nodes, model, value), make_value(model, "second", seed=7))
    first, _, _ = probe(nodes, two, which=1)
    last, _, _ = probe(nodes, two, which=-1)
    assert first.name == "zorp" and last.name == "second"

    class Vae:
        def decode(self, latents):
            return torch.zeros(len(latents), 64, 64, 3) + torch.tensor([1.0, 0.0, 0.0])

    _, image, _ = probe(nodes, two, vae=Vae())
    assert np.allclose(image[0, 40, 40].numpy(), [1, 0, 0], atol=0.05)


def test_probe_names_the_dictionary_as_the_nodes_before_it_do(nodes, model, value):
    """Compose names members after it, and addresses that were picked on the map name the member after the file."""
    titled = replace(value, name="file-of-zorp")
    assert titled.adapter.metadata["title"] == "zorp"
    probed, _, _ = probe(nodes, applied(nodes, model, titled))
    assert probed.name == "file-of-zorp"
    [both] = run(nodes, "SparseDictCompose", **dicts({1: probed}), **{f"strength_{number}": 1.0 for number in range(1, 9)})
    _, addresses, _ = run(nodes, "SparseDictSelectAtoms", sparse_dict=both, **{**SELECT, "mode": "addresses", "atoms": "file-of-zorp:L0.image[3]"})
    assert addresses == "file-of-zorp:L0.image[3]"


def test_probe_names_the_file_of_the_loader(nodes, model, value):
    import folder_paths

    path = Path(folder_paths.get_folder_paths("sparse_dicts")[0]) / "loaded.safetensors"
    save(value.adapter, path, torch.float32)
    try:
        on, _ = run(nodes, "SparseDictLoader", model=model, file="loaded.safetensors", strength=1.0, share=0.5)
    finally:
        path.unlink()
    assert probe(nodes, on)[0].name == "loaded"


def test_probe_follows_gains_and_ranges(nodes, model, value):
    [muted] = run(nodes, "SparseDictScaleAtoms", sparse_dict=value, gains="L0=0")
    _, _, text = probe(nodes, applied(nodes, model, muted), top=100)
    assert "L1" in text and "L0" not in text
    _, _, text = probe(nodes, applied(nodes, model, value, end_percent=0.3), top=1, steps=6)
    start, _, end = text.splitlines()[1].split()[-3:]
    assert float(start) > 0 and float(end) == 0
    _, _, text = probe(nodes, applied(nodes, model, value, start_percent=0.6), top=1, steps=6)
    start, _, end = text.splitlines()[1].split()[-3:]
    assert float(start) == 0 and float(end) > 0


def test_probe_says_what_is_missing(nodes, model, value):
    with pytest.raises(SparseDictError, match="no sparse dictionary is on this model; put Apply"):
        probe(nodes, model)
    on = applied(nodes, model, value)
    with pytest.raises(SparseDictError, match="`which` is 2, but 1 dictionaries"):
        probe(nodes, on, which=2)
    with pytest.raises(SparseDictError, match="there is no negative"):
        probe(nodes, on, cfg=5.0)
