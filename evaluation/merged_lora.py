"""What LoRA users do to merge two: sum them, or peft's ties and dare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from ..trainer.backends.base import Backend
from .peers import PEERS, TrainedPeer, targets, unwrap

WAYS = ("sum", "ties", "dare_ties", "dare_linear")
DENSITY = 0.5  # of peft's ties and dare: what their papers and peft's own examples take


@contextmanager
def merged_loras(backend: Backend, loras: Sequence[TrainedPeer], strengths: Sequence[float], way: str) -> Iterator[None]:
    """Two or more trained LoRAs on the model within the block, as one. Raises ValueError for a way that is not in WAYS."""
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    if way not in WAYS:
        raise ValueError(f"{way!r} is no way to merge; give one of {', '.join(WAYS)}.")
    model, paths = backend.denoiser, targets(backend)
    names = [f"member{number}" for number in range(len(loras))]
    config = PEERS["lora"](loras[0].size)
    config.target_modules = set(paths)
    tuner = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](model, config, names[0])
    try:
        for name in names[1:]:
            tuner.peft_config[name] = config
            tuner.inject_adapter(model, name)
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name, lora in zip(names, loras, strict=True):
                for key, weight in lora.weights.items():
                    parameters[key.replace(".peer.", f".{name}.")].copy_(weight)
        # peft's "cat" is the sum of the products B·A, its "linear" adds A and B apart; users sum the products.
        torch.manual_seed(0)  # dare drops at random
        more = {} if way == "sum" else {"density": DENSITY}
        tuner.add_weighted_adapter(names, list(strengths), "merged", combination_type="cat" if way == "sum" else way, **more)
        tuner.set_adapter("merged")
        yield
    finally:
        unwrap(backend)
