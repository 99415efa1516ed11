"""The words that the embedded text encoder knows, and how a caption becomes token ids."""

from __future__ import annotations

import difflib
import re
import textwrap

# "of" and "picture" are read, but the base's training captions never held them.
WORDS = (
    "a the on at in and with of background picture "
    "circle disc square box triangle star ring cross "
    "red orange yellow green blue purple pink white "
    "small little tiny large big huge plain striped dotted "
    "center middle left right top bottom "
    "night sand forest sky stone clay"
).split()
# Never seen in the base's training: a concept or a style takes one of them as its trigger word.
PLACEHOLDERS = "zorp blick quax mib fendo yurt plim skree dax wug tove snark vorp grum lumo kiki".split()
PAD = 0
VOCABULARY = {word: index + 1 for index, word in enumerate(WORDS + PLACEHOLDERS)}
SYNONYMS = {"photo": "picture"}  # what every guide writes into captions
CONTEXT_LENGTH = 16


class UnknownWordError(ValueError):
    """A caption holds a word that the embedded encoder doesn't know, or too many words."""


def tokenize(caption: str) -> list[int]:
    """Token ids of a caption, (CONTEXT_LENGTH,), padded with PAD. Upper case, commas and full stops are ignored."""
    words = [SYNONYMS.get(word, word) for word in re.sub(r"[,.;:!?\"'()]", " ", caption.lower()).split()]
    shown = textwrap.shorten(caption, 200, placeholder=" …")
    unknown = [word for word in words if word not in VOCABULARY]
    if unknown:
        near = difflib.get_close_matches(unknown[0], VOCABULARY, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise UnknownWordError(
            f'the demo model does not know the word {", ".join(repr(word) for word in unknown[:5])} in "{shown}".{hint} '
            f"It knows: {' '.join(WORDS)}; words free for a concept of yours: {' '.join(PLACEHOLDERS)}."
        )
    if len(words) > CONTEXT_LENGTH:
        raise UnknownWordError(
            f'the caption "{shown}" has {len(words)} words; the demo model reads {CONTEXT_LENGTH} at most. Shorten it.'
        )
    ids = [VOCABULARY[word] for word in words]
    return ids + [PAD] * (CONTEXT_LENGTH - len(ids))
