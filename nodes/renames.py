"""Nodes that had another id: newer hosts then offer to replace the old one in a workflow.

Nothing has been renamed since the first release. A renamed node is one entry, with its widgets in their *old* order, as
a workflow stores their values by position:

    {"old_node_id": "SparseDictMerge", "new_node_id": "SparseDictCompose", "old_widget_ids": ["strength_a", "strength_b"],
     "input_mapping": [{"new_id": "strength_1", "old_id": "strength_a"}, {"new_id": "strength_2", "old_id": "strength_b"}]}
"""

from __future__ import annotations

from typing import Any

from comfy_api import latest

RENAMED: list[dict[str, Any]] = []


async def register(renamed: list[dict[str, Any]] = RENAMED) -> None:
    """Tell the host; one that has no such thing (0.3.75) keeps showing the old node as missing."""
    if renamed and hasattr(latest.io, "NodeReplace"):
        api = latest.ComfyAPI()
        for entry in renamed:
            await api.node_replacement.register(latest.io.NodeReplace(**entry))
