"""The host's conditioning, row by row: copied for autograd, padded, joined into a batch, and grouped by what fits into one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def own(value: Any) -> Any:
    """A conditioning value that autograd can use: the host's come from inference mode."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, list):
        return [own(item) for item in value]
    return value


def padded(texts: dict[str, Any], length: int) -> dict[str, Any]:
    """A text (1, n, d) with zeros up to `length`, and a mask of what is text."""
    text = texts["cross_attn"]
    mask = texts.get("attention_mask")
    mask = torch.ones(1, text.shape[1]) if mask is None else mask
    more = length - text.shape[1]
    return {**texts, "cross_attn": nn.functional.pad(text, (0, 0, 0, more)), "attention_mask": nn.functional.pad(mask, (0, more))}


def joined(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The host's conditions of several rows as one batch; None where they have other shapes."""
    whole = {}
    for name in rows[0]:
        conditions = [row[name] for row in rows]
        first = conditions[0]
        if type(first).__name__ == "CONDConstant":
            # Counts, such as the number of tokens of the longest text.
            whole[name] = max(c.cond for c in conditions) if isinstance(first.cond, int | float) else first.cond
            continue
        if not all(first.can_concat(condition) for condition in conditions[1:]):
            return None
        whole[name] = first.concat(conditions[1:])
    return whole


def same_shapes(texts: list[dict[str, Any]]) -> list[list[int]]:
    """Rows that the host can sample in one batch: texts of one shape, and all else the same."""
    groups: dict[str, list[int]] = {}
    for index, values in enumerate(texts):
        parts = [f"{k}:{tuple(v.shape) if isinstance(v, Tensor) else v!r}" for k, v in sorted(values.items())]
        # Tensors that are not one row each cannot be joined along the batch.
        single = all(v.shape[:1] == (1,) for v in values.values() if isinstance(v, Tensor))
        groups.setdefault("|".join(parts) if single else f"alone {index}", []).append(index)
    return list(groups.values())


def entry(texts: list[dict[str, Any]]) -> list[list[Any]]:
    """A CONDITIONING value of which each row of the batch takes its own text."""
    joint = {k: torch.cat([s[k] for s in texts]) if isinstance(v, Tensor) and len(texts) > 1 else v for k, v in texts[0].items()}
    return [[joint.pop("cross_attn"), joint]]
