"""What tells one base model's weights from another's: the quiet samples' cache and the warnings about a wrong base use it."""

from __future__ import annotations

import hashlib

from torch import nn

_VALUES = 4096


def fingerprint(model: nn.Module) -> str:
    """16 hex digits: a hash over the names and the first 4,096 values of each parameter, in fp32."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.named_parameters()):
        digest.update(name.encode())
        digest.update(tensor.detach().flatten()[:_VALUES].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
