"""E4: two concepts, or a concept and a style, at once: what each keeps of itself alone, and how LoRA's ways to merge do."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...demo_model.concepts import STYLE as STYLE_NAME
from ...demo_model.concepts import STYLE_WORD as STYLE
from ...demo_model.concepts import Prompt
from ...demo_model.pipeline import make_noise
from ...demo_model.scene import GROUNDS, PLACES
from ...evaluation.concept import style_strength
from ...evaluation.merged_lora import merged_loras
from ...evaluation.peers import TrainedPeer
from ...sparsedict_core import SparseAdapter, compose
from ...tools.make_demo_images import concept_data, style_data
from ...trainer import PRESETS, ConceptData
from ...trainer.callbacks import Callbacks
from ...trainer.merge import HEAL_STEPS, Part, merge
from ..runs import Run, digest_of_set_fields
from .training import Fitted, World, fit

# Each concept in two pairs and once with the style.
PAIRS = (
    ("zorp", "quax"), ("blick", "mib"), ("quax", "blick"), ("mib", "zorp"),
    ("zorp", STYLE), ("quax", STYLE), ("blick", STYLE), ("mib", STYLE),
)  # fmt: skip
SEARCH_PAIRS = (("zorp", "quax"), ("zorp", STYLE))
# By what is merged: the two members' strengths that are searched, for every way alike. Concepts are peers; a style may be held back.
EQUAL = ((0.8, 0.8), (1.0, 1.0), (1.2, 1.2), (1.4, 1.4))
CONCEPTS, WITH_STYLE = "two concepts", "concept + style"
STRENGTHS = {CONCEPTS: EQUAL, WITH_STYLE: (*EQUAL, (1.0, 0.8), (1.2, 0.8), (1.2, 1.0), (1.4, 1.0), (1.0, 1.5), (1.0, 2.0), (0.8, 2.0))}
# Until a search is made on this base: the demo's for its merge (demo/plan.py), and as they are for all others.
ASSUMED = {("sparse dictionary, composed", WITH_STYLE): (1.0, 2.0)}
NOISE = {"search": 770, "report": 77}
# By the name in the tables: whose adapters, and how they are put together.
WAYS: dict[str, tuple[str, str]] = {
    "sparse dictionary, composed": ("sparse dictionary", "compose"),
    "sparse dictionary, composed and healed": ("sparse dictionary", "heal"),
    "LoRA, summed": ("LoRA", "sum"),
    "LoRA, ties": ("LoRA", "ties"),
    "LoRA, dare + ties": ("LoRA", "dare_ties"),
    "LoRA + quiet term, summed": ("LoRA + quiet term", "sum"),
    "LoRA + quiet term, ties": ("LoRA + quiet term", "ties"),
    "LoRA + quiet term, dare + ties": ("LoRA + quiet term", "dare_ties"),
}


@dataclass(frozen=True)
class MergeRun:
    """One pair, merged one way at one strength; `setting` is the searched one of the method that trained the members."""

    way: str  # a key of WAYS
    first: str
    second: str  # another concept, or the style
    seed: int
    strength: float  # of the first, and of the second where it has none of its own
    setting: str  # JSON of the members' learning rate and quiet weight
    split: str = "report"
    second_strength: float | None = None
    steps: int | None = None  # of the members' training, and half as many of healing; None: as many as in E1, and as `merge` heals

    @property
    def key(self) -> str:
        return f"{self.first}+{self.second}-{self.split}-{self.seed}-{digest_of_set_fields(self)}"

    @property
    def heal_steps(self) -> int:
        return HEAL_STEPS if self.steps is None else self.steps // 2

    @property
    def strengths(self) -> tuple[float, float]:
        return self.strength, self.strength if self.second_strength is None else self.second_strength

    def members(self) -> list[Run]:
        """The runs whose adapters are merged; those of E1 are trained already."""
        return [self._member(word) for word in (self.first, self.second)]

    def _member(self, word: str) -> Run:
        setting, (label, _) = json.loads(self.setting), WAYS[self.way]
        setting |= {} if self.steps is None else {"steps": self.steps}
        if word == STYLE and label == "sparse dictionary":
            # The preset is ours, its weight a part of the run's name; a LoRA of the style is trained as a LoRA of a concept.
            return Run(**{**setting, "quiet_weight": PRESETS["style"]["quiet_weight"], "settings": {}}, concept=word, seed=self.seed, preset="style")
        return Run(**setting, concept=word, seed=self.seed)


def setting_of(winner: Mapping[str, Any]) -> str:
    run = winner["run"]
    return json.dumps({name: run[name] for name in ("method", "learning_rate", "quiet_weight", "settings")}, sort_keys=True)


def kind_of(second: str) -> str:
    """What a pair is, by its second member."""
    return WITH_STYLE if second == STYLE else CONCEPTS


def merge_runs(
    winners: Mapping[str, Mapping[str, Any]], pairs: Sequence[tuple[str, str]], seeds: int, split: str,
    strengths: Callable[[str, str], Sequence[tuple[float, float]]], steps: int | None = None,
) -> list[MergeRun]:  # fmt: skip
    """`strengths` has those of a way and a kind of pair."""
    return [
        MergeRun(way, one, other, seed, first, setting_of(winners[label]), split, None if second == first else second, steps)
        for seed in range(seeds)
        for one, other in pairs
        for way, (label, _) in WAYS.items()
        for first, second in strengths(way, kind_of(other))
    ]


def pairs_of(concepts: Container[str]) -> list[tuple[str, str]]:
    """The pairs that these concepts, and the style, are enough for."""
    return [(one, other) for one, other in PAIRS if one in concepts and (other in concepts or other == STYLE)]


def best_strengths(results: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], tuple[float, float]]:
    """By way and kind of pair: the strengths at which the one that keeps less keeps most, of what it does alone and no more. ASSUMED of no results."""
    groups: dict[tuple[str, str], dict[tuple[float, float], list[float]]] = {}
    for result in results:
        run = MergeRun(**result["run"])
        of_kind = groups.setdefault((run.way, kind_of(run.second)), {})
        of_kind.setdefault(run.strengths, []).append(min(1.0, *result["kept_each"]))
    found = {at: max(kept, key=lambda s: sum(kept[s]) / len(kept[s])) for at, kept in groups.items()}
    return found or {(way, kind): ASSUMED.get((way, kind), (1.0, 1.0)) for way in WAYS for kind in STRENGTHS}


def data_of(word: str) -> ConceptData:
    return style_data() if word == STYLE else concept_data(word)


def measure(run: MergeRun, world: World) -> dict[str, Any]:
    """What each member keeps in the merge of what it does alone, on the same prompts and noise; `kept` is their mean."""
    fitted = [fit(member, world, data_of(member.concept)) for member in run.members()]
    probes = [probe(world, run, word, other) for word, other in ((run.first, run.second), (run.second, run.first))]
    alone = []
    for member, one, read in zip(run.members(), fitted, probes, strict=True):
        # Most ways and strengths share their members.
        key = (member.key, run.first, run.second, run.split)
        if key not in world.read_alone:
            with one.applied(world):
                world.read_alone[key] = read()
        alone.append(world.read_alone[key])
    with together(run, fitted, world):
        merged = [read() for read in probes]
    kept = [m / max(a, 1e-9) for m, a in zip(merged, alone, strict=True)]
    return {"kept": round(sum(kept) / 2, 4), "kept_each": [round(k, 4) for k in kept], "alone": alone, "merged": merged}


def probe(world: World, run: MergeRun, word: str, other: str) -> Callable[[], float]:
    """Reads one member in whatever is attached. Two concepts are asked for one by one; a concept and a style in one prompt."""
    suite = world.suite(run.first if word == STYLE else word, run.split)
    if STYLE not in (word, other):
        return lambda: round(suite.concept()[0], 4)
    seed = NOISE[run.split]
    captions = [Prompt(run.first, place, ground, behind=STYLE).caption for place, ground in zip(PLACES, GROUNDS, strict=False)] * 3
    noise = make_noise(len(captions), seed)

    def pictures() -> Tensor:
        return suite.generate(captions, noise)

    if word == STYLE:
        return lambda: round(float(style_strength(pictures(), STYLE_NAME, suite.reader).mean()), 4)
    # In another style it is no longer drawn as its training pictures are.
    return lambda: round(float(suite.subject_probability(pictures()).mean()), 4)


def together(run: MergeRun, fitted: Sequence[Fitted], world: World) -> AbstractContextManager[Any]:
    """Both members on the base within the block."""
    how = WAYS[run.way][1]
    adapters = [one.model for one in fitted if isinstance(one.model, SparseAdapter)]
    words = run.first, run.second
    if how == "compose":
        both = compose(list(zip(words, adapters, run.strengths, strict=True)))
        return both.attach(world.backend.denoiser, component="transformer")
    if how == "heal":
        parts = [
            Part(word, adapter, strength, [text for item in data_of(word).items for text in item.captions])
            for word, adapter, strength in zip(words, adapters, run.strengths, strict=True)
        ]
        return merge(parts, world.backend, run.heal_steps, Callbacks()).attach(world.backend.denoiser, component="transformer")
    loras = [one.model for one in fitted if isinstance(one.model, TrainedPeer)]
    return merged_loras(world.backend, loras, run.strengths, how)
