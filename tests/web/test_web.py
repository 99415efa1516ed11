"""The front end's logic under node, and its types under tsc; skipped where these are not to be had."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
WEB = PROJECT / "web"
TYPESCRIPT = "5.9.3"
TSC = PROJECT / ".host" / f"typescript-{TYPESCRIPT}"  # ignored by git
OLDEST_NODE = 20


def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not installed")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.strip("v").split(".")[0]) < OLDEST_NODE:
        pytest.skip(f"node {version.strip()} is older than {OLDEST_NODE}")
    return found


def test_the_logic_agrees_with_the_vectors():
    files = sorted(str(path) for path in (PROJECT / "tests" / "web").glob("*.test.mjs"))
    run = subprocess.run([node(), "--test", *files], capture_output=True, text=True, cwd=PROJECT)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]


def test_the_types_hold():
    program = TSC / "node_modules" / "typescript" / "bin" / "tsc"
    if not program.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("npm is not installed, so there is no tsc")
        TSC.mkdir(parents=True, exist_ok=True)
        try:
            got = subprocess.run(
                [npm, "install", "--no-audit", "--no-fund", "--prefix", str(TSC), f"typescript@{TYPESCRIPT}"], capture_output=True, text=True, timeout=90
            )
        except subprocess.TimeoutExpired:
            pytest.skip("npm's registry did not answer within 90 s")
        if got.returncode != 0 or not program.exists():
            pytest.skip(f"typescript {TYPESCRIPT} cannot be had from npm's registry: {got.stderr[-200:]}")
    run = subprocess.run([node(), str(program), "-p", str(WEB)], capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"})
    assert run.returncode == 0, run.stdout


def test_nothing_is_loaded_from_elsewhere():
    for path in WEB.glob("*.js"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"https?://(?!www\.w3\.org)", text), path.name
        assert "eval(" not in text and "innerHTML" not in text, path.name
        for source in re.findall(r"(?:from|import)\s*\(?\s*[\"']([^\"']+)[\"']", text):
            assert source.startswith(("./", "../../scripts/")), f"{path.name}: {source}"
