"""A row of the soak's table."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Row:
    """How often something bad was tried, and what went wrong then; nothing is what is wanted."""

    name: str
    tried: int = 0
    violations: list[str] = field(default_factory=list)

    @property
    def held(self) -> int:
        return max(0, self.tried - len(self.violations))
