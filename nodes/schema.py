"""A node's schema on every host: what an older host doesn't know is left out."""

from __future__ import annotations

import dataclasses
from typing import Any

from comfy_api.latest import io

_OPTIONAL = ("search_aliases", "essentials_category")  # newer than 0.3.75
_KNOWN = {field.name for field in dataclasses.fields(io.Schema)}


def schema(**fields: Any) -> io.Schema:
    """io.Schema(**fields). A misspelt field still fails: only the optional ones may be unknown to the host."""
    return io.Schema(**{name: value for name, value in fields.items() if name in _KNOWN or name not in _OPTIONAL})
