"""The words of the sticker world, and how a caption becomes token ids."""

from __future__ import annotations

from .scene import GROUNDS, PATTERNS, PLACES, SIZES
from .subjects import SEEN_STYLES, SUBJECTS

PAD = 0
CONTEXT_LENGTH = 20
WORDS = ("a", "the", "on", "at", "in", "and", "of", "background", "picture", *SIZES, *SEEN_STYLES, *PATTERNS, *PLACES, *GROUNDS, *SUBJECTS)
# Never seen in the base's training: a concept or a style takes one of them as its trigger word.
PLACEHOLDERS = tuple("zorp blick quax mib fendo yurt plim skree dax wug tove snark vorp grum lumo kiki".split())
VOCABULARY = {word: index + 1 for index, word in enumerate((*WORDS, *PLACEHOLDERS))}
