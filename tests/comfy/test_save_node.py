"""Save Sparse Dict: what is baked into the file, and where it may lie."""

import os

import pytest
import torch
from node_calls import SELECT, dicts, make_value, run, sample

from sparsedict.sparsedict_core.errors import SparseDictError
from sparsedict.sparsedict_core.file_format import load, read_metadata

SAVE = {"filename": "out/zorp", "folder": "output", "existing": "number", "precision": "fp32", "moments": True, "trigger_words": ""}


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
    one, _ = run(nodes, "SparseDictApply", sparse_dict=scaled, **by)
    two, _ = run(nodes, "SparseDictApply", sparse_dict=SparseDict(loaded, "saved"), **by)
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


@pytest.mark.parametrize("name", ["a\0b", "a\ud800", "a" * 300, "ä" * 120, "a/" * 600 + "b"])
def test_a_name_that_no_file_can_have_is_refused(nodes, value, name):
    with pytest.raises(SparseDictError, match="no name that a file can have"):
        run(nodes, "SparseDictSave", sparse_dict=value, **{**SAVE, "filename": name})


@pytest.mark.parametrize("name", ["a\0b", "a\ud800", "a" * 5000, "../a", "/etc"])
def test_a_folder_that_no_folder_can_be_is_refused(nodes, name):
    node = nodes["SparseDictLoadImageSet"]
    said = node.validate_inputs(folder=name)
    assert isinstance(said, str) and said.isprintable() and len(said) < 500 and "no folder in ComfyUI's input folder" in said
    assert node.fingerprint_inputs(folder=name, caption="\ud800")
