"""What an adapter is made of: the few numbers that fix the shapes of its tensors.

Knows the encoders' names; knows nothing of training schedules or of base models.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from .bounds import MOST_ATOMS, MOST_WIDTH, Bounds
from .encoders import SUCCESSORS, Encoder, get_encoder
from .errors import SparseDictError


@dataclass(frozen=True)
class AdapterConfig:
    """Shapes and encoder of an adapter; the defaults are our choice (docs/method.md).

    Raises SparseDictError for a value out of range or an unknown encoder.
    """

    encoder: str = field(default="quantile", metadata={"help": "How coefficients are computed; one of the registered encoders."})
    atoms: int = field(default=128, metadata={"help": "Atoms per site (m); raised by folding, so that every id that an atom ever had is below it."})
    rank: int | None = field(default=16, metadata={"help": "Width r of the basis that the atoms share; none = dense atoms."})
    density: float = field(default=0.10, metadata={"help": "Target share of |u| above the threshold, in (0, 1]."})
    encoder_settings: dict[str, Any] = field(default_factory=dict, metadata={"help": "Settings of the encoder, by name."})

    def __post_init__(self) -> None:
        if not isinstance(self.encoder, str) or not isinstance(self.encoder_settings, dict):
            raise SparseDictError(f"encoder is {self.encoder!r:.60}, its settings {self.encoder_settings!r:.60}: give a name, and settings by name.")
        if not Bounds(0, MOST_ATOMS, whole=True).hold(self.atoms):
            raise SparseDictError(f"atoms is {self.atoms!r:.60}: give a whole number of atoms per site, from 0 to {MOST_ATOMS:,}.")
        if self.rank is not None and not Bounds(1, MOST_WIDTH, whole=True).hold(self.rank):
            raise SparseDictError(f"rank is {self.rank!r:.60}: give a whole number from 1 to {MOST_WIDTH:,}, or none for dense atoms.")
        if self.density == 0 or not Bounds(0, 1).hold(self.density):
            raise SparseDictError(f"density is {self.density!r:.60}: give a share above 0 and at most 1, for example 0.10.")
        self.make_encoder()

    def make_encoder(self) -> Encoder:
        """The encoder that this config names, with its settings."""
        return get_encoder(self.encoder, **self.encoder_settings)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AdapterConfig:
        """The inverse of `to_dict`, also of what version 0.1.0 wrote. Raises SparseDictError for names that are not options."""
        if not isinstance(values, dict):
            raise SparseDictError(f"adapter options are a {type(values).__name__}; give names with values.")
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            known = ", ".join(cls.__dataclass_fields__)
            raise SparseDictError(f"unknown adapter option {unknown[0]!r}: the options are {known}.")
        successor = SUCCESSORS.get(str(values.get("encoder")))
        return cls(**values) if successor is None else cls(**{**values, "encoder": successor, "encoder_settings": {}})
