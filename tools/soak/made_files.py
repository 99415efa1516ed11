"""Files that hypothesis makes: of any sizes and any texts, sound or nearly so, then changed as a mutator would."""

from __future__ import annotations

import random
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from . import hostile
from .bad_files import tried, warm_up
from .hunt import VALUES, hunt
from .model import StackModel
from .mutations import mutated
from .row import Row

_FIELDS = st.sampled_from(["sites", "members", "config", "format_version", "encoder", "component", "trigger_words", "lineage", "training", "title", "base_family", "note"])


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """The bytes of one."""
    options = {"atoms": draw(st.integers(0, 4)), "rank": draw(st.none() | st.integers(1, 3)), "d_in": draw(st.sampled_from([8, 8, 8, 1, 9])), "d_out": 8}
    fields = draw(st.dictionaries(_FIELDS, VALUES, max_size=draw(st.sampled_from([0, 0, 1, 3]))))
    content = hostile.adapter_file(draw(st.integers(1, 3)), draw(st.sampled_from([0, 0, 1, 2])), fields, **options)
    chance = draw(st.randoms(use_true_random=False))
    return mutated(content, chance) if draw(st.booleans()) else content


def made_files(count: int = 2000, minutes: float | None = None, seed: int = 0) -> tuple[Row, Counter[str]]:
    """`count` inputs, or as many as fit into `minutes`; beside the row, how many were refused, loaded, and used in each way."""
    row, ways, model, chance = Row("files of any sizes and texts, made by hypothesis, through the same"), Counter[str](), StackModel(), random.Random(seed)
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(place) / "a.safetensors"
        warm_up(path)

        def wrong(content: Any) -> str:
            path.write_bytes(content)
            return tried(path, model, chance, ways)

        hunt(row, files(), wrong, count, minutes, seed)
    return row, ways
