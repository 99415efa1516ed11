"""SparseDict: adapters made of learned dictionary atoms. `__all__` is what programs may rely on; docs/python.md shows how.

This file runs both for `import sparsedict` and when ComfyUI loads the repository as a custom node, so it imports nothing heavy:
each name is fetched when it is asked for.
"""

import importlib.util
from importlib import import_module
from typing import Any

__version__ = "0.1.0"

#: Public name → the sub-package that it comes from.
_HOMES = {
    **dict.fromkeys(
        ("Attached", "Attachment", "Selection", "SparseAdapter", "SparseDictError", "attached", "compose", "load", "prune", "read_metadata", "save", "select"),
        "sparsedict_core",
    ),
    **dict.fromkeys(("Callbacks", "ConceptData", "PRESETS", "TrainConfig", "TrainResult", "train"), "trainer"),
    "open_backend": "trainer.backends",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


# Inside ComfyUI only: anyone else who imports the package pays nothing for the nodes.
if importlib.util.find_spec("comfy_api") is not None:
    WEB_DIRECTORY = "./web"

    async def comfy_entrypoint():
        """What the host calls for the list of nodes."""
        from .nodes import SparseDictExtension

        return SparseDictExtension()
