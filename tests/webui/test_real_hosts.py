"""On the real web UIs, where a checkout and its Python are given; tests/webui/prepare_host.py makes both from source folders.

SPARSEDICT_A1111_ROOT and SPARSEDICT_FORGE_ROOT name folders made by it.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
HOSTS = {"A1111": "SPARSEDICT_A1111_ROOT", "Forge": "SPARSEDICT_FORGE_ROOT"}


@pytest.fixture(scope="module", params=list(HOSTS))
def seen(request, tmp_path_factory):
    """What happened in the host, drawn once."""
    variable = HOSTS[request.param]
    if variable not in os.environ:
        pytest.skip(f"the real {request.param} is tried only where {variable} names a folder that tests/webui/prepare_host.py has made")
    prepared = Path(os.environ[variable])
    data = tmp_path_factory.mktemp("data")
    (data / "models").mkdir()
    (data / "models" / "Stable-diffusion").symlink_to(prepared / "checkpoint")
    (data / "extensions").mkdir()
    (data / "extensions" / "SparseDict").symlink_to(PROJECT)
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    command = [prepared / "venv/bin/python", PROJECT / "tests/webui/in_the_host.py", prepared / "host", data]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
    lines = [line for line in run.stdout.splitlines() if line.startswith("REPORT ")]
    assert lines, f"{request.param} did not get to the end:\n{run.stdout[-2000:]}\n{run.stderr[-4000:]}"
    return json.loads(lines[0].removeprefix("REPORT "))


def test_a_tag_draws_another_picture_and_the_same_again(seen):
    pictures = seen["pictures"]
    assert pictures["tag"] == pictures["again"] != pictures["base"]
    different = {name: pictures[name] for name in ("base", "tag", "quarter", "early", "twice")}
    assert len(set(different.values())) == 5, different


@pytest.mark.parametrize("when", ["removed", "zero", "after an error", "made without", "after hires", "after an interrupt", "after a reload of the checkpoint"])
def test_the_base_is_bit_equal(seen, when):
    assert seen["pictures"][when] == seen["pictures"]["base"], seen["errors"]


def test_hires_and_other_tags_go_with_it(seen):
    pictures = seen["pictures"]
    assert pictures["hires"] == pictures["hires again"] != pictures["hires base"]
    assert pictures["with a missing lora"] == pictures["tag"] == pictures["tag after a reload of the checkpoint"]


def test_mistakes_are_shown_and_stop_the_picture(seen):
    assert "near names are zorp" in seen["errors"]["unknown"] and "unknown" not in seen["pictures"]
    assert "there is no layer L99" in seen["errors"]["wrong address"]


def test_the_pictures_text_tells_how_to_make_it_again(seen):
    assert "<sparsedict:zorp:0.8>" in seen["infotext"]["tag"] and "SparseDict hashes: " in seen["infotext"]["tag"]
    assert "SparseDict" not in seen["infotext"]["removed"]


def test_all_attention_outputs_are_sites_and_no_hook_is_left(seen):
    assert seen["sites"] == 32 and seen["left"] == 0


def test_card_axes_and_routes(seen):
    assert seen["card"]["name"] == "zorp" and seen["card"]["prompt"].startswith('"<sparsedict:zorp:"') and '" zorp"' in seen["card"]["prompt"]
    assert seen["card"]["description"] == "Zorp" and "thumbnail?name=zorp" in seen["card"]["preview"]
    assert len(seen["axes"]) == 4
    assert seen["api"]["list"][0]["name"] == "zorp" and seen["api"]["atoms"] == 512
    assert seen["api"]["unknown"] == 404 and seen["api"]["thumbnail"] == "image/png"
