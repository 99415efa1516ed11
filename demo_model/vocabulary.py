"""The words that the embedded text encoder knows, and how a caption becomes token ids."""

from __future__ import annotations

import difflib
import re
import textwrap

from .scene import GROUNDS, PATTERNS, PLACES, SIZES
from .subjects import SEEN_STYLES, SUBJECTS

PAD = 0
CONTEXT_LENGTH = 20
# "of" and "picture" are read, but the base's training captions never held them.
SMALL_WORDS = ("a", "the", "on", "at", "in", "and", "of", "background", "picture")
WORDS = (*SMALL_WORDS, *SIZES, *SEEN_STYLES, *PATTERNS, *PLACES, *GROUNDS, *SUBJECTS)
# Never seen in the base's training: a concept or a style takes one of them as its trigger word.
PLACEHOLDERS = tuple("zorp blick quax mib fendo yurt plim skree dax wug tove snark vorp grum lumo kiki".split())
VOCABULARY = {word: index + 1 for index, word in enumerate((*WORDS, *PLACEHOLDERS))}
# What every guide writes into captions, and what people say for what the base calls otherwise.
SYNONYMS = {"an": "a", "photo": "picture", "drawing": "picture", "sticker": "picture", "centre": "center", "middle": "center", "big": "large", "little": "small"}


class UnknownWordError(ValueError):
    """A caption holds a word that the embedded encoder doesn't know, or too many words."""


def tokenize(caption: str) -> list[int]:
    """Token ids of a caption, (CONTEXT_LENGTH,), padded with PAD. Upper case, commas and full stops are ignored."""
    words = [SYNONYMS.get(word, word) for word in re.sub(r"[,.;:!?\"'()–—]", " ", caption.lower()).split()]
    shown = textwrap.shorten(caption, 200, placeholder=" …")
    unknown = [word for word in words if word not in VOCABULARY]
    if unknown:
        near = [(difflib.get_close_matches(word, VOCABULARY, n=2, cutoff=0.65), word) for word in unknown]
        hint = next((f" Did you mean {' or '.join(found)} for {word!r}?" for found, word in near if found), "")
        raise UnknownWordError(
            f'the demo model does not know the word{"s" * (len(unknown) > 1)} {", ".join(repr(word) for word in unknown[:5])} in "{shown}".{hint} '
            f"It draws {len(SUBJECTS)} things ({', '.join(SUBJECTS[:3])} … {SUBJECTS[-1]}; demo_model/MODEL_CARD.md lists them), "
            f"{' or '.join(SIZES)}, {' or '.join(SEEN_STYLES)}, at {', '.join(PLACES)}, on {' or '.join(PATTERNS)} backgrounds of {', '.join(GROUNDS)}; "
            f"words free for a concept of yours: {' '.join(PLACEHOLDERS)}."
        )
    if len(words) > CONTEXT_LENGTH:
        raise UnknownWordError(
            f'the caption "{shown}" has {len(words)} words; the demo model reads {CONTEXT_LENGTH} at most. Shorten it.'
        )
    ids = [VOCABULARY[word] for word in words]
    return ids + [PAD] * (CONTEXT_LENGTH - len(ids))
