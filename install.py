"""ComfyUI's manager and the web UIs run this once, when the pack is installed or updated.

The manager has installed requirements.txt by then; a web UI has not, so what is missing of it is installed by the web UI's own pip. What is
there stays, whatever its version: hosts pin theirs. Torch, gradio and pydantic are the host's and are not in that file.
"""

import importlib.util
import re
from pathlib import Path

MODULES = {"pillow": "PIL"}  # where a package's module has another name
lines = (line.strip() for line in Path(__file__).with_name("requirements.txt").read_text(encoding="utf-8").splitlines())
packages = {line: re.split(r"[^\w.-]", line)[0] for line in lines if line and not line.startswith("#")}
missing = [line for line, name in packages.items() if importlib.util.find_spec(MODULES.get(name, name)) is None]
if missing:
    try:
        from launch import run_pip
    except ImportError:  # no web UI
        print(f"[SparseDict] {', '.join(missing)} missing from this Python; the nodes will not load without it. Run its pip install -r requirements.txt")
    else:
        run_pip("install " + " ".join(f'"{line}"' for line in missing), f"{', '.join(missing)} for SparseDict")
