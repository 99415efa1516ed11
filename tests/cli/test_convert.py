"""`convert` both ways, and `--format lora`, on LoRAs of the demo base."""

import pytest
import torch
from lora.bad_files import NAMES, make, words_of
from lora.lora_files import kohya_style, linears, random_lora, write

from sparsedict.sparsedict_core import load


@pytest.fixture(scope="module")
def lora(tmp_path_factory):
    from sparsedict.trainer.backends import open_backend

    modules = linears(open_backend("demo").denoiser)
    few = {path: modules[path] for path in list(modules)[::4]}
    tensors = kohya_style(random_lora(few, rank=2, size=0.05), "lora_transformer_")
    return write(tensors, tmp_path_factory.mktemp("lora") / "zorp.safetensors", **{"modelspec.trigger_phrase": "zorp"})


@pytest.fixture
def dictionary(cli, lora, tmp_path):
    out = tmp_path / "dict.safetensors"
    result = cli("convert", lora, "--out", out)
    assert result.code == 0, result.err
    return out


def test_a_file_is_not_converted_onto_itself(cli, dictionary):
    before = dictionary.read_bytes()
    result = cli("convert", dictionary, "--out", dictionary, "--overwrite")
    assert result.code == 1 and "would be lost" in result.err and dictionary.read_bytes() == before


def test_the_base_that_nobody_named_is_named(cli, tmp_path):
    from core.tiny_denoisers import DENOISERS
    from lora.lora_files import kohya_style, linears, random_lora, write

    file = write(kohya_style(random_lora(linears(DENOISERS["sd15"][0]()[0]))), tmp_path / "sd15.safetensors")
    result = cli("convert", file, "--out", tmp_path / "out.safetensors")
    assert result.code == 1 and "no --model was given" in result.err
    result = cli("convert", file, "--out", tmp_path / "out.safetensors", "--model", "demo")
    assert result.code == 1 and "no --model was given" not in result.err


def test_there_and_back(cli, lora, dictionary, tmp_path):
    adapter = load(dictionary)
    assert adapter.metadata["base_family"] == "sd3" and adapter.trigger_words == ["zorp"]
    result = cli("convert", dictionary, "--weights", "fp32", "--out", tmp_path / "back.safetensors")
    assert result.code == 0 and "it is the dictionary, to float32's rounding" in result.out
    from safetensors.torch import load_file

    before, after = load_file(str(lora)), load_file(str(tmp_path / "back.safetensors"))
    for key in [key.removesuffix(".alpha") for key in before if key.endswith(".alpha")]:
        change = [t[f"{key}.lora_up.weight"].double() @ t[f"{key}.lora_down.weight"].double() * float(t[f"{key}.alpha"]) / 2 for t in (before, after)]
        torch.testing.assert_close(*change, rtol=1e-5, atol=1e-7)


def test_prune_and_compose_to_a_lora(cli, dictionary, tmp_path):
    result = cli("prune", dictionary, "--keep", "50%", "--format", "lora", "--out", tmp_path / "half.safetensors")
    assert result.code == 0, result.err
    assert "a LoRA of" in result.out
    result = cli("compose", f"a={dictionary}", f"b={dictionary}:0.5", "--format", "lora", "--out", tmp_path / "both.safetensors")
    assert result.code == 0, result.err
    assert cli("convert", tmp_path / "both.safetensors", "--out", tmp_path / "again.safetensors").code == 0


def test_atoms_ordered_and_turned_by_a_prompt(cli, lora, tmp_path):
    out = tmp_path / "turned.safetensors"
    result = cli("convert", lora, "--prompt", "a flat fox", "--rotation", "varimax", "--out", out)
    assert result.code == 0, result.err
    site = next(iter(load(out).sites.values()))
    assert site.moments is not None and bool((site.importance > 0).all())


def test_sites_without_atoms_can_be_probed(cli, dictionary, tmp_path):
    """A LoRA may change nothing at a Linear that it names, and pruning may take all atoms of one."""
    few = tmp_path / "few.safetensors"
    assert cli("prune", dictionary, "--top", "1", "--out", few).code == 0
    result = cli("probe", few, "a flat fox", "--out", tmp_path / "probe.png")
    assert result.code == 0, result.err


@pytest.mark.parametrize(
    "options, message",
    [
        (["--rotation", "ica"], "--rotation needs a prompt"),
        (["--out", "x.txt"], "should end in .safetensors"),
    ],
)
def test_wrong_options(cli, lora, tmp_path, options, message):
    result = cli("convert", lora, "--out", tmp_path / "out.safetensors", *options)
    assert result.code == 1 and message in result.err and not list(tmp_path.iterdir())


def test_a_lora_for_another_base_leaves_nothing(cli, tmp_path):
    path = write(kohya_style({"down_blocks.0.attentions.0.proj_in": (torch.ones(2, 4), torch.ones(4, 2))}), tmp_path / "other.safetensors")
    result = cli("convert", path, "--out", tmp_path / "out.safetensors")
    assert result.code == 1 and "none of its 1 modules fits" in result.err
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_lora_for_the_base(name, cli, tmp_path):
    """One sentence with the file's name, and nothing is left; what is fine is converted."""
    path, words = make(name, tmp_path), words_of(name)
    result = cli("convert", path, "--out", tmp_path / "made" / "out.safetensors")
    if words is None:
        assert result.code == 0 and "352 atoms at 45 sites" in result.out, result.err
    else:
        assert result.code == 1 and result.err.startswith("Error: ") and result.err.count("\n") == 1 and str(path) in result.err
        assert all(word in result.err for word in words), result.err
        assert [left.name for left in tmp_path.rglob("*") if left.is_file()] == [path.name]


def test_gated_dictionaries_need_a_base(cli, tmp_path):
    from toy_adapters import toy_adapter

    from sparsedict.sparsedict_core import save

    save(toy_adapter(), tmp_path / "gated.safetensors")
    result = cli("prune", tmp_path / "gated.safetensors", "--keep", "50%", "--format", "lora", "--out", tmp_path / "out.safetensors")
    assert result.code == 1 and "thresholds" in result.err and not (tmp_path / "out.safetensors").exists()
