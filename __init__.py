"""SparseDict: adapters made of learned dictionary atoms. The parts are sub-packages; docs/architecture.md lists them.

This file runs both for `import sparsedict` and when ComfyUI loads the repository as a custom node, so it imports nothing heavy.
"""

import importlib.util

__version__ = "0.1.0"

# Inside ComfyUI only: anyone else who imports the package pays nothing for the nodes.
if importlib.util.find_spec("comfy_api") is not None:
    WEB_DIRECTORY = "./web"

    async def comfy_entrypoint():
        """What the host calls for the list of nodes."""
        from .nodes import SparseDictExtension

        return SparseDictExtension()
