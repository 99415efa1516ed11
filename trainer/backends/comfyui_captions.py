"""Captions as the host's model is told them: encoded once, then made ready for each shape of picture and joined into batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ...sparsedict_core.errors import DataError
from .comfyui_conditioning import joined, own, padded


class Captions:
    """What the host is told for each caption. A caption is a number here: its place in `encoded`."""

    def __init__(self, model: Any, clip: Any, latent_scale: int, before_encoding: Callable[[], None]) -> None:
        """`clip` may be None where every caption is registered; `before_encoding` is called as the host may move weights for it."""
        self.model, self.clip, self.latent_scale = model, clip, latent_scale
        self.before_encoding = before_encoding
        self.encoded: list[dict[str, Any]] = []
        self._numbers: dict[str, int] = {}
        self._prepared: dict[tuple, dict[str, Any]] = {}

    def register(self, caption: str, conditioning: list) -> None:
        """Let `caption` stand for the first entry of a CONDITIONING value."""
        context, more = conditioning[0]
        encoded = {**more, "cross_attn": context, "model_conds": {}}
        self._numbers[caption] = len(self.encoded)
        self.encoded.append({key: own(value) for key, value in encoded.items() if key not in ("hooks", "control")})

    @torch.no_grad()
    def number(self, caption: str) -> int:
        """The caption's number, encoded if it is new. Raises DataError without a CLIP, and for words that the model cannot know."""
        if caption not in self._numbers:
            if self.clip is None:
                if caption == "" and self.encoded:
                    return 0  # only ever asked for, never used: nothing is dropped or guided without a CLIP
                raise DataError("there is no CLIP to encode captions with; connect the checkpoint's CLIP, or give a CONDITIONING.")
            from ...demo_model.vocabulary import UnknownWordError

            self.before_encoding()
            try:
                self.register(caption, self.clip.encode_from_tokens_scheduled(self.clip.tokenize(caption)))
            except UnknownWordError as error:
                raise DataError(str(error)) from error
        return self._numbers[caption]

    def conditions(self, numbers: list[int], shape: torch.Size) -> dict[str, Any]:
        """What `apply_model` takes besides the picture, for a batch of captions at a latent shape.

        Raises DataError for captions that do not fit into one batch.
        """
        conditions = joined([self._row(number, shape) for number in numbers])
        if conditions is None:
            # Texts of other lengths, in a family that cannot repeat them: pad with zeros, masked where the family has a mask.
            length = max(self.encoded[number]["cross_attn"].shape[1] for number in numbers)
            conditions = joined([self._row(number, shape, length) for number in numbers])
        if conditions is None:
            raise DataError("the captions are encoded in shapes that do not fit into one batch; use captions of about the same length.")
        return conditions

    def forget_shapes(self) -> None:
        """Drop what was made ready for single shapes; the encoded captions stay."""
        self._prepared.clear()

    @torch.no_grad()
    def _row(self, number: int, shape: torch.Size, length: int | None = None) -> dict[str, Any]:
        key = (number, tuple(shape[1:]), length)
        if key not in self._prepared:
            encoded = self.encoded[number] if length is None else padded(self.encoded[number], length)
            noise = torch.zeros(1, *shape[1:])
            conditions = self.model.extra_conds(
                **{"width": shape[-1] * self.latent_scale, "height": shape[-2] * self.latent_scale, "prompt_type": "positive", **encoded},
                noise=noise, device=noise.device, latent_image=noise, denoise_mask=None, seed=0,
            )  # fmt: skip
            self._prepared[key] = {name: value.process_cond(batch_size=1, area=None) for name, value in conditions.items()}
        return self._prepared[key]
