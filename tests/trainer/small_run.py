"""A few training steps on a small base, as a function and as a program that can be killed."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from small_base import small_base

from sparsedict.demo_model.concepts import Prompt, render
from sparsedict.trainer import Callbacks, ConceptData, TrainConfig, train

SPOTS = (("center", "night"), ("left", "sand"), ("right", "forest"))


def zorp_data() -> ConceptData:
    prompts = [Prompt("zorp", place, ground) for place, ground in SPOTS]
    return ConceptData.from_tensors(list(render([prompt.scene for prompt in prompts], 0)[0]), [[prompt.caption] for prompt in prompts])


def settings(folder: Path, **more) -> TrainConfig:
    chosen = {"out": Path(folder) / "a.safetensors", "steps": 6, "batch_size": 4, "atoms": 24, "rank": 4, "warmup_steps": 2, "quiet_samples": 4,
              "quiet_sampling_steps": 1, "checkpoint_every": 2, "placeholder": "zorp", "revive_after": 3, "cache": folder, **more}  # fmt: skip
    return TrainConfig(**chosen)


def run(folder: Path, backend=None, callbacks=None, **more):
    torch.set_num_threads(1)
    return train(settings(folder, **more), backend or small_base(), zorp_data(), callbacks or Callbacks())


class Printing(Callbacks):
    """So that a test knows when to kill."""

    def on_step(self, report):
        print(f"step {report.step}", flush=True)

    def on_warning(self, text):
        print(text, flush=True)

    def on_stopped(self, step, steps, path, checkpoint):
        print(f"stopped after {step} of {steps}: {path}, {checkpoint}", flush=True)


if __name__ == "__main__":
    resume = "--resume" in sys.argv
    result = run(Path(sys.argv[1]), callbacks=Printing(), resume=resume, steps=int(sys.argv[2]))
    print(f"signal {result.signal}", flush=True)
