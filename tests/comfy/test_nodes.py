"""The nodes as the host calls them: execute, validate, fingerprint; on a tiny SD3 of the real host."""

import asyncio
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from PIL import Image

from sparsedict.sparsedict_core.adapter import SparseAdapter
from sparsedict.sparsedict_core.config import AdapterConfig
from sparsedict.sparsedict_core.errors import DataError, SparseDictError
from sparsedict.sparsedict_core.file_format import load, read_metadata, save

OWN = {
    "SparseDictLoader": "Sparse Dict Loader",
    "SparseDictLoad": "Load Sparse Dict",
    "SparseDictApply": "Apply Sparse Dict",
    "SparseDictSelectAtoms": "Select Atoms",
    "SparseDictScaleAtoms": "Scale Atoms",
    "SparseDictCompose": "Compose Sparse Dicts",
    "SparseDictInspect": "Inspect Sparse Dict",
    "SparseDictProbe": "Probe Atoms",
    "SparseDictAtomSweep": "Atom Sweep",
    "SparseDictSweepViewer": "Sweep Viewer",
    "SparseDictSave": "Save Sparse Dict",
}


@pytest.fixture(scope="module")
def nodes(comfy):
    """The pack's node classes by id."""
    from sparsedict.nodes import SparseDictExtension

    classes = asyncio.run(SparseDictExtension().get_node_list())
    return {cls.GET_SCHEMA().node_id: cls for cls in classes}


@pytest.fixture(scope="module")
def model(comfy):
    return tiny_models.load("sd3")


@pytest.fixture(scope="module")
def value(model):
    return make_value(model)


def make_value(model, name="zorp", seed=0, moments=True):
    """A SPARSE_DICT with importance, moments and trigger words."""
    from sparsedict.comfyui_host.sites import alias_tree, host_sites
    from sparsedict.nodes.socket import SparseDict

    sites = host_sites(model)
    config = AdapterConfig(atoms=12, rank=4, encoder="quantile")
    metadata = {"base_family": "sd3", "title": name, "trigger_words": [name], "training": {"steps": "5"}}
    adapter = SparseAdapter.create(alias_tree(sites), sites.names, config, "transformer", seed, metadata)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for site in adapter.sites.values():
            site.dictionary_basis.copy_(torch.randn(site.dictionary_basis.shape, generator=generator) * 0.3)
            site.threshold.fill_(0.5)
            site.importance = torch.rand(site.atoms, generator=generator) + 0.01
            c = torch.randn(64, site.atoms, generator=generator)
            site.moments = c.T @ c / 64 if moments else None
    return SparseDict(adapter.requires_grad_(False), name)


@pytest.fixture
def file(value, nodes):
    """`sub/zorp.safetensors` in models/sparse_dicts."""
    import folder_paths

    path = os.path.join(folder_paths.get_folder_paths("sparse_dicts")[0], "sub", "zorp.safetensors")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    save(value.adapter, path, torch.float32, overwrite=True)
    yield path
    os.remove(path)


NAME = os.path.join("sub", "zorp.safetensors")
SELECT = {
    "mode": "share", "share": 0.25, "top": 5, "threshold": 0.5, "atoms": "", "order": "importance", "per_site": False, "layers": "", "invert": False, "refit": False
}  # fmt: skip
SAVE = {"filename": "out/zorp", "folder": "output", "existing": "number", "precision": "fp32", "moments": True, "trigger_words": ""}


def run(nodes, node_id, **inputs):
    with torch.inference_mode():  # as the host does
        return nodes[node_id].execute(**inputs).args


def sample(model):
    return tiny_models.sample(model, "sd3", guidance=1.0)


# -- schemas ------------------------------------------------------------------------------------------------------


def test_all_nodes_are_there_and_explained(nodes):
    for node_id, display_name in OWN.items():
        schema = nodes[node_id].GET_SCHEMA()
        assert (schema.display_name, schema.category) == (display_name, "SparseDict")
        assert schema.description.endswith(".")
        for one in schema.inputs:
            assert one.tooltip, f"{node_id}.{one.id} has no tooltip"
        nodes[node_id].INPUT_TYPES()


def test_importing_the_nodes_is_light(host_root):
    """No diffusers, matplotlib or click at start. How long it takes is in benchmarks (host-speed)."""
    import subprocess
    import sys

    code = (
        f"import sys; sys.argv=['main.py','--cpu']; sys.path.insert(0, {str(host_root)!r})\n"
        "import comfy.options; comfy.options.enable_args_parsing()\n"
        "import folder_paths, comfy.samplers, comfy.model_management, nodes\n"
        "import asyncio, comfy_api.latest; known=set(sys.modules)\n"
        "from sparsedict.nodes import SparseDictExtension\n"
        "[c.GET_SCHEMA() for c in asyncio.run(SparseDictExtension().get_node_list())]\n"
        "new={m.split('.')[0] for m in set(sys.modules)-known}\n"
        "bad=new & {'diffusers','matplotlib','click','accelerate','jinja2','skimage'}\n"
        "assert not bad, bad\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]


# -- files --------------------------------------------------------------------------------------------------------


def test_load_finds_files_in_subfolders(nodes, file, value):
    options = nodes["SparseDictLoad"].INPUT_TYPES()["required"]["file"]
    assert NAME in (options[1].get("options") or options[0])
    loaded, words = run(nodes, "SparseDictLoad", file=NAME)
    assert words == "zorp" and loaded.name == "zorp"
    assert loaded.adapter.sites.keys() == value.adapter.sites.keys()


def test_a_missing_file_is_said_before_running(nodes, file):
    for node_id in ("SparseDictLoad", "SparseDictLoader"):
        assert nodes[node_id].validate_inputs(file=NAME) is True
        assert nodes[node_id].validate_inputs() is True
        said = nodes[node_id].validate_inputs(file="gone.safetensors")
        assert "'gone.safetensors' is not in models/sparse_dicts; put the file there" in said


def test_the_fingerprint_is_the_files(nodes, file, value):
    print_of = nodes["SparseDictLoad"].fingerprint_inputs
    first = print_of(file=NAME)
    assert first == print_of(file=NAME)
    save(make_value_like(value).adapter, file, torch.float16, overwrite=True)
    assert print_of(file=NAME) != first
    assert print_of(file="gone.safetensors") == print_of(file="gone.safetensors")


def make_value_like(value):
    from dataclasses import replace

    return replace(value, adapter=value.adapter.clone())


# -- applying -----------------------------------------------------------------------------------------------------


def test_the_loader_is_load_select_apply_and_all_atoms_are_the_plain_file(nodes, model, file):
    base = sample(model)
    loaded, _ = run(nodes, "SparseDictLoad", file=NAME)
    by = {"strength": 0.8, "start_percent": 0.0, "end_percent": 1.0}
    [plain] = run(nodes, "SparseDictApply", model=model, sparse_dict=loaded, **by)
    [one] = run(nodes, "SparseDictLoader", model=model, file=NAME, strength=0.8, share=1.0)
    latents = sample(plain)
    assert not torch.equal(latents, base)
    assert torch.equal(sample(one), latents)
    everything, _, count = run(nodes, "SparseDictSelectAtoms", sparse_dict=loaded, **{**SELECT, "share": 1.0})
    assert count == loaded.adapter.atom_count
    [whole] = run(nodes, "SparseDictApply", model=model, sparse_dict=everything, **by)
    assert torch.equal(sample(whole), latents)

    quarter, _, _ = run(nodes, "SparseDictSelectAtoms", sparse_dict=loaded, **SELECT)
    [selected] = run(nodes, "SparseDictApply", model=model, sparse_dict=quarter, **by)
    [short] = run(nodes, "SparseDictLoader", model=model, file=NAME, strength=0.8, share=0.25)
    assert torch.equal(sample(selected), sample(short)) and not torch.equal(sample(short), latents)

    for share, strength in ((0.0, 1.0), (1.0, 0.0)):
        [nothing] = run(nodes, "SparseDictLoader", model=model, file=NAME, strength=strength, share=share)
        assert torch.equal(sample(nothing), base)
    assert torch.equal(sample(model), base)


def test_apply_refuses_an_adapter_of_another_family(nodes, model, value):
    other = make_value_like(value)
    other.adapter.metadata["base_family"] = "flux"
    with pytest.raises(SparseDictError, match="made for flux, this model is sd3"):
        run(nodes, "SparseDictApply", model=model, sparse_dict=other, strength=1.0, start_percent=0.0, end_percent=1.0)


# -- selecting ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how, count",
    [
        ({}, 9),
        ({"share": 0.0}, 0),
        ({"mode": "top"}, 5),
        ({"mode": "top", "invert": True}, 31),
        ({"mode": "top", "per_site": True, "top": 2}, 6),
        ({"mode": "top", "order": "greedy"}, 5),
        ({"mode": "share", "layers": "L1", "share": 0.5}, 6),
        ({"mode": "importance share", "share": 1.0}, 36),
        ({"mode": "addresses", "atoms": "L0.image[0-3], L1[7]"}, 5),
        ({"mode": "addresses", "atoms": "L0", "order": "greedy"}, 24),
        ({"mode": "addresses"}, 0),
    ],
)
def test_select_atoms(nodes, value, how, count):
    selected, addresses, kept = run(nodes, "SparseDictSelectAtoms", sparse_dict=value, **{**SELECT, **how})
    assert kept == count == sum(int(gains.sum()) for gains in selected.gains.values())
    assert selected.adapter is value.adapter, "a selection copies nothing"
    if count:  # the addresses that come out, put in, are the same selection
        again, same, _ = run(nodes, "SparseDictSelectAtoms", sparse_dict=value, **{**SELECT, "mode": "addresses", "atoms": addresses})
        assert same == addresses
        assert all(torch.equal(again.gains[key], selected.gains[key]) for key in selected.gains)
    else:
        assert addresses == ""


def test_a_selection_of_a_selection_counts_what_is_left(nodes, value):
    layer, _, _ = run(nodes, "SparseDictSelectAtoms", sparse_dict=value, **{**SELECT, "mode": "addresses", "atoms": "L1"})
    half, addresses, kept = run(nodes, "SparseDictSelectAtoms", sparse_dict=layer, **{**SELECT, "share": 0.5})
    assert kept == 6 and addresses.startswith("L1[")
    _, _, none = run(nodes, "SparseDictSelectAtoms", sparse_dict=half, **{**SELECT, "mode": "addresses", "atoms": "L0.image[0]"} | {"mode": "top", "top": 0})
    assert none == 0


def test_thresholds_and_inversion_are_complements(nodes, value):
    _, _, above = run(nodes, "SparseDictSelectAtoms", sparse_dict=value, **{**SELECT, "mode": "threshold"})
    _, _, below = run(nodes, "SparseDictSelectAtoms", sparse_dict=value, **{**SELECT, "mode": "threshold", "invert": True})
    assert above and below and above + below == value.adapter.atom_count


def test_refit_makes_a_smaller_adapter_or_says_what_is_missing(nodes, value, model):
    small, addresses, kept = run(nodes, "SparseDictSelectAtoms", sparse_dict=value, **{**SELECT, "mode": "top", "refit": True})
    assert small.gains is None and small.adapter.atom_count == kept == 5
    from sparsedict.sparsedict_core.addresses import format_masks
    from sparsedict.sparsedict_core.gains import alive

    there = format_masks(small.adapter, alive(small.adapter, None))
    assert there.count("L") <= addresses.count("L") and small.adapter.metadata["lineage"][-1]["refit"] is True
    with pytest.raises(SparseDictError, match="moments"):
        run(nodes, "SparseDictSelectAtoms", sparse_dict=make_value(model, moments=False), **{**SELECT, "mode": "top", "refit": True})


def test_bad_addresses_are_said_before_running(nodes, value):
    check = nodes["SparseDictSelectAtoms"].validate_inputs
    assert check(atoms="L0[3]", layers="") is True and check() is True
    assert "expected a layer" in check(atoms="0[3]", layers="")
    assert "expected" in check(atoms="", layers="L1,")
    with pytest.raises(SparseDictError, match="no layer L9"):
        run(nodes, "SparseDictSelectAtoms", sparse_dict=value, **{**SELECT, "mode": "addresses", "atoms": "L9[0]"})


# -- gains --------------------------------------------------------------------------------------------------------


def test_scale_atoms(nodes, value):
    [scaled] = run(nodes, "SparseDictScaleAtoms", sparse_dict=value, gains="L0.image[3,5]=1.5, L1=0\nL1[2]=-.5; L0.text = 2")
    keys = list(value.adapter.sites)
    assert scaled.gains[keys[0]].tolist() == [1, 1, 1, 1.5, 1, 1.5, 1, 1, 1, 1, 1, 1]
    assert scaled.gains[keys[1]].tolist() == [2.0] * 12
    assert scaled.gains[keys[2]].tolist() == [0, 0, -0.5] + [0] * 9
    [twice] = run(nodes, "SparseDictScaleAtoms", sparse_dict=scaled, gains="L0.image[3]=2")
    assert twice.gains[keys[0]][3] == 3 and twice.gains[keys[2]][2] == -0.5
    check = nodes["SparseDictScaleAtoms"].validate_inputs
    assert check(gains="") is True and check(gains="L0=1") is True
    for bad in ("L0", "L0=x", "=1", "L0=1 L1=2", "L0[=1"):
        assert isinstance(check(gains=bad), str), bad


def dicts(values):
    """The inputs of Compose as the host hands them over: in one that grows, or under dotted names where there is none."""
    from comfy_api.latest import io

    named = {f"dict_{number}": value for number, value in values.items()}
    return {"dicts": named} if hasattr(io, "Autogrow") else {f"dicts.{name}": value for name, value in named.items()}


def test_compose_keeps_names_strengths_and_gains(nodes, model, value):
    style = make_value(model, "a style!", seed=5)
    [muted] = run(nodes, "SparseDictScaleAtoms", sparse_dict=style, gains="L1=0")
    inputs = {f"strength_{number}": 1.0 for number in range(1, 9)} | {"strength_2": 0.5}
    [both] = run(nodes, "SparseDictCompose", **dicts({1: value, 2: muted, 3: value}), **inputs)
    assert [(m.name, m.strength) for m in both.adapter.members] == [("zorp", 1.0), ("a_style", 0.5), ("zorp_2", 1.0)]
    by = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0}
    [two] = run(nodes, "SparseDictCompose", **dicts({1: value, 4: muted}), **{**inputs, "strength_4": 0.5})
    [composed] = run(nodes, "SparseDictApply", model=model, sparse_dict=two, **by)
    [chained] = run(nodes, "SparseDictApply", model=model, sparse_dict=value, **by)
    [chained] = run(nodes, "SparseDictApply", model=chained, sparse_dict=muted, **{**by, "strength": 0.5})
    assert torch.equal(sample(composed), sample(chained))
    _, addresses, _ = run(nodes, "SparseDictSelectAtoms", sparse_dict=both, **{**SELECT, "mode": "addresses", "atoms": "a_style:L0.image[3]"})
    assert addresses == "a_style:L0.image[3]"


def test_sweep_is_nested_and_labelled(nodes, value):
    values, labels = run(nodes, "SparseDictAtomSweep", sparse_dict=value, count=4, start=0.0, stop=1.0, spacing="importance", order="importance")
    kept = [sum(int(gains.sum()) for gains in one.gains.values()) for one in values]
    assert kept[0] == 0 and kept[-1] == 36 and kept == sorted(kept) and len(set(kept)) == 4
    for small, large in itertools.pairwise(values):
        assert all(bool((small.gains[key] <= large.gains[key]).all()) for key in small.gains)
    assert labels[0] == "0%: 0 of 36 atoms"
    assert nodes["SparseDictAtomSweep"].GET_SCHEMA().outputs[0].is_output_list
    down, _ = run(nodes, "SparseDictAtomSweep", sparse_dict=value, count=2, start=0.5, stop=0.25, spacing="atoms", order="greedy")
    assert [sum(int(g.sum()) for g in one.gains.values()) for one in down] == [18, 9]


def test_the_viewer_shows_one_picture_a_step(nodes):
    import folder_paths

    pictures, labels = [torch.rand(1, 4, 6, 3) for _ in range(3)], ["none", "some", "all"]
    shown = nodes["SparseDictSweepViewer"].execute(images=pictures, labels=labels).ui["sparsedict_sweep"]
    assert [entry["label"] for entry in shown] == labels and len({entry["filename"] for entry in shown}) == 3
    for entry, picture in zip(shown, pictures, strict=True):
        with Image.open(Path(folder_paths.get_temp_directory()) / entry["filename"]) as saved:
            assert saved.size == (6, 4) and abs(saved.getpixel((0, 0))[0] - 255 * picture[0, 0, 0, 0]) <= 1
    wide = nodes["SparseDictSweepViewer"].execute(images=[torch.rand(2, 4, 6, 4), torch.rand(2, 4, 6, 4)]).ui["sparsedict_sweep"]
    assert len(wide) == 2
    with Image.open(Path(folder_paths.get_temp_directory()) / wide[0]["filename"]) as saved:
        assert saved.size == (12, 4)
    assert len(nodes["SparseDictSweepViewer"].execute(images=[torch.rand(5, 4, 6, 3)]).ui["sparsedict_sweep"]) == 5
    with pytest.raises(DataError, match="3 pictures but 2 labels"):
        nodes["SparseDictSweepViewer"].execute(images=pictures, labels=labels[:2])


# -- saving -------------------------------------------------------------------------------------------------------


def test_save_bakes_selection_and_gains_in(nodes, model, value):
    selected, _, count = run(nodes, "SparseDictSelectAtoms", sparse_dict=value, **SELECT)
    [scaled] = run(nodes, "SparseDictScaleAtoms", sparse_dict=selected, gains="L0=1.5")
    [path] = run(nodes, "SparseDictSave", sparse_dict=scaled, **{**SAVE, "trigger_words": "a zorp, blue"})
    import folder_paths

    assert path.startswith(os.path.realpath(folder_paths.get_output_directory()))
    loaded = load(path)
    assert loaded.atom_count == count
    assert read_metadata(path)["trigger_words"] == ["a zorp", "blue"]
    assert value.adapter.metadata["trigger_words"] == ["zorp"] and value.adapter.atom_count == 36
    from sparsedict.nodes.socket import SparseDict

    by = {"model": model, "strength": 1.0, "start_percent": 0.0, "end_percent": 1.0}
    [one] = run(nodes, "SparseDictApply", sparse_dict=scaled, **by)
    [two] = run(nodes, "SparseDictApply", sparse_dict=SparseDict(loaded, "saved"), **by)
    assert torch.allclose(sample(one), sample(two), atol=1e-4)


def test_save_bakes_members_too(nodes, model, value):
    inputs = {f"strength_{number}": 1.0 for number in range(1, 9)}
    [muted] = run(nodes, "SparseDictScaleAtoms", sparse_dict=make_value(model, "style", seed=5), gains="L0=0")
    [both] = run(nodes, "SparseDictCompose", **dicts({1: value, 2: muted}), **inputs)
    [path] = run(nodes, "SparseDictSave", sparse_dict=both, **SAVE)
    loaded = load(path)
    assert loaded.atom_count == 36 + 12 and [m.name for m in loaded.members] == ["zorp", "style"]


def test_save_never_overwrites_unasked(nodes, value):
    [first] = run(nodes, "SparseDictSave", sparse_dict=value, **{**SAVE, "filename": "again"})
    [second] = run(nodes, "SparseDictSave", sparse_dict=value, **{**SAVE, "filename": "again"})
    assert first.endswith("again.safetensors") and second.endswith("again_2.safetensors")
    with pytest.raises(SparseDictError, match="exists already"):
        run(nodes, "SparseDictSave", sparse_dict=value, **{**SAVE, "filename": "again", "existing": "refuse"})
    [same] = run(nodes, "SparseDictSave", sparse_dict=value, **{**SAVE, "filename": "again", "existing": "overwrite", "moments": False})
    assert same == first and load(first).sites.popitem()[1].moments is None


@pytest.mark.parametrize("bad", ["../zorp", "a/../../zorp", "/etc/zorp", "C:\\zorp", "..\\zorp", "", "  ", "folder/"])
def test_save_stays_below_its_folder(nodes, value, bad):
    assert isinstance(nodes["SparseDictSave"].validate_inputs(filename=bad), str)
    with pytest.raises(SparseDictError, match="give a name"):
        run(nodes, "SparseDictSave", sparse_dict=value, **{**SAVE, "filename": bad})


def test_what_is_saved_to_models_can_be_loaded_at_once(nodes, value):
    [path] = run(nodes, "SparseDictSave", sparse_dict=value, **{**SAVE, "filename": "new/here", "folder": "models/sparse_dicts"})
    loaded, _ = run(nodes, "SparseDictLoad", file=os.path.join("new", "here.safetensors"))
    assert loaded.adapter.atom_count == 36
    os.remove(path)


# -- looking ------------------------------------------------------------------------------------------------------


def test_inspect_shows_and_tells(nodes, value):
    selected, _, _ = run(nodes, "SparseDictSelectAtoms", sparse_dict=value, **SELECT)
    image, text = run(nodes, "SparseDictInspect", sparse_dict=selected, strongest=3)
    assert image.ndim == 4 and image.shape[0] == 1 and image.shape[-1] == 3 and image.min() >= 0 and image.max() <= 1
    for part in ("zorp: 36 atoms at 3 sites", "the selection keeps 9 of 36 atoms", "trigger words: zorp", "L0.image", "base sd3", "steps 5"):
        assert part in text, text
    whole, _ = run(nodes, "SparseDictInspect", sparse_dict=value, strongest=0)
    assert not torch.equal(whole, image), "atoms that are not selected fade"


PROBE = {"seed": 3, "steps": 3, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0, "top": 6, "which": -1}


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
    assert image.shape[-1] == 3 and text.splitlines()[0].split()[0] == "atom" and len(text.splitlines()) == 7
    importance = torch.cat([site.importance for site in probed.adapter.sites.values()])
    assert torch.isfinite(importance).all() and importance.max() > 0
    assert not torch.equal(importance, torch.cat([site.importance for site in value.adapter.sites.values()]))
    first = text.splitlines()[1].split()[0]
    _, _, count = run(nodes, "SparseDictSelectAtoms", sparse_dict=probed, **{**SELECT, "mode": "addresses", "atoms": first})
    assert count == 1
    _, strongest, _ = run(nodes, "SparseDictSelectAtoms", sparse_dict=probed, **{**SELECT, "mode": "top", "top": 1})
    assert strongest == first
    assert torch.equal(sample(on), plain) and torch.equal(sample(model), base), "a probe leaves no trace"
    assert not any(attachment._taps for one in on.get_injections("sparsedict") for attachment in one._attachments.values())


def test_probe_watches_the_positive_rows_only(nodes, model, value):
    """With guidance both prompts are in one batch; where both are the same prompt, the same must come out as without guidance."""
    on = applied(nodes, model, value)
    same = tiny_models.conditioning("sd3", 1)
    alone, _, _ = probe(nodes, on, steps=1)
    beside, _, _ = probe(nodes, on, steps=1, cfg=4.0, negative=tiny_models.conditioning("sd3", 9))
    for key, site in alone.adapter.sites.items():
        assert torch.allclose(site.importance, beside.adapter.sites[key].importance, atol=1e-5)
    assert same


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
