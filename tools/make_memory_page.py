"""Writes the table of docs/memory.md: what `sparsedict plan` says.

    python -m sparsedict.tools.make_memory_page
"""

from __future__ import annotations

from .comfy_host import PROJECT

PAGE = PROJECT / "docs" / "memory.md"
BEGIN, END = "<!-- made by python -m sparsedict.tools.make_memory_page -->\n", "<!-- end -->"


def with_table(page: str) -> str:
    """The page with the table as it is."""
    from click.testing import CliRunner

    from ..cli.plan import command

    table = CliRunner().invoke(command, [], catch_exceptions=False).output.strip()
    before, begin, rest = page.partition(BEGIN)
    return f"{before}{begin}\n```\n{table}\n```\n\n{rest[rest.index(END):]}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
