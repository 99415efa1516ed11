"""The nodes that load, apply, select, scale, compose and sweep, as the host calls them: execute, validate, fingerprint; on a tiny SD3."""

import itertools
import os
from pathlib import Path

import pytest
import torch
from node_calls import SELECT, dicts, fingerprint, make_value, run, sample
from PIL import Image

from sparsedict.sparsedict_core.errors import DataError, SparseDictError
from sparsedict.sparsedict_core.file_format import save

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
NAME = os.path.join("sub", "zorp.safetensors")


@pytest.fixture
def file(value, nodes):
    """`sub/zorp.safetensors` in models/sparse_dicts."""
    import folder_paths

    path = os.path.join(folder_paths.get_folder_paths("sparse_dicts")[0], "sub", "zorp.safetensors")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    save(value.adapter, path, torch.float32, overwrite=True)
    yield path
    os.remove(path)


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


@pytest.mark.parametrize("node_id", ["SparseDictLoad", "SparseDictLoader"])
def test_a_name_from_windows_is_found_here(nodes, file, node_id):
    name = NAME.replace(os.sep, "\\")
    assert "\\" in name and nodes[node_id].validate_inputs(file=name) is True
    assert fingerprint(nodes[node_id], file=name) == fingerprint(nodes[node_id], file=NAME)
    from sparsedict.nodes import files

    loaded = files.read(name)
    assert loaded.name == files.read(NAME).name and loaded.adapter.atom_count > 0


def test_the_fingerprint_is_the_files(nodes, file, value):
    print_of = nodes["SparseDictLoad"].fingerprint_inputs
    first = print_of(file=NAME)
    assert first == print_of(file=NAME)
    save(make_value_like(value).adapter, file, torch.float16, overwrite=True)
    assert print_of(file=NAME) != first
    assert print_of(file="gone.safetensors") == print_of(file="gone.safetensors")


@pytest.mark.parametrize("node_id", ["SparseDictLoad", "SparseDictLoader"])
def test_a_name_over_a_link_does_not_run_everything_again(nodes, node_id):
    assert fingerprint(nodes[node_id], file=["9", 0]) == fingerprint(nodes[node_id], file=["9", 0])


def make_value_like(value):
    from dataclasses import replace

    return replace(value, adapter=value.adapter.clone())


# -- applying -----------------------------------------------------------------------------------------------------


def test_the_loader_is_load_select_apply_and_all_atoms_are_the_plain_file(nodes, model, file):
    base = sample(model)
    loaded, _ = run(nodes, "SparseDictLoad", file=NAME)
    by = {"strength": 0.8, "start_percent": 0.0, "end_percent": 1.0}
    plain, _ = run(nodes, "SparseDictApply", model=model, sparse_dict=loaded, **by)
    one, _ = run(nodes, "SparseDictLoader", model=model, file=NAME, strength=0.8, share=1.0)
    latents = sample(plain)
    assert not torch.equal(latents, base)
    assert torch.equal(sample(one), latents)
    everything, _, count = run(nodes, "SparseDictSelectAtoms", sparse_dict=loaded, **{**SELECT, "share": 1.0})
    assert count == loaded.adapter.atom_count
    whole, _ = run(nodes, "SparseDictApply", model=model, sparse_dict=everything, **by)
    assert torch.equal(sample(whole), latents)

    quarter, _, _ = run(nodes, "SparseDictSelectAtoms", sparse_dict=loaded, **SELECT)
    selected, _ = run(nodes, "SparseDictApply", model=model, sparse_dict=quarter, **by)
    short, _ = run(nodes, "SparseDictLoader", model=model, file=NAME, strength=0.8, share=0.25)
    assert torch.equal(sample(selected), sample(short)) and not torch.equal(sample(short), latents)

    for share, strength in ((0.0, 1.0), (1.0, 0.0)):
        nothing, _ = run(nodes, "SparseDictLoader", model=model, file=NAME, strength=strength, share=share)
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


def test_a_selection_of_no_atoms_is_empty_in_every_mode(nodes, value):
    nothing, _, _ = run(nodes, "SparseDictSelectAtoms", sparse_dict=value, **{**SELECT, "mode": "top", "top": 0})
    for mode in ("share", "importance share", "top", "threshold"):
        left, addresses, kept = run(nodes, "SparseDictSelectAtoms", sparse_dict=nothing, **{**SELECT, "mode": mode})
        assert (addresses, kept) == ("", 0)
        _, text = run(nodes, "SparseDictInspect", sparse_dict=left, strongest=3)
        assert "the selection keeps 0 of 36 atoms" in text
    for spacing in ("importance", "atoms"):
        _, labels = run(nodes, "SparseDictAtomSweep", sparse_dict=nothing, count=2, start=0.0, stop=1.0, spacing=spacing, order="importance")
        assert labels == ["0%: 0 of 36 atoms", "100%: 0 of 36 atoms"]


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


def test_compose_keeps_names_strengths_and_gains(nodes, model, value):
    style = make_value(model, "a style!", seed=5)
    [muted] = run(nodes, "SparseDictScaleAtoms", sparse_dict=style, gains="L1=0")
    inputs = {f"strength_{number}": 1.0 for number in range(1, 9)} | {"strength_2": 0.5}
    [both] = run(nodes, "SparseDictCompose", **dicts({1: value, 2: muted, 3: value}), **inputs)
    assert [(m.name, m.strength) for m in both.adapter.members] == [("zorp", 1.0), ("a_style", 0.5), ("zorp_2", 1.0)]
    by = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0}
    [two] = run(nodes, "SparseDictCompose", **dicts({1: value, 4: muted}), **{**inputs, "strength_4": 0.5})
    composed, _ = run(nodes, "SparseDictApply", model=model, sparse_dict=two, **by)
    chained, _ = run(nodes, "SparseDictApply", model=model, sparse_dict=value, **by)
    chained, _ = run(nodes, "SparseDictApply", model=chained, sparse_dict=muted, **{**by, "strength": 0.5})
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


def test_after_a_restart_a_sweep_has_names_of_its_own_and_still_becomes_a_gif(nodes):
    """The host empties its temp folder when it starts; the page, and what its browser has kept, stay."""
    import folder_paths

    from sparsedict.nodes.routes import sweep_answer

    names = []
    for _ in range(2):
        shown = nodes["SparseDictSweepViewer"].execute(images=[torch.rand(2, 4, 6, 3)]).ui["sparsedict_sweep"]
        names.append([entry["filename"] for entry in shown])
        assert sweep_answer({"frames": names[-1], "labels": ["some", "all"]})[0] == 200
        for name in names[-1]:
            (Path(folder_paths.get_temp_directory()) / name).unlink()
    assert not set(names[0]) & set(names[1])


# -- what a file or a graph may hold --------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_none_is_refused_by_each_node(nodes, model, value, file, strength):
    """A graph that is sent over the API is JSON as Python reads it, NaN and Infinity included."""
    for use in (
        lambda: run(nodes, "SparseDictApply", model=model, sparse_dict=value, strength=strength, start_percent=0.0, end_percent=1.0),
        lambda: run(nodes, "SparseDictLoader", model=model, file=NAME, strength=strength, share=1.0),
        lambda: run(nodes, "SparseDictScaleAtoms", sparse_dict=value, gains=f"L0*{strength}"),
        lambda: run(nodes, "SparseDictCompose", **dicts({1: value}), **{f"strength_{number}": strength for number in range(1, 9)}),
    ):
        with pytest.raises(SparseDictError, match=r"nan|inf|finite"):
            use()


def test_text_of_a_file_cannot_act_in_a_node(nodes, model):
    evil = "a\x1b]0;pwned\x07b\u202ec"
    made = make_value(model, evil)
    made.adapter.metadata.update(base_family=f"sd3{evil}", note=evil)
    _, text = run(nodes, "SparseDictInspect", sparse_dict=made, strongest=3)
    assert "\\x1b" in text and text.replace("\n", "").isprintable()
