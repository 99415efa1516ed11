"""Writes example_workflows/*.json, and with --pictures their thumbnails from what they really make.

    python -m sparsedict.tools.make_example_workflows [--pictures] [--check] [--host FOLDER]

A ComfyUI is started for it (the one that `dev.py comfy` makes), so that every node and widget is what the host has.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .comfy_host import PROJECT, default_root
from .example_graphs import BLUEPRINT, THUMBNAILS, build, train_and_apply
from .example_parts import SAVED
from .ui_workflow import to_prompt

FOLDER = PROJECT / "example_workflows"
SUBGRAPHS = PROJECT / "subgraphs"  # what lies there is offered in the node library, by hosts that can
THUMBNAIL_SIDE, THUMBNAIL_BYTES = 384, 60_000
EDGE = 2  # pixels between tiles, in the pictures too


def as_text(workflow: dict[str, Any]) -> str:
    return json.dumps(workflow, indent=1, ensure_ascii=False) + "\n"


@contextmanager
def running_host(root: Path) -> Iterator[Any]:
    """A host of its own, with empty folders. The tests' own class: there is one way to start a host."""
    sys.path.insert(0, str(PROJECT / "tests" / "comfy"))
    from host import Host

    with tempfile.TemporaryDirectory() as folder:
        for name in ("custom_nodes", "input", "output", "temp", "user", "models"):
            (Path(folder) / name).mkdir()
        with Host(root, Path(folder)) as host:
            yield host


def thumbnail(file: Path, tiles: tuple[int, int], shown: tuple[int, ...], path: Path) -> None:
    """One or four tiles of a picture that is made of `tiles` (columns, rows) as a square JPEG."""
    from PIL import Image

    picture = Image.open(file).convert("RGB")
    width, height = picture.width / tiles[0], picture.height / tiles[1]
    across, side = round(len(shown) ** 0.5), round(min(width, height)) - 2 * EDGE
    sheet = Image.new("RGB", (across * side + (across - 1) * EDGE,) * 2, "white")
    for place, tile in enumerate(shown):
        left, top = round((tile % tiles[0] + 0.5) * width - side / 2), round((tile // tiles[0] + 0.5) * height - side / 2)
        sheet.paste(picture.crop((left, top, left + side, top + side)), (place % across * (side + EDGE), place // across * (side + EDGE)))
    sheet.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS).save(path, quality=85, optimize=True)
    if path.stat().st_size > THUMBNAIL_BYTES:
        raise SystemExit(f"{path} has {path.stat().st_size} bytes; at most {THUMBNAIL_BYTES}.")


def picture_of(host: Any, wanted: str, workflow: dict[str, Any], object_info: dict[str, Any]) -> Path:
    """Runs an example as it is; the file that one of its nodes has saved."""
    prompt = to_prompt(workflow, object_info)
    outputs = host.run(prompt, timeout=3600)
    saving = next(node for node, entry in prompt.items() if entry["class_type"] == SAVED and entry["inputs"]["filename_prefix"].endswith(f"/{wanted}"))
    return host.file(outputs[saving]["images"][0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", type=Path, default=default_root())
    parser.add_argument("--pictures", action="store_true", help="run the examples and make the thumbnails too")
    parser.add_argument("--only", nargs="+", default=[""], help="only the examples whose name begins so")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not what would be written")
    arguments = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    SUBGRAPHS.mkdir(exist_ok=True)
    with running_host(arguments.host.resolve()) as host:
        object_info = host.object_info()
        examples = {name: workflow for name, workflow in build(object_info).items() if name.startswith(tuple(arguments.only))}
        texts = {FOLDER / f"{name}.json": as_text(workflow) for name, workflow in examples.items()}
        texts[SUBGRAPHS / f"{BLUEPRINT}.json"] = as_text(train_and_apply(object_info))
        for path in FOLDER.glob("*.json") if arguments.only == [""] and not arguments.check else ():
                if path not in texts:
                    path.unlink()  # an example of another name
        for path, text in texts.items():
            if not arguments.check:
                path.write_text(text, encoding="utf-8")
            elif not path.exists() or path.read_text(encoding="utf-8") != text:
                raise SystemExit(f"{path.name} is not what this script makes; run it without --check.")
        for name, workflow in examples.items() if arguments.pictures and not arguments.check else ():
            wanted, tiles, shown = THUMBNAILS[name]
            thumbnail(picture_of(host, wanted, workflow, object_info), tiles, shown, FOLDER / f"{name}.jpg")
            print(name)


if __name__ == "__main__":
    main()
