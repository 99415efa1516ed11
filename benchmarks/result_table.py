"""The results of one table: a file of JSON lines, sorted by key, so that two runs' files differ in the lines that differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from filelock import FileLock

from ..sparsedict_core.atomic_write import write_atomically

RESULTS = Path(__file__).with_name("results")


class ResultTable:
    """`results/NAME.jsonl`. A key decides a line: putting it again replaces it. Several processes may put at once."""

    def __init__(self, name: str, results: Path = RESULTS) -> None:
        self.path = results / f"{name}.jsonl"

    def get(self, key: str) -> dict[str, Any] | None:
        """The result of `key`; None: there is none."""
        return self.lines().get(key)

    def put(self, key: str, result: dict[str, Any]) -> None:
        """Write `result` at once, so that what is killed goes on after it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_suffix(".lock")):
            lines = self.lines() | {key: result}
            text = "".join(json.dumps({"key": name} | lines[name]) + "\n" for name in sorted(lines))
            write_atomically(self.path, text.encode())

    def lines(self) -> dict[str, dict[str, Any]]:
        """All results by key, in the keys' order."""
        if not self.path.exists():
            return {}
        parsed = [json.loads(line) for line in self.path.read_text("utf-8").splitlines()]
        return {line.pop("key"): line for line in parsed}


def read_results(table: str, results: Path = RESULTS) -> list[dict[str, Any]]:
    """All results of a table, by key."""
    return list(ResultTable(table, results).lines().values())
