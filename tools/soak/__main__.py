"""`python3 dev.py soak --minutes 60`: damage for so long, and a table of what held."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import torch

from .bad_files import bad_files
from .cycles import cycles
from .full_disks import full_disks
from .in_host import InHost
from .kills import kills
from .made_files import made_files
from .row import Row

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- made by python3 dev.py soak -->", "<!-- end of what is made -->"
#: Of the time. The full disks are as many as there are sizes, and ComfyUI runs beside all.
FILES, MADE_FILES, CYCLES, KILLS = 0.35, 0.1, 0.05, 0.35
PROMPTS, REQUESTS = 200 / 60, 3000 / 60  # a minute of the whole, in ComfyUI


def main(arguments: list[str]) -> int:
    """1 where anything did not hold."""
    options = argparse.ArgumentParser(prog="dev.py soak", description=__doc__)
    options.add_argument("--minutes", type=float, default=60.0, help="how long, about [default: 60]")
    options.add_argument("--seed", type=int, default=0, help="of all that is random")
    options.add_argument("--write", action="store_true", help="put the table into docs/reliability.md")
    chosen = options.parse_args(arguments)
    torch.set_num_threads(1)
    started, rows, notes = time.monotonic(), [], []

    def done(row: Row, note: str = "") -> None:
        rows.append(row)
        notes.append(note)
        print(f"[soak] {row.name}: {row.tried:,} tried, {len(row.violations)} did not hold {note}", flush=True)

    host = InHost(round(PROMPTS * chosen.minutes), round(REQUESTS * chosen.minutes), chosen.seed)
    for tried, share in ((bad_files, FILES), (made_files, MADE_FILES)):
        found, ways = tried(minutes=share * chosen.minutes, seed=chosen.seed)
        done(found, ", ".join(f"{count:,} {way}" for way, count in ways.most_common()))
    turned, grown = cycles(minutes=CYCLES * chosen.minutes, seed=chosen.seed)
    done(turned, f"{grown / 1e6:.1f} MB more memory after them")
    done(kills(minutes=KILLS * chosen.minutes, seed=chosen.seed), "each run that went on ended with the unbroken run's bits")
    done(full_disks(), "nothing half-written was left")
    for row, note in host.rows():
        done(row, note)
    minutes = (time.monotonic() - started) / 60
    print(table(rows, notes, minutes))
    if chosen.write:
        text = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(text[: text.index(BEGIN) + len(BEGIN)] + "\n" + table(rows, notes, minutes) + text[text.index(END) :], encoding="utf-8")
    for row in rows:
        for violation in row.violations[:20]:
            print(f"\n{row.name}\n{violation}", file=sys.stderr)
    return int(any(row.violations for row in rows))


def table(rows: list[Row], notes: list[str], minutes: float) -> str:
    """Markdown: what was tried, how often, what held."""
    load = os.getloadavg()[2] if hasattr(os, "getloadavg") else None
    lines = [
        f"One run of {minutes:.0f} minutes on {os.cpu_count()} cores, torch {torch.__version__}, {sys.platform}"
        + ("." if load is None else f"; the machine's load at its end was {load:.1f}."), "",
        "| what | tried | held | did not hold | |", "| --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    lines += [f"| {row.name} | {row.tried:,} | {row.held:,} | {len(row.violations)} | {note} |" for row, note in zip(rows, notes, strict=True)]
    lost = sum(len(row.violations) for row in rows)
    return "\n".join([*lines, "", "Nothing was lost." if not lost else f"{lost} times something did not hold; see the run's output.", ""])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
