"""The host takes each tiny model for the family that it is meant to be, and samples it."""

import pytest
import tiny_models
import torch

CLASSES = {"sd3": "SD3", "sd15": "BaseModel", "sdxl": "SDXL", "wan": "WAN21", "hydit": "HunyuanDiT"}


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_the_host_recognises_and_samples_it(comfy, family):
    patcher = tiny_models.load(family)
    assert type(patcher.model).__name__ == CLASSES[family]
    first = tiny_models.sample(patcher, family)
    assert torch.isfinite(first).all() and first.std() > 1e-3
    assert torch.equal(first, tiny_models.sample(patcher, family))
