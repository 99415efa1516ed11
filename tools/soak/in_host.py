"""The part of the soak that needs ComfyUI, in a process of its own: the host's modules take names and settings for themselves."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from ..comfy_host import default_root
from ..host_in_process import make_base, start
from .row import Row


class InHost:
    """So many prompts and requests, in a process that begins at once and goes on beside the caller's work."""

    def __init__(self, prompts: int, requests: int, seed: int = 0) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        if (default_root() / "main.py").exists():
            self._place = tempfile.TemporaryDirectory()
            self._said, self._log = (Path(self._place.name) / name for name in ("said", "log"))
            command = [sys.executable, "-m", __spec__.name, str(prompts), str(requests), str(seed)]
            with self._said.open("wb") as said, self._log.open("wb") as log:
                self._process = subprocess.Popen(command, stdout=said, stderr=log, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})

    def rows(self) -> list[tuple[Row, str]]:
        """Waits for the end; each row with its note. Nothing was tried where no ComfyUI is, which the row's name says."""
        if self._process is None:
            return [(Row("prompts and requests in ComfyUI: none, as it is not here (python3 dev.py comfy --setup-only)"), "")]
        code = self._process.wait()
        with self._place:
            try:
                return [(Row(**row), note) for row, note in json.loads(self._said.read_text().splitlines()[-1])]
            except (ValueError, IndexError):
                return [(Row("prompts and requests in ComfyUI", 1, [f"the process ended with {code}: {self._log.read_text()[-3000:]}"]), "")]


def main(arguments: list[str]) -> int:
    from .prompts import prompts
    from .requests import requests

    prompt_count, request_count, seed = map(int, arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        base = make_base(Path(place))
        start(default_root(), base)
        import nodes

        from ...nodes import SparseDictExtension

        for node in asyncio.run(SparseDictExtension().get_node_list()):
            nodes.NODE_CLASS_MAPPINGS[node.GET_SCHEMA().node_id] = node
        rows = [prompts(base / "models" / "sparse_dicts", prompt_count, seed), requests(base, request_count, seed=seed)]
    print("\n" + json.dumps([(vars(row), note) for row, note in rows]), flush=True)
    os._exit(0)  # the interpreter would go down before the host's models, which it says at length


if __name__ == "__main__":
    main(sys.argv[1:])
