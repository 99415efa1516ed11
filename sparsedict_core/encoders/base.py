"""What an encoder is: the step from preactivations u (..., m) to coefficients C (..., m), each C_j from its own u_j alone.

An encoder has settings but no tensors; what it tracks per site is the site's one `threshold`. Imports nothing of the core but its
errors and bounds.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ..bounds import Bounds
from ..errors import SparseDictError


class Encoder:
    """Parent of all encoders. A new one is one file and one line in the registry."""

    name: ClassVar[str] = ""
    #: Settings by name with their defaults.
    defaults: ClassVar[dict[str, Any]] = {}
    #: What each setting may be: files come from strangers.
    bounds: ClassVar[dict[str, Bounds]] = {}
    #: No coefficient is negative.
    one_sided: ClassVar[bool] = False
    #: C = ReLU(u − threshold): the threshold can then go into the bias.
    rectifies: ClassVar[bool] = False
    #: The threshold follows the (1 − density) quantile of |u| in training, by the setting `momentum`, and is frozen after it.
    running: ClassVar[bool] = False

    def __init__(self, /, **settings: Any) -> None:
        """Raises SparseDictError for an unknown setting, or a value out of its bounds."""
        unknown = sorted(set(settings) - set(self.defaults))
        if unknown:
            known = ", ".join(self.defaults) or "none"
            raise SparseDictError(f"encoder {self.name!r} has no setting {unknown[0]!r}: its settings are {known}.")
        self.settings: dict[str, Any] = {**self.defaults, **settings}
        for name, value in settings.items():
            if not self.bounds[name].hold(value):
                raise SparseDictError(f"encoder {self.name!r} has the setting {name} = {value!r:.60}: give {self.bounds[name]}.")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Encoder) and type(self) is type(other) and self.settings == other.settings

    def __hash__(self) -> int:
        return hash((self.name, repr(sorted(self.settings.items()))))

    def initial_threshold(self) -> Tensor:
        """The threshold () of a fresh site."""
        return torch.zeros(())

    def coefficients(self, u: Tensor, threshold: Tensor) -> Tensor:
        """C (..., m) for u (..., m) and the threshold ()."""
        raise NotImplementedError

    def preactivations_for(self, c: Tensor, threshold: Tensor) -> Tensor:
        """Some u whose coefficients are `c` (…, m); where c is negative and the encoder one-sided, a u that stays silent."""
        return c
