"""The page of cards beside Lora's."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..sparsedict_core.adapter import trigger_words_of
from ..sparsedict_core.errors import FileFormatError
from ..sparsedict_core.file_format import read_metadata
from ..sparsedict_core.shown_text import escaped_values, shown
from . import files
from .api import THUMBNAIL


def describe(path: Path) -> tuple[str, list[str], dict[str, Any]]:
    """Title or what is wrong with the file, trigger words, metadata for the host's own table."""
    try:
        metadata = read_metadata(path)
    except FileFormatError as error:
        return f"cannot be used: {error}", [], {}
    words = [shown(word) for word in trigger_words_of(metadata)]
    return shown(metadata.get("title") or ""), words, metadata


def card_prompt(name: str, words: list[str], quote_js: Any) -> str:
    """The host takes a JavaScript expression: its own default strength goes into the tag."""
    expression = quote_js(f"<sparsedict:{name}:") + " + opts.extra_networks_default_multiplier + " + quote_js(">")
    return expression + (" + " + quote_js(" " + " ".join(words)) if words else "")


def make_page() -> Any:
    """The object that the host registers."""
    from modules import shared, ui_extra_networks

    class SparseDictPage(ui_extra_networks.ExtraNetworksPage):
        def __init__(self) -> None:
            super().__init__("SparseDict")
            self.allow_negative_prompt = False

        def refresh(self) -> None:
            """The folder is looked at again at every listing."""

        def create_item(self, name: str, index: int | None = None, enable_filter: bool = True) -> dict[str, Any] | None:
            path = files.names(files.default_folder()).get(name)
            return None if path is None else self._item(name, path, index)

        def _item(self, name: str, path: Path, index: int | None) -> dict[str, Any]:
            stem = str(path.with_suffix(""))
            title, words, metadata = describe(path)
            item = {
                "name": name,
                "filename": str(path),
                "shorthash": files.short_hash(path),
                "preview": self.find_preview(stem) or f"./{THUMBNAIL.lstrip('/')}?name={quote(name)}",
                "description": self.find_description(stem) or (html.escape(title) if getattr(shared.opts, "extra_networks_card_description_is_html", False) else title),
                # The host writes these into its page as they are.
                "search_terms": [html.escape(term) for term in (self.search_terms_from_path(str(path)), title, *words)],
                "local_preview": f"{stem}.{shared.opts.samples_format}",
                "metadata": escaped_values(json.loads(json.dumps(metadata, default=str))),
                "prompt": card_prompt(name, words, ui_extra_networks.quote_js),
                "sort_keys": {"default": index, **self.get_sort_keys(str(path))},
            }
            if hasattr(self, "read_user_metadata"):
                self.read_user_metadata(item)
            return item

        def list_items(self) -> Any:
            for index, (name, path) in enumerate(files.names(files.default_folder()).items()):
                yield self._item(name, path, index)

        def allowed_directories_for_previews(self) -> list[str]:
            return [str(files.default_folder())]

    return SparseDictPage()
