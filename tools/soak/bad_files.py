"""Damaged and malicious files through all that opens one: each is refused in a sentence or works, within the budget."""

from __future__ import annotations

import random
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

from ...sparsedict_core.adapter import SparseAdapter
from ...sparsedict_core.compose import compose
from ...sparsedict_core.errors import SparseDictError
from ...sparsedict_core.file_format import load, save
from ...sparsedict_core.gains import bake
from ...sparsedict_core.prune import prune
from ...sparsedict_core.selection import ORDERS, Selection, select
from . import hostile
from .budget import Use, look_into
from .model import StackModel, stack_adapter
from .mutations import mutated
from .row import Row

DRAWN = 0.01  # of the files that load: a picture costs more than all else


def bad_files(count: int = 20_000, minutes: float | None = None, seed: int = 0) -> tuple[Row, Counter[str]]:
    """`count` inputs, or as many as fit into `minutes`; beside the row, how many were refused, loaded, and used in each way."""
    row, chance, ways = Row("damaged and malicious files: loaded, inspected, listed, pruned, composed, attached"), random.Random(seed), Counter[str]()
    ends = None if minutes is None else time.monotonic() + 60 * minutes
    originals, model = _originals(), StackModel()
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of moments that are none, and of other bases
        path = Path(place) / "a.safetensors"
        warm_up(path)
        while row.tried < count if ends is None else time.monotonic() < ends:
            content = mutated(chance.choice(originals), chance)
            path.write_bytes(content)
            row.tried += 1
            wrong = tried(path, model, chance, ways)
            if wrong:
                row.violations.append(f"input {row.tried} of seed {seed}: {wrong}")
    return row, ways


def warm_up(path: Path) -> None:
    """What is imported and cached at first use, matplotlib above all, is not the first file's."""
    path.write_bytes(hostile.adapter_file(2))
    look_into(path)


def _originals() -> list[bytes]:
    """Real files of every form: both versions, composed, pruned, dense, half and full precision."""
    golden = Path(__file__).parents[2] / "tests" / "data"
    found = [path.read_bytes() for path in sorted(golden.glob("version-*.safetensors"))]
    found += [hostile.adapter_file(3, d_in=8, d_out=8, atoms=4, rank=2), hostile.adapter_file(2, members=2, d_in=8, d_out=8)]
    with tempfile.TemporaryDirectory() as place:
        for number, (dtype, share) in enumerate(((torch.float32, 1.0), (torch.float16, 0.3), (torch.bfloat16, 1.0))):
            adapter = stack_adapter(number)
            path = Path(place) / f"{number}.safetensors"
            save(prune(adapter, select(adapter, Selection(keep=share))), path, dtype)
            found.append(path.read_bytes())
    return found


def tried(path: Path, model: StackModel, chance: random.Random, ways: Counter[str]) -> str:
    """What went wrong; empty: nothing."""
    started, size = time.process_time(), path.stat().st_size
    try:
        adapter = look_into(path, chance.random() < DRAWN)
        over = Use(time.process_time() - started, None).over(size)
        ways["refused" if adapter is None else "loaded"] += 1
        if adapter is not None:
            name, use = chance.choice(list(_USES.items()))
            try:
                use(adapter, path, model, chance)
                ways[name] += 1
            except SparseDictError as error:
                ways["refused later"] += 1
                if not str(error).isprintable():
                    over += f" {error!r}"
        return over
    except Exception:
        return traceback.format_exc(limit=-2)


def _pruned(adapter: SparseAdapter, path: Path, model: StackModel, chance: random.Random) -> None:
    refit = chance.random() < 0.3
    prune(adapter, select(adapter, Selection(keep=chance.uniform(0.05, 1), order=chance.choice(ORDERS)), refit), refit)


def _composed(adapter: SparseAdapter, path: Path, model: StackModel, chance: random.Random) -> None:
    compose([("one", adapter, 0.5), ("two", load(path), -1.0)])


def _saved(adapter: SparseAdapter, path: Path, model: StackModel, chance: random.Random) -> None:
    save(bake(adapter, {key: torch.full((site.atoms,), 0.5) for key, site in adapter.sites.items()}), path, torch.float32, overwrite=True)
    load(path)


def _attached(adapter: SparseAdapter, path: Path, model: StackModel, chance: random.Random) -> None:
    x = torch.ones(1, 2, model.width)
    before = model(x)
    with adapter.attach(model, chance.choice((1.0, -0.5, 0.0))):
        model(x)
    assert torch.equal(model(x), before)


_USES: dict[str, Callable[[SparseAdapter, Path, StackModel, random.Random], None]] = {"pruned": _pruned, "composed": _composed, "saved again": _saved, "attached": _attached}
