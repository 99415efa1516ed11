"""Short names for any Linear or convolution of a model, made from its path: `L3.image.q`, `L3.ff.up`, `L0.resnets_1.conv1`.

The layers are those of the model's attention outputs, which the core numbers; a module outside their blocks goes with the last before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from ..sparsedict_core.site import SiteName

#: The end of a path → stream. Names that say which tokens they work on come first in a stream: `image.q`, `text.ff.up`.
_ENDS = (
    (r"attn1\.to_([qkv])", r"self.\1"),
    (r"attn2\.to_([qkv])", r"cross.\1"),
    (r"(?:attn|attention)\.to_([qkv])", r"image.\1"),
    (r"attn\.add_([qkv])_proj", r"text.\1"),
    (r"ff_context\.net\.0\.proj", "text.ff.up"),
    (r"ff_context\.net\.2", "text.ff.down"),
    (r"(?:ff|ffn)\.net\.0\.proj", "ff.up"),
    (r"(?:ff|ffn)\.net\.2", "ff.down"),
    (r"proj_mlp", "mlp"),
)


def site_names(component: str, paths: Iterable[str], known: Sequence[SiteName], order: Sequence[str]) -> dict[str, SiteName]:
    """A name for each of `paths` (without the component), in which no two of a layer have one stream.

    `known` are the model's attention outputs, `order` is all its modules' paths in their order.
    """
    own = {name.path.removeprefix(f"{component}."): name for name in known}
    blocks = {_block(path): name.layer for path, name in own.items()}
    before = _layers_before(own, order)
    names: dict[str, SiteName] = {}
    taken: dict[tuple[int, str | None], str] = {(name.layer, name.stream): path for path, name in own.items()}
    for path in paths:
        if path in own:
            names[path] = own[path]
            continue
        block = _block(path)
        layer = blocks.get(block, before.get(path, 0))
        tail = path[len(block) + 1 :] if block else path
        stream = next((re.sub(end, name, tail) for end, name in _ENDS if re.fullmatch(end, tail)), None) or _spelled(tail)
        if taken.setdefault((layer, stream), path) != path:
            stream = _spelled(path)
        names[path] = SiteName(f"{component}.{path}", layer, stream)
    return names


def _block(path: str) -> str:
    """The path up to the number of its innermost block."""
    match = re.match(r"(.*\b(?:\w*blocks|layers|\w*refiner)\.\d+)\.", path)
    return match[1] if match else ""


def _layers_before(own: Mapping[str, SiteName], order: Sequence[str]) -> dict[str, int]:
    layer, found = 0, {}
    for path in order:
        if path in own:
            layer = own[path].layer
        found[path] = layer
    return found


def _spelled(tail: str) -> str:
    """A path as a stream: words with dots, numbers behind their word."""
    words = re.sub(r"\.(\d+)", r"_\1", tail)
    return ".".join(word if re.match(r"[A-Za-z_]", word) else f"_{word}" for word in re.sub(r"[^A-Za-z0-9_.]", "_", words).split("."))
