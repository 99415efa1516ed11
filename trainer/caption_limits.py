"""What of the captions a model's text encoders read: they cut long texts without a word."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from .backends.base import Backend

PARTS = ("", "_2", "_3")  # diffusers' names for a pipeline's tokenizers
UNLIMITED = 10**6  # tokenizers without a limit say a huge number
SHOWN = 40  # characters of what is cut


class Cut(NamedTuple):
    """A caption that an encoder does not read whole."""

    caption: str
    encoder: str  # "CLIP", "T5", …
    limit: int  # tokens
    tokens: int
    unread: str  # how the part that is cut begins


class CaptionLimits(NamedTuple):
    """What is cut, and which captions are one and the same to all encoders."""

    cuts: list[Cut]
    equal: list[list[str]]


def caption_limits(backend: Backend | None, captions: Iterable[str]) -> CaptionLimits:
    """Looked up in the tokenizers of a diffusers pipeline; other backends cut nothing, or refuse what is too long."""
    pipeline = getattr(backend, "pipeline", None)
    tokenizers = [found for part in PARTS if callable(found := getattr(pipeline, f"tokenizer{part}", None)) and hasattr(found, "decode")]
    cuts: list[Cut] = []
    seen: dict[Any, list[str]] = {}
    for caption in dict.fromkeys(captions):
        read = []
        for tokenizer in dict.fromkeys(tokenizers):
            ids, limit = tokenizer(caption, verbose=False).input_ids, limit_of(tokenizer, backend)
            read.append((*ids[: limit - 1], ids[-1]))  # the end mark stays
            if len(ids) > limit:
                unread = " ".join(tokenizer.decode(ids[limit - 1 : -1]).split())
                cuts.append(Cut(caption, short_name(tokenizer), limit, len(ids), unread[:SHOWN]))
        if read:
            seen.setdefault(tuple(read), []).append(caption)
    cut = {entry.caption for entry in cuts}
    return CaptionLimits(cuts, [group for group in seen.values() if len(group) > 1 and cut.intersection(group)])


def limit_of(tokenizer: Any, backend: Backend | None) -> int:
    """Tokens that are read. Pipelines have a length of their own for all but CLIP, which the backend knows."""
    own = None if short_name(tokenizer) == "CLIP" else getattr(backend, "text_length", None) or getattr(backend, "longest_text", None)
    known = int(getattr(tokenizer, "model_max_length", UNLIMITED))
    return min(known, own) if own else known


def short_name(tokenizer: Any) -> str:
    return type(tokenizer).__name__.removesuffix("Fast").removesuffix("Tokenizer") or "the text encoder"
