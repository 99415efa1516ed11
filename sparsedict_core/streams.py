"""Names for any Linear of a model: layer and stream, from its path and the attention outputs that are known.

A Linear belongs to the layer of the block that it is in, the innermost numbered child with an attention output. What is in no such
block comes after all layers, in one of its own, with its path as stream.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from .data_flow import Output
from .errors import SiteError
from .site import SiteName

_ROLES = {
    "q": r"(to_)?q(_proj|uery)?|wq|query",
    "k": r"(to_)?k(_proj)?|wk|key",
    "v": r"(to_)?v(_proj)?|wv|value",
    "add_q": r"add_q_proj|to_q_add|q_add",
    "add_k": r"add_k_proj|to_k_add|k_add",
    "add_v": r"add_v_proj|to_v_add|v_add",
}
_SECOND = re.compile(r"(ff|mlp|ffn|feed_forward)_?(context|txt|text|t)|(txt|text|context|c)_(ff|mlp|ffn)\b")
_FEED_FORWARD = re.compile(r"(?:[a-z]+_)?(?:ff|ffn|mlp|feed_forward|feedforward)(?:_[a-z]+)?\.(.+)|(proj_mlp)")
_UP, _DOWN = re.compile(r"net\.0\.proj|net\.0|0|fc1|up_proj|layer1|in_layer|linear_in|proj_mlp"), re.compile(r"net\.2|2|fc2|w2|linear_2|down_proj|out_layer|linear_out|proj")
#: Streams of a block that has several attention outputs, by the name of the attention's module, then by the Linear's own.
_ATTENTIONS = {
    "self": r"attn1|self_attn\w*|attn_self|self_attention|mmha\w*|attn",
    "cross": r"attn2|cross_attn\w*|attn_cross|cross_attention|text_attn",
    "image": r"(img|image|x|vis\w*|visual\w*)_(attn|attention|block)",
    "text": r"(txt|text|context|c)_(attn|attention|block)",
}
_TEXT_OUTPUT = re.compile(r"to_add_out|\w*(txt|text|context|_t|_c)\w*")
_TEXT_INPUT = re.compile(r"(txt|text|context|encoder|to_add|add)_\w*")
_WORDS = {"w1": "gate", "linear_1": "gate", "gate_proj": "gate", "w3": "up", "linear_3": "up"}


def name_outputs(outputs: Iterable[Output], component: str) -> list[SiteName]:
    """Names for the attention outputs that were seen at work: blocks in the order in which they ran, outputs that are read only."""
    blocks: dict[str, list[Output]] = {}
    for output in outputs:
        if output.read:
            blocks.setdefault(block_of_output(output.path), []).append(output)
    names = []
    for layer, (block, inside) in enumerate(blocks.items()):
        streams = [_output_stream(output, block, inside) for output in inside]
        for output, stream in zip(inside, streams, strict=True):
            clear = streams.count(stream) == 1
            names.append(SiteName(f"{component}.{output.path}", layer, stream if clear else plain(output.path[len(block) :].lstrip("."))))
    return names


def _output_stream(output: Output, block: str, inside: Sequence[Output]) -> str | None:
    if len(inside) == 1:
        return None
    parts, end = _parts(output.path)
    if sum(_attention(other.path) == _attention(output.path) for other in inside) > 1:
        return "text" if _TEXT_OUTPUT.fullmatch(parts[end]) else "image"
    inner = _attention(output.path)[len(block) :].lstrip(".")
    first = inner.split(".")[0]
    return next((stream for stream, pattern in _ATTENTIONS.items() if re.fullmatch(pattern, first)), plain(inner) or plain(parts[end]))


def name_sites(
    outputs: Sequence[SiteName], paths: Iterable[str], component: str, inputs: Mapping[str, tuple[Mapping[str, tuple[int, int]], int]] | None = None
) -> list[SiteName]:
    """A name for each of `paths` (with the component), in their order by layer; outputs keep theirs.

    `inputs`: path → (role → slice, number of channels) of Linears that give an attention its q, k or v. One that gives several has a
    name for each slice, and for what is left of it.
    """
    inputs = inputs or {}
    known = {name.path: name for name in outputs}
    blocks: dict[str, list[SiteName]] = {}
    for name in outputs:
        blocks.setdefault(block_of_output(name.path), []).append(name)
    after = 1 + max((name.layer for name in outputs), default=-1)
    taken = {(name.layer, name.stream) for name in outputs}
    named: list[SiteName] = []
    for path in paths:
        if path in known:
            named.append(known[path])
            continue
        block, whole = _inside(path, blocks), plain(path.removeprefix(f"{component}."))
        for role, rows in _slices(*inputs[path]) if path in inputs else [("", None)]:
            if block is None:
                layer, streams = after, [whole]
            else:
                inner = path[len(block) + 1 :]
                layer, streams = blocks[block][0].layer, [_stream(inner, block, blocks[block], role if rows else ""), plain(inner), whole]
            end = f".{role}" if rows and role else ""
            stream = next(stream for stream in (streams[0], *(f"{stream}{end}" for stream in streams), f"{whole}{end}_") if (layer, stream) not in taken)
            taken.add((layer, stream))
            named.append(SiteName(path, layer, stream, rows))
    return sorted(named, key=lambda name: name.layer)


def _slices(roles: Mapping[str, tuple[int, int]], width: int) -> Iterator[tuple[str, tuple[int, int] | None]]:
    """Role and slice of each part of a Linear's output, "" for channels that are none of q, k and v; None for the whole of it."""
    if len(roles) == 1 and (0, width) in roles.values():
        yield next(iter(roles)), None
        return
    at = 0
    for role, (start, stop) in [*sorted(roles.items(), key=lambda item: item[1]), ("", (width, width))]:
        if at < start:
            yield "", (at, start)
        if start < stop:
            yield role, (start, stop)
        at = stop


def choose(names: Sequence[SiteName], outputs: Sequence[SiteName], wanted: str) -> list[SiteName]:
    """The sites of the kinds in `wanted`, such as "out,q,k,v,ff": "out" are the attention outputs, "all" every Linear, any other word
    those with that word in their stream. Raises SiteError for a word that no site has."""
    words = [word.strip() for word in wanted.split(",") if word.strip()]
    ends = set(outputs)
    kinds = {word: [name for name in names if _is(name, word, name in ends)] for word in words}
    for word, found in kinds.items():
        if not found:
            known = sorted({part for name in names if name not in ends for part in (name.stream or "").split(".")[-2:]} - {""})
            raise SiteError(f"no site is a {word!r} in this model; choose among out, all, {', '.join(known[:20])}.")
    if not words:
        raise SiteError("no kind of sites is given; write out, or out,q,k,v,ff.")
    return [name for name in names if any(_is(name, word, name in ends) for word in words)]


def _is(name: SiteName, word: str, output: bool) -> bool:
    if word == "out":
        return output
    return word == "all" or (not output and word in (name.stream or "").split("."))


def plain(path: str) -> str:
    """A path as a stream's name: `norm1.linear`, `to_out_0`."""
    text = re.sub(r"[^A-Za-z0-9_.]", "_", re.sub(r"\.(?=\d)", "_", path))
    return re.sub(r"(^|\.)(?=\d)", r"\1_", text)


def _parts(path: str) -> tuple[list[str], int]:
    """The names in a path, and how many of them come before the leaf: numbers at the end belong to it."""
    parts = path.split(".")
    end = len(parts) - 1
    while end > 0 and parts[end].isdigit():
        end -= 1
    return parts, end


def block_of_output(path: str) -> str:
    """Up to the innermost numbered child that the leaf is in."""
    parts, end = _parts(path)
    while end > 0 and not parts[end - 1].isdigit():
        end -= 1
    return ".".join(parts[:end])


def _inside(path: str, blocks: dict[str, list[SiteName]]) -> str | None:
    parts = path.split(".")
    return next((block for end in range(len(parts) - 1, 0, -1) if (block := ".".join(parts[:end])) in blocks), None)


def _attention(path: str) -> str:
    parts, end = _parts(path)
    return ".".join(parts[:end])


def _stream(inner: str, block: str, outputs: Sequence[SiteName], seen: str = "") -> str:
    """What a Linear at `inner` below `block` is to the block's attention outputs; `seen` is what a slice of it was seen to be."""
    parts, end = _parts(inner)
    leaf = ".".join(parts[end:])
    role = next((role for role, pattern in _ROLES.items() if re.fullmatch(pattern, leaf)), None)
    if seen:
        role = f"add_{seen}" if len(outputs) > 1 and _TEXT_INPUT.fullmatch(leaf) else seen
    ends = [name for name in outputs if f"{block}.{inner}".startswith(_attention(name.path) + ".")]
    nearest = max((len(_attention(name.path)) for name in ends), default=0)
    ends = [name for name in ends if len(_attention(name.path)) == nearest]
    if role is not None and ends:
        second = role.startswith("add_") and (len(ends) > 1 or ends[0].stream == "image")
        prefix = ends[0].stream if not second else ends[1].stream if len(ends) > 1 else "text"
        return ".".join(filter(None, (prefix, role.removeprefix("add_") if second else role)))
    feed = _FEED_FORWARD.fullmatch(inner)
    if feed is not None:
        part = feed.group(1) or feed.group(2)
        what = _WORDS.get(part) or ("up" if _UP.fullmatch(part) else "down" if _DOWN.fullmatch(part) else plain(part))
        prefix = outputs[0].stream if outputs[0].stream in ("image", "text") else None
        if prefix is not None and _SECOND.match(inner):
            prefix = "text"
        return ".".join(filter(None, (prefix, "ff", what)))
    return plain(inner)
