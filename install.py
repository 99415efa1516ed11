"""ComfyUI's manager runs this after requirements.txt. Nothing is installed here: it only says early what would fail later."""

import importlib.util

for name in ("torch", "safetensors", "PIL"):
    if importlib.util.find_spec(name) is None:
        print(f"[SparseDict] the package {name!r} is missing from this Python; the nodes will not load without it")
