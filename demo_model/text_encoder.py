"""The embedded text encoder: a word embedding with word positions, and a pooled vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .vocabulary import CONTEXT_LENGTH, PAD, VOCABULARY, tokenize

WIDTH = 128


class WordEncoder(nn.Module):
    """Captions → context (B, 20, 128) and pooled (B, 128).

    SD3's joint attention has no position signal for the context, so the position is added here.
    """

    def __init__(self, words: int = len(VOCABULARY), context_length: int = CONTEXT_LENGTH) -> None:
        super().__init__()
        self.words = nn.Embedding(words + 1, WIDTH)
        self.positions = nn.Parameter(torch.randn(context_length, WIDTH) * 0.5)
        self.norm = nn.LayerNorm(WIDTH)
        self.pool = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """ids (B, 20) of integers → context (B, 20, 128), pooled (B, 128)."""
        words = self.words(ids)
        mask = (ids != PAD).unsqueeze(-1).to(words.dtype)
        context = self.norm(words + self.positions)
        pooled = self.pool((words * mask).sum(1) / mask.sum(1).clamp(min=1).sqrt())
        return context, pooled

    def encode(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """As forward, from text. Raises UnknownWordError for a word outside the vocabulary."""
        ids = torch.tensor([tokenize(caption) for caption in captions], device=self.positions.device)
        return self(ids)
