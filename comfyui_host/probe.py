"""Watching an applied adapter while the host samples: which atoms the positive prompt sets off, when and where."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.errors import SparseDictError
from ..sparsedict_core.fired import FiredAtom, fired_atoms
from ..sparsedict_core.importance import ImportanceStats
from ..sparsedict_core.site import SparseSite
from ..sparsedict_core.token_grid import has_places
from .injection import KEY, applied_to
from .sites import host_family

PARTS = ("start", "middle", "end")
POSITIVE, OTHER = "positive", "other"

#: Families whose joint tokens are the picture's first and then the text's.
TEXT_LAST = ("hunyuan_video",)


class Probe:
    """`patcher` is a clone to be sampled once; afterwards the other methods say what happened."""

    def __init__(self, patcher: Any, position: int) -> None:
        """Watches the adapter at `position` of `applied_to(patcher)`."""
        from comfy.patcher_extension import WrappersMP

        self.patcher = patcher.clone()
        self.applied = applied_to(self.patcher)[position]
        self.adapter = self.applied.adapter
        self.text_first = host_family(patcher) not in TEXT_LAST
        self.stats = ImportanceStats()
        self.parts = PARTS
        self._maps: dict[str, Tensor] = {}
        self._calls = 0
        self._rows: list[int] = []
        self._index: Tensor | None = None  # the same, where the model is
        self.patcher.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, KEY, self._while_sampling)
        self.patcher.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, self._each_call)

    # -- wrappers -------------------------------------------------------------------------------------------

    def _while_sampling(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        # Only now is the patcher loaded, and its hooks there.
        attachment = self.applied.attachment(self.patcher)
        if attachment is None:
            raise SparseDictError("the sparse dictionary is not at work on the model; apply it again right before the probe.")
        with ExitStack() as stack:
            stack.enter_context(self.stats.collect(attachment))
            stack.enter_context(attachment.tap(self._gather))
            return executor(*args, **kwargs)

    def _each_call(self, executor: Any, x: Tensor, sigma: Tensor, *args: Any, **kwargs: Any) -> Any:
        options = kwargs.get("transformer_options") or next((a for a in args if isinstance(a, dict) and "cond_or_uncond" in a), {})
        chunks = options.get("cond_or_uncond") or [0]
        each = max(1, x.shape[0] // len(chunks))
        prompts = [POSITIVE if chunk == 0 else OTHER for chunk in chunks for _ in range(each)]
        self._rows, self._index = [row for row, prompt in enumerate(prompts) if prompt == POSITIVE], None
        self._calls += bool(self._rows)
        self.stats.label(self._part(float(sigma.max()), options.get("sample_sigmas")), prompts)
        return executor(x, sigma, *args, **kwargs)

    def _part(self, sigma: float, sigmas: Tensor | None) -> str:
        if sigmas is None or len(sigmas) < 2:
            return PARTS[0]
        step = int((sigmas[:-1] >= sigma * (1 - 1e-6)).sum()) - 1
        return PARTS[min(len(PARTS) - 1, max(0, step) * len(PARTS) // (len(sigmas) - 1))]

    def _gather(self, key: str, site: SparseSite, x: Tensor, coefficients: Tensor, update: Tensor, output: Tensor) -> None:
        if not self._rows or site.atoms == 0 or not has_places(site.name.stream):
            return
        c = coefficients.detach()
        if len(self._rows) < c.shape[0]:
            if self._index is None:
                self._index = torch.tensor(self._rows).to(c.device, non_blocking=True)
            c = c.index_select(0, self._index)
        # Summed where it is: reading it here would make a GPU wait at every site and step.
        strengths = c.abs().float().mean(0).reshape(-1, c.shape[-1])
        self._maps[key] = self._maps[key] + strengths if key in self._maps else strengths

    # -- what happened --------------------------------------------------------------------------------------

    def strongest(self, latent_size: tuple[int, ...]) -> list[FiredAtom]:
        """All atoms that fired for the positive prompt, strongest first; `latent_size` (h, w) or (frames, h, w)."""
        maps = {key: total.cpu() / max(1, self._calls) for key, total in self._maps.items()}
        return fired_atoms(
            self.stats, self.adapter, maps, latent_size, prompt=POSITIVE, buckets=PARTS, gains=self.applied.gains, text_first=self.text_first
        )

    def with_importance(self) -> SparseAdapter:
        """A copy of the adapter whose importance and firing rates are those of the positive prompt."""
        copy = self.adapter.clone()
        for key, site in copy.sites.items():
            if key in self.stats.site_keys:
                site.importance = self.stats.contribution(self.adapter, key, prompt=POSITIVE).float().to(site.importance.device)
                site.firing = self.stats.firing_rate(key, prompt=POSITIVE).float().to(site.importance.device)
            else:
                site.importance = torch.zeros_like(site.importance)
                site.firing = None
        return copy


def picture(patcher: Any, latents: Tensor, vae: Any = None) -> Any:
    """The first picture of `latents` as PIL: decoded, or in the rough colours that the host knows for the family's latents."""
    from PIL import Image

    if vae is not None:
        decoded = vae.decode(latents[:1])
        frame = decoded.reshape(-1, *decoded.shape[-3:])[0]
        return Image.fromarray((frame.clamp(0, 1) * 255).round().byte().cpu().numpy())
    layout = patcher.model.latent_format
    inner = layout.process_in(latents[:1].float().cpu())
    if getattr(layout, "latent_rgb_factors_reshape", None) is not None:
        inner = layout.latent_rgb_factors_reshape(inner)
    first = inner[0, :, 0] if inner.ndim == 5 else inner[0]
    factors = getattr(layout, "latent_rgb_factors", None)
    if factors is None:
        grey = first.mean(0)
        colours = (grey / (2 * grey.abs().max().clamp(min=1e-6)) + 0.5)[None].expand(3, -1, -1)
    else:
        bias = torch.tensor(getattr(layout, "latent_rgb_factors_bias", None) or [0.0, 0.0, 0.0])
        colours = (torch.einsum("chw,cr->rhw", first, torch.tensor(factors)) + bias[:, None, None]) / 2 + 0.5
    small = Image.fromarray((colours.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy())
    return small.resize((small.width * 8, small.height * 8), Image.Resampling.BICUBIC)
