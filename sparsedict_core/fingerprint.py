"""What tells one base model's weights from another's: the quiet samples' cache and the warnings about a wrong base use it.

Only the sites' weights are read, under the names that files have, so that a model has one fingerprint in every host.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from .places import places_of
from .site import SiteName

_VALUES = 4096
#: A file in either comes out the same in both, once rounded to fp16.
_EXACT = (torch.float32, torch.float16)


def fingerprint(model: Any, sites: Iterable[SiteName], component: str = "") -> str:
    """16 hex digits: a hash over the sites' names and the first 4,096 values of their weights, in fp16.

    Weights that are held in another type ("-bfloat16") say so: rounding made them other numbers than those in the file.
    Raises SiteError if a site is not in the model.
    """
    places = places_of(model, sites, component)
    digest, kinds = hashlib.sha256(), set()
    for place, (module, rows) in sorted(places.items(), key=lambda item: item[0]):
        weight = stored(getattr(module, "weight", None))
        if not isinstance(weight, Tensor):
            kinds.add("packed")  # quantised in a form of its own
            continue
        if rows is not None:
            weight = weight[slice(*rows)]
        digest.update(place.encode())
        values = weight.detach().flatten()[:_VALUES]
        if values.is_floating_point() and values.dtype.itemsize > 1:
            values = values.float().to(torch.float16)
        digest.update(values.cpu().contiguous().view(torch.uint8).numpy().tobytes())
        if weight.dtype not in _EXACT:
            kinds.add(str(weight.dtype).removeprefix("torch."))
    return "-".join([digest.hexdigest()[:16], *sorted(kinds)])


def stored(weight: Any) -> Any:
    """The tensor that has a weight's numbers: quantisers wrap it in a class of their own, beside its scales; one that is spread over
    processes is put together, which all of them must ask for."""
    if hasattr(weight, "full_tensor"):
        return weight.full_tensor()
    while isinstance(weight, Tensor) and hasattr(weight, "__tensor_flatten__"):
        weight = getattr(weight, weight.__tensor_flatten__()[0][0])
    return weight


def differ(one: str | None, other: str | None) -> bool:
    """Whether two fingerprints say that the weights differ; unknown ones and ones of different precision say nothing."""
    if not one or not other:
        return False
    return one.split("-")[1:] == other.split("-")[1:] and one != other
