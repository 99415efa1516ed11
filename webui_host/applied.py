"""The adapters that the present picture's tags ask for, as hooks on the loaded model. Knows no host.

The host's calls come in odd orders (again for the second pass of a picture, without an end after an error), so whatever was there is
taken away before anything is put on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from ..sparsedict_core.attachment import Attachment
from ..sparsedict_core.errors import SparseDictError, TagError
from ..sparsedict_core.prompt_tags import PromptTag, parse_tag
from . import files
from .names import places_for


@dataclass(frozen=True)
class Applied:
    """One tag at work."""

    tag: PromptTag
    path: Path
    attachment: Attachment


class AppliedTags:
    """What is on the model now."""

    def __init__(self) -> None:
        self.now: list[Applied] = []
        self._refusal: Any = None

    def clear(self) -> None:
        """Take everything away; the model is the bare base again."""
        for applied in self.now:
            applied.attachment.detach()
        self.now = []
        if self._refusal is not None:
            self._refusal.remove()
            self._refusal = None

    def apply(self, model: nn.Module, items: Iterable[Sequence[str]], folder: Path, changes: dict[str, Any] | None = None) -> None:
        """Put on what the tags ask for, each given by its parts between the colons. `changes` replace options of the first one.

        Raises TagError, with the tag, for the first that cannot be followed; nothing is on the model then.
        """
        self.clear()
        tags = [parse_tag(parts) for parts in items]
        if changes and tags:
            tags[0] = replace(tags[0], **changes)
        try:
            for tag in tags:
                self.now.append(self._applied(model, tag, folder))
        except SparseDictError as error:
            self.clear()
            raise error if isinstance(error, TagError) and str(error).startswith("<") else TagError(f"{tag.text}: {error}") from error

    def _applied(self, model: nn.Module, tag: PromptTag, folder: Path) -> Applied:
        path = files.find(tag.name, folder)
        adapter = files.read(path)
        gains = tag.gains(adapter)
        attachment = Attachment(adapter, places_for(adapter, model), tag.strength)
        attachment.set_gains(gains)
        return Applied(tag, path, attachment)

    def at(self, progress: float) -> None:
        """The sampling is this far, from 0 to 1: tags with a start or an end act or are silent."""
        for applied in self.now:
            applied.attachment.enabled = applied.tag.acts_at(progress)

    def refuse(self, model: nn.Module, message: str) -> None:
        """Make the model's next step fail with `message`. Hosts only print what goes wrong before it, and draw the picture all the same."""
        self.clear()

        def stop(*_: Any) -> None:
            raise TagError(message)

        self._refusal = model.register_forward_pre_hook(stop)

    def description(self) -> str:
        """`name: hash` of each, for the picture's own text."""
        return ", ".join(dict.fromkeys(f"{applied.tag.name}: {files.short_hash(applied.path)}" for applied in self.now))
