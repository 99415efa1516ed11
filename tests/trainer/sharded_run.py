"""A few steps on a diffusers folder, in this process or, with its base spread, in several."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from few_probes import probe_few_rows

from sparsedict.trainer import Callbacks, ConceptData, TrainConfig, train
from sparsedict.trainer.backends import open_backend
from sparsedict.trainer.backends.placement import weight_bytes


class Previews(Callbacks):
    def __init__(self):
        self.seen = []

    def on_preview(self, step, prompts, images, base_images):
        self.seen.append(images)


def run(model: Path, out: Path, spread: bool):
    torch.set_num_threads(1)
    backend = open_backend(model, spread=spread)
    pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    config = TrainConfig(
        out=out, steps=3, batch_size=4, atoms=16, rank=4, resolution=16, quiet_samples=3, quiet_sampling_steps=1, warmup_steps=0, gradient_accumulation=2,
        gradient_checkpointing=True, cache=out.parent, preview_prompts=["a zorp"], preview_every=3,
    )  # fmt: skip
    previews = Previews()
    result = train(config, backend, ConceptData.from_tensors(list(pictures), [["a zorp"], ["a zorp at night"]]), previews)
    return result, previews.seen, weight_bytes(backend.denoiser) / sum(parameter.numel() * 4 for parameter in backend.denoiser.parameters())


if __name__ == "__main__":
    probe_few_rows()
    for name in sys.argv[2:]:
        _, seen, share = run(Path(sys.argv[1]) / name, Path(sys.argv[1]) / "two" / f"{name}.safetensors", True)
        print(f"{name}: previews {len(seen)}, holds {share:.3f} of the weights", flush=True)
