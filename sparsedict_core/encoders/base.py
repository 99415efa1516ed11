"""What an encoder is: the step from preactivations u (..., m) to coefficients C (..., m).

An encoder has settings but no tensors; what it learns or tracks per site is the site's one `threshold`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ..bounds import Bounds
from ..errors import SparseDictError
from ..functional import magnitude_quantile

#: Of a running threshold's old value in its new one.
MOMENTUM = Bounds(0, 1)


class Encoder:
    """Parent of all encoders. A new one is one file and one line in the registry."""

    name: ClassVar[str] = ""
    #: Settings by name with their defaults.
    defaults: ClassVar[dict[str, Any]] = {}
    #: What each setting may be: files come from strangers.
    bounds: ClassVar[dict[str, Bounds]] = {}
    #: Site tensors that are learned here though they are not by default; only "threshold" can be.
    learned: ClassVar[tuple[str, ...]] = ()
    #: Coefficient j depends on u_j alone. Only then do moments tell the energy of a selection exactly.
    atomwise: ClassVar[bool] = True
    #: No coefficient is negative.
    one_sided: ClassVar[bool] = False
    #: C = ReLU(u − threshold): the threshold can then go into the bias.
    rectifies: ClassVar[bool] = False
    #: Wants the inner products of the encoder's rows.
    needs_gram: ClassVar[bool] = False
    #: The threshold follows a running estimate during training and is frozen after it.
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

    def initial_threshold(self, atoms: int) -> Tensor:
        """The threshold of a fresh site: () or (m)."""
        return torch.zeros(())

    def coefficients(self, u: Tensor, threshold: Tensor, density: float | None = None, gram: Tensor | None = None) -> Tensor:
        """C (..., m) for u (..., m). `density` is the wanted one and is given in training only."""
        raise NotImplementedError

    def observed_threshold(self, u: Tensor, density: float) -> Tensor | None:
        """The threshold () that would give these preactivations the wanted density; None if none is tracked."""
        if not self.running:
            return None
        return magnitude_quantile(u, 1.0 - density)

    def preactivations_for(self, c: Tensor, threshold: Tensor) -> Tensor:
        """Some u whose coefficients are `c` (…, m); where c is negative and the encoder one-sided, a u that stays silent."""
        return c

    def penalty(self, c: Tensor, u: Tensor | None = None, threshold: Tensor | None = None) -> Tensor | None:
        """A term for the loss that makes C sparse, unweighted: mean over tokens, sum over atoms; or None."""
        return None


def l1_penalty(c: Tensor) -> Tensor:
    """Mean over tokens of Σ_j |C_j|."""
    return c.abs().sum(-1).mean()
