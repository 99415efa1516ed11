"""inspect, prune and compose: commands that need files only, no model."""

import json

import pytest
import torch
from PIL import Image
from toy_adapters import Toy

from sparsedict.sparsedict_core import SiteName, SparseAdapter, load, save


def inspected(cli, path, *more):
    result = cli("inspect", path, "--json", *more)
    assert result.code == 0, result.err
    return json.loads(result.out)


def test_inspect_lists_sites_forms_bytes_and_the_strongest_atoms(cli, adapter_file):
    result = cli("inspect", adapter_file)
    assert result.code == 0
    assert "48 atoms at 3 sites" in result.out and "trigger words: zorp" in result.out
    assert all(text in result.out for text in ("L0", "L1", "L2", "factored", "blocks.2"))


def test_inspect_json_is_complete(cli, adapter_file):
    report = inspected(cli, adapter_file)
    site = report["sites"][1]
    assert report["atoms"] == 48 and report["bytes"] == adapter_file.stat().st_size
    assert site["address"] == "L1" and site["addresses"] == "L1[0-15]" and site["atom_ids"] == list(range(16))
    assert site["form"] == "factored" and set(site["bytes_by_form"]) == {"dense", "factored"}
    assert len(site["importance"]) == 16 and len(site["firing"]) == 16 and all(0 <= rate <= 1 for rate in site["firing"])
    assert site["bytes"] > site["moments_bytes"] == 4 * 16 * 16
    assert report["metadata"]["base_family"] == "toy"


def test_inspect_draws(cli, adapter_file, tmp_path):
    picture, curve = tmp_path / "atoms.png", tmp_path / "curve.png"
    result = cli("inspect", adapter_file, "--picture", picture, "--curve", curve, "--keep", "25%")
    assert result.code == 0 and "keeps 12 of 48" in result.out
    assert all(min(Image.open(path).size) > 150 for path in (picture, curve))


def test_prune_keeps_addresses_and_shrinks_the_file(cli, adapter_file, tmp_path):
    out = tmp_path / "small.safetensors"
    result = cli("prune", adapter_file, "--keep", "0.1", "--out", out)
    assert result.code == 0, result.err
    assert "greedy, refitted" in result.out and "keeps 5 of 48 atoms" in result.out and "energy" in result.out
    report = inspected(cli, out)
    assert report["atoms"] == 5 and out.stat().st_size < 0.7 * adapter_file.stat().st_size
    kept = inspected(cli, adapter_file, "--keep", "0.1", "--order", "greedy")["selection"]["addresses"]
    assert ",".join(site["addresses"] for site in report["sites"] if site["atoms"]) == kept
    for site in report["sites"]:
        assert site["form"] in ("dense", "factored", "factored encoder, dense dictionary", "dense encoder, factored dictionary")
    assert len(load(out).sites) == 3


def test_prune_by_address_leaves_the_atoms_untouched(cli, adapter_file, tmp_path):
    out = tmp_path / "few.safetensors"
    assert cli("prune", adapter_file, "--atoms", "L0[3-5],L2[7]", "--out", out).code == 0
    before, after = load(adapter_file), load(out)
    assert after.sites["blocks.0"].atom_ids.tolist() == [3, 4, 5] and after.sites["blocks.1"].atoms == 0
    torch.testing.assert_close(after.sites["blocks.2"].dictionary()[0].float(), before.sites["blocks.2"].dictionary()[7].float(), atol=2e-3, rtol=2e-3)


def test_prune_invert_layers_per_site_and_threshold(cli, adapter_file, tmp_path):
    def kept(*options):
        out = tmp_path / "out.safetensors"
        result = cli("prune", adapter_file, *options, "--overwrite", "--out", out)
        assert result.code == 0, result.err
        return [len(site.atom_ids) for site in load(out).sites.values()]

    assert kept("--atoms", "L0[3]", "--invert") == [15, 16, 16]
    assert kept("--top", "4", "--per-site") == [4, 4, 4]
    assert kept("--layers", "L1-L2") == [0, 16, 16]
    assert kept("--keep", "50%", "--layers", "L2") == [0, 0, 8]
    assert kept("--top", "0") == [0, 0, 0]
    assert "no atom is kept" in cli("prune", adapter_file, "--top", "0", "--overwrite", "--out", tmp_path / "out.safetensors").err
    strongest = max(float(site.importance.max()) for site in load(adapter_file).sites.values())
    assert sum(kept("--threshold", str(strongest * 0.999))) == 1


def test_prune_without_moments_falls_back_to_importance_and_says_so(cli, adapter_file, tmp_path):
    plain = tmp_path / "plain.safetensors"
    save(load(adapter_file), plain, moments=False)
    result = cli("prune", plain, "--keep", "0.5", "--out", tmp_path / "half.safetensors")
    assert result.code == 0 and "order importance:" in result.out


def test_compose_puts_adapters_side_by_side(cli, adapter_file, tmp_path):
    out = tmp_path / "both.safetensors"
    result = cli("compose", f"cat={adapter_file}", f"style={adapter_file}:0.5", "--out", out)
    assert result.code == 0, result.err
    assert "style: 48 atoms at 3 sites, strength 0.5" in result.out
    report = inspected(cli, out)
    assert report["sites"][0]["addresses"] == "cat:L0[0-15]" and len(report["sites"]) == 6
    only = tmp_path / "cat.safetensors"
    assert cli("prune", out, "--atoms", "cat:L0", "--out", only).code == 0
    assert load(only).atom_count == 16


def test_an_address_names_the_stream_where_a_layer_has_several(cli, tmp_path):
    names = [SiteName("blocks.0", 0, "image"), SiteName("blocks.1", 0, "text")]
    path = tmp_path / "streams.safetensors"
    save(SparseAdapter.create(Toy(), names), path)
    assert [site["address"] for site in inspected(cli, path)["sites"]] == ["L0.image", "L0.text"]


@pytest.mark.parametrize("command", ["inspect", "prune"])
def test_a_selection_in_words_is_the_same_everywhere(cli, adapter_file, tmp_path, command):
    more = ["--out", tmp_path / "out.safetensors"] if command == "prune" else []
    result = cli(command, adapter_file, "--keep", "25%", "--order", "importance", *more)
    assert "keeps 12 of 48 atoms (25.0%)" in result.out
