"""A base in the embedded one's place, for tests of all that a training does around its steps."""

import torch

from sparsedict.demo_model.architecture import LATENT_SIZE, build_transformer, transformer_config
from sparsedict.demo_model.pipeline import DemoPipeline
from sparsedict.trainer.backends.demo import DemoBackend


def small_base() -> DemoBackend:
    """The embedded base with two random blocks of an eighth of its width: all that a run does around its steps is the same, in a tenth of the
    time. Whether something is learned is a question for the embedded base itself (`demo` in trainer/conftest.py)."""
    pipeline = DemoPipeline.load()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = build_transformer({**transformer_config(2, LATENT_SIZE), "attention_head_dim": 16, "caption_projection_dim": 32})
    pipeline.transformer = transformer.eval().requires_grad_(False)
    return DemoBackend(pipeline)
