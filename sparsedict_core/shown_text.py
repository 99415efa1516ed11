"""Text that may come from a stranger's file, made fit to be shown: in a terminal, a log, a node's text, a table.

A control character can move the cursor, set a window's title or hide what follows; a bidirectional one turns a line around.
"""

from __future__ import annotations

import re
from typing import Any

MOST_SHOWN = 200  # characters of one value
MOST_SAID = 1000  # of a whole message


def shown(text: object, most: int = MOST_SHOWN) -> str:
    """`text` on one line: what is not printable becomes `\\x1b` or `\\u202e`, what is longer than `most` characters is cut in its middle."""
    return escaped(shortened(str(text), most))


def escaped_values(value: Any) -> Any:
    """A value as JSON has it, with every text in it escaped."""
    if isinstance(value, dict):
        return {escaped(key): escaped_values(each) for key, each in value.items()}
    if isinstance(value, list):
        return [escaped_values(each) for each in value]
    return escaped(value) if isinstance(value, str) else value


def shortened(text: str, most: int) -> str:
    """The text, or its beginning and its end with the number of characters between them."""
    if len(text) <= most:
        return text
    tail = most // 4
    return f"{text[: most - tail]}… ({len(text) - most:,} more characters) …{text[-tail:]}"


def escaped(text: str) -> str:
    """Every character that `str.isprintable` denies, written out; all others as they are."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _written(c) for c in text)


def escaped_json(text: str) -> str:
    """JSON with such characters written as JSON writes them; it means the same."""
    # Outside of strings JSON has no such characters but line ends.
    return re.sub(r"[^\n -~]", lambda found: found[0] if found[0].isprintable() else _in_json(found[0]), text)


def _written(character: str) -> str:
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character)
    code = ord(character)
    return named or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")


def _in_json(character: str) -> str:
    units = character.encode("utf-16-be", errors="surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))
