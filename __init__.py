"""SparseDict: adapters made of learned dictionary atoms. The parts are sub-packages; docs/architecture.md lists them.

This file runs both for `import sparsedict` and when ComfyUI loads the repository as a custom node, so it imports nothing heavy.
"""

__version__ = "0.1.0"

# ComfyUI looks for `comfy_entrypoint` (and WEB_DIRECTORY) here. Its nodes, when they exist, are imported only inside that host:
# the hook belongs below this line, guarded by `importlib.util.find_spec("comfy_api")`, so that nothing else pays for it.
