"""The rotations by name, over all sites of a dictionary."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.errors import SparseDictError
from ..sparsedict_core.rotation import Mix, principal, rotate, varimax


def independent(coefficients: Tensor) -> Tensor:
    """The mix whose coefficients are as independent as can be (FastICA). Raises SparseDictError without scikit-learn."""
    try:
        from sklearn.decomposition import FastICA
        from sklearn.exceptions import ConvergenceWarning
    except ImportError as error:
        raise SparseDictError("the rotation 'ica' needs scikit-learn; install it, or choose svd or varimax.") from error
    spread = coefficients.std(0).clamp(min=1e-12)
    model = FastICA(whiten="unit-variance", random_state=0, max_iter=300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the best mix so far is a mix like any other
        model.fit((coefficients / spread).numpy())
    return torch.from_numpy(model.components_) / spread


ROTATIONS: dict[str, Mix] = {"svd": principal, "varimax": varimax, "ica": independent}


def rotated(adapter: SparseAdapter, coefficients: Mapping[str, Tensor], rotation: str) -> SparseAdapter:
    """A new dictionary of the same update. `coefficients` (N, m) by site key, of calibration inputs; sites without atoms stay."""
    if rotation not in ROTATIONS:
        raise SparseDictError(f"{rotation!r} is no rotation; choose {', '.join(ROTATIONS)}.")
    sites = [rotate(site, coefficients[key], ROTATIONS[rotation]) if site.atoms else site.clone() for key, site in adapter.sites.items()]
    made = SparseAdapter(sites, adapter.config, adapter.component, dict(adapter.metadata), [replace(member) for member in adapter.members])
    made.aside = dict(adapter.aside)
    made.add_step({"operation": "rotate", "rotation": rotation})
    return made
