"""What a site's module takes and gives, as tokens (..., channels): a convolution is a Linear over patches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .errors import SiteError


def is_convolution(module: Any) -> bool:
    """Whether the module is a convolution of a kind that can be a site: over pictures, not in groups, padded with zeros."""
    return isinstance(module, nn.Conv2d) and module.groups == 1 and module.padding_mode == "zeros"


def first_tensor(key: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The input of a module's call. Raises SiteError, naming the site `key`, if there is none."""
    x = args[0] if args else next(iter(kwargs.values()), None)
    if not isinstance(x, Tensor):
        raise SiteError(f"{key}: the module was called without a tensor as its first argument; it cannot be a site.")
    return x


def input_tokens(module: nn.Module, x: Tensor) -> Tensor:
    """(..., d_in): x itself, or the patches (B, places, channels · height · width) that a convolution sees."""
    if not isinstance(module, nn.Conv2d):
        return x
    if not is_convolution(module):
        raise SiteError("a convolution in groups or with padding other than zeros cannot be a site; leave it out.")
    if isinstance(module.padding, str):
        raise SiteError(f"a convolution with padding {module.padding!r} cannot be a site; leave it out.")
    return F.unfold(x, module.kernel_size, module.dilation, module.padding, module.stride).transpose(-1, -2)


def output_tokens(module: nn.Module, output: Any) -> tuple[Any, Callable[[Tensor], Tensor] | None]:
    """The output as tokens (..., d_out), and the way back where it is another than to do nothing."""
    if not isinstance(module, nn.Conv2d) or not isinstance(output, Tensor):
        return output, None
    return output.flatten(-2).transpose(-1, -2), lambda tokens: tokens.transpose(-1, -2).reshape(output.shape)
