"""On the real web UIs, where a checkout and its Python are given; tests/webui/prepare_host.py makes both from source folders.

SPARSEDICT_A1111_ROOT, SPARSEDICT_FORGE_ROOT and SPARSEDICT_NEO_ROOT name folders made by it.
"""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
HOSTS = {"A1111": "SPARSEDICT_A1111_ROOT", "Forge": "SPARSEDICT_FORGE_ROOT", "Forge Neo": "SPARSEDICT_NEO_ROOT"}


def folder_of(host):
    variable = HOSTS[host]
    if variable not in os.environ:
        pytest.skip(f"the real {host} is tried only where {variable} names a folder that tests/webui/prepare_host.py has made")
    return Path(os.environ[variable])


def data_folder(prepared, data):
    """A web UI's own folder: two checkpoints, which are one, and this pack among its extensions."""
    checkpoints = data / "models" / "Stable-diffusion"
    checkpoints.mkdir(parents=True)
    for file in (prepared / "checkpoint").glob("tiny.*"):
        (checkpoints / file.name).symlink_to(file)
        (checkpoints / f"other{file.suffix}").symlink_to(file)
    (data / "extensions").mkdir()
    (data / "extensions" / "SparseDict").symlink_to(PROJECT)
    return data


def report_of(command, host):
    """What a script has seen inside the host's own Python."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    run = subprocess.run(command, capture_output=True, text=True, env={**environment, "HF_HUB_OFFLINE": "1"}, timeout=900)
    lines = [line for line in run.stdout.splitlines() if line.startswith("REPORT ")]
    assert lines, f"{host} did not get to the end:\n{run.stdout[-2000:]}\n{run.stderr[-4000:]}"
    return json.loads(lines[0].removeprefix("REPORT "))


@pytest.fixture(scope="module", params=list(HOSTS))
def seen(request, tmp_path_factory):
    """What happened in the host, drawn once."""
    prepared = folder_of(request.param)
    data = data_folder(prepared, tmp_path_factory.mktemp("data"))
    return report_of([prepared / "venv/bin/python", PROJECT / "tests/webui/in_the_host.py", prepared / "host", data], request.param)


FAMILIES = {
    "A1111": {"sd3", "sdxl"},
    "Forge": {"sd15", "sdxl", "sd3", "flux", "chroma"},
    "Forge Neo": {"sd15", "sdxl", "flux", "flux2", "chroma", "qwen_image", "lumina2", "z_image", "Anima"},
}


@pytest.mark.parametrize("host", list(HOSTS))
def test_every_familys_sites_are_those_that_are_seen_at_work(host):
    """Small models of the host's own classes: where the pack says that the attention outputs are, and what an adapter does there."""
    prepared = folder_of(host)
    found = report_of([prepared / "venv/bin/python", PROJECT / "tests/webui/families_in_the_host.py", prepared / "host", PROJECT], host)
    assert found.keys() == FAMILIES[host]
    for family, result in found.items():
        assert result["family"] == family and result["sites"] > 0 and not result["named, not seen"] and not result["seen, not named"], (family, result)
        assert result["changed"] and result["repeatable"] and result["zero"] and result["restored"], (family, result)


def test_a_tag_draws_another_picture_and_the_same_again(seen):
    pictures = seen["pictures"]
    assert pictures["tag"] == pictures["again"] == pictures["by the script's argument"] != pictures["base"]
    different = {name: pictures[name] for name in ("base", "tag", "quarter", "early", "twice")}
    assert len(set(different.values())) == 5, different


@pytest.mark.parametrize("when", ["removed", "zero", "after an error", "made without", "after hires", "after a lora", "after an interrupt", "after a reload of the checkpoint", "after another checkpoint", "while training", "after training", "after what was trained"])
def test_the_base_is_bit_equal(seen, when):
    assert seen["pictures"][when] == seen["pictures"]["base"], seen["errors"]


def test_hires_and_other_tags_go_with_it(seen):
    pictures = seen["pictures"]
    assert pictures["lora and tag"] == pictures["lora and tag again"] and pictures["lora"] == pictures["lora alone again"]
    assert len({pictures[name] for name in ("base", "tag", "lora", "lora and tag")}) == 4
    assert pictures["hires"] == pictures["hires again"] != pictures["hires base"]
    assert pictures["with a missing lora"] == pictures["tag"] == pictures["tag after a reload of the checkpoint"]
    assert pictures["on another checkpoint"] == pictures["tag"]  # its weights are the same


def test_mistakes_are_shown_and_stop_the_picture(seen):
    assert "near names are zorp" in seen["errors"]["unknown"] and "unknown" not in seen["pictures"]
    assert "there is no layer L99" in seen["errors"]["wrong address"]


def test_the_pictures_text_tells_how_to_make_it_again(seen):
    assert "<sparsedict:zorp:0.8>" in seen["infotext"]["tag"] and "SparseDict hashes: " in seen["infotext"]["tag"]
    assert "SparseDict" not in seen["infotext"]["removed"]
    pasted, tags = seen["pasted"], "<sparsedict:zorp:0.8:keep=0.25> <sparsedict:styles/ink, wet:0.4:atoms=L0.self[1]+L1.cross[2]>"
    assert pasted["Prompt"] == f"a cat {tags}"
    first, second = re.fullmatch("zorp: ([0-9a-f]{12}), styles/ink, wet: ([0-9a-f]{12})", pasted["SparseDict hashes"]).groups()
    assert first == second  # a copy of the same file


def test_all_attention_outputs_are_sites_and_no_hook_is_left(seen):
    assert seen["sites"] == seen["outputs"] > 0
    assert seen["hooked"] == seen["hooks before"] + seen["sites"] and seen["left"] == seen["hooks before"]


def test_card_axes_and_routes(seen):
    assert seen["card"]["name"] == "zorp" and seen["card"]["prompt"].startswith('"<sparsedict:zorp:"') and '" zorp"' in seen["card"]["prompt"]
    assert seen["card"]["description"] == "Zorp" and "thumbnail?name=zorp" in seen["card"]["preview"]
    assert seen["card html"] and len(seen["axes"]) == 4
    assert seen["api"]["script"] == "// @ts-check" and seen["api"]["no script"] == 404
    assert "zorp" in seen["api"]["list"] and seen["api"]["atoms"] == 16 * seen["sites"]
    assert seen["api"]["unknown"] == 404 and seen["api"]["thumbnail"] == "image/png"


def test_it_trains_on_the_loaded_checkpoint_as_one_job(seen):
    trained, stopped, resumed = seen["trained"], seen["stopped"], seen["resumed"]
    assert trained["file"] == "made.safetensors" and len(trained["points"]) == 2 and trained["previews"] == 1 and not trained["ended"], trained
    assert seen["preview"] == "image/jpeg" and seen["waited"] and "pictures wait" in seen["said"]
    assert "going on already" in seen["second"] and "is no folder" in seen["no pictures"]
    assert seen["stopping"] == 200 and 1 <= stopped["stopped"] < 40 and stopped["file"] == "more.safetensors"
    assert stopped["stopped"] < resumed["stopped"] < 40 and resumed["file"] == "more.safetensors" and resumed["points"][0]["step"] == stopped["stopped"] + 1
    assert seen["pictures"]["what was trained"] != seen["pictures"]["base"] and seen["hooks after training"] == seen["hooks before"]
