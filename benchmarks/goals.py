"""The table of all goals, reached or missed, and why those that were missed were."""

from __future__ import annotations

from pathlib import Path

from .formatting import table
from .host.goals import host_goals
from .layer.goals import layer_goals
from .world.goals import world_goals


def goals_table(results: Path) -> str:
    """All goals that there are results for; what the peers did is in the tables below it."""
    goals = [*world_goals(results), *layer_goals(results), *host_goals(results)]
    cells = [[goal.text, goal.asked, goal.found_in_words, f"{len(goal.values)} {goal.unit}", goal.state] for goal in goals]
    causes: dict[str, list[str]] = {}
    for goal in goals:
        if not goal.reached and goal.cause:
            causes.setdefault(goal.cause, []).append(short(goal.text))
    missed = "\n".join(f"- *{'; '.join(dict.fromkeys(texts))}.* {cause}" for cause, texts in causes.items())
    parts = [table(["goal", "bound", "found", "over", "state"], cells)]
    if missed:
        parts.append(f"Why, as far as it was found:\n\n{missed}")
    return "\n\n".join(parts)


def short(text: str) -> str:
    """A goal's name without the model and the details: those of one kind share it."""
    table_name, _, what = text.partition(": ")
    return f"{table_name.partition(',')[0]}: {what.partition(' (')[0]}"
