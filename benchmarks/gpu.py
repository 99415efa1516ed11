"""What a GPU has to show, in one go: `python -m sparsedict.benchmarks.gpu`. Prints one line a check; on a CPU tiny shapes, and what was skipped.

Tests of core and trainer (those for a GPU are then not skipped), a training in bf16, one SDXL step of real width beside peft's LoRA, the adapter
under torch.compile and in a CUDA graph. Weights are random: nothing is downloaded.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..sparsedict_core import AdapterConfig, SparseAdapter, TrainingSession, discover_sites
from ..tools.make_demo_images import concept_data
from ..trainer import Callbacks, TrainConfig, train
from ..trainer.backends import open_backend
from ..trainer.revival import DeadAtoms
from .layer.models import denoiser_of, fill, made_on, no_initialisation
from .timing import seconds_of

ROOT = Path(__file__).resolve().parents[1]
REPEATS = 5


def tests() -> str:
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "tests" / "pytest.ini"), "--rootdir", str(ROOT / "tests"), "-q"]
    done = subprocess.run([*command, str(ROOT / "tests" / "core"), str(ROOT / "tests" / "trainer")], capture_output=True, text=True, cwd=ROOT)
    return f"tests of core and trainer: {(done.stdout.strip().splitlines() or ['no output'])[-1]} (exit code {done.returncode})"


def training(device: torch.device, dtype: torch.dtype, steps: int) -> str:
    """The whole loop on the embedded base."""
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(out=Path(folder) / "a.safetensors", cache=folder, steps=steps, batch_size=4, quiet_samples=4, quiet_sampling_steps=2, placeholder="zorp")
        result = train(config, open_backend("demo", device, dtype), concept_data("zorp"), Callbacks())
    return f"training in {dtype} on {device}: {result.steps} steps, {result.seconds / result.steps:.3f} s each, loss {result.log[-1]['loss']:.3f}"


def unet(device: torch.device, dtype: torch.dtype, tiny: bool) -> tuple[nn.Module, dict[str, Any]]:
    """SDXL's denoiser with random weights, and the arguments of one call at 1024²; or a small one of its kind."""
    import diffusers

    with no_initialisation(), made_on(device, dtype):
        if tiny:
            model: nn.Module = diffusers.UNet2DConditionModel(
                sample_size=8, block_out_channels=(32, 64), layers_per_block=1, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=[2, 4], cross_attention_dim=16, norm_num_groups=8,
            )  # fmt: skip
        else:
            model, _ = denoiser_of("sdxl", full=True)
    fill(model)
    side, text, width = (8, 4, 16) if tiny else (128, 77, 2048)
    values = {"sample": torch.randn(1, 4, side, side), "timestep": torch.tensor([500.0]), "encoder_hidden_states": torch.randn(1, text, width)}
    inputs: dict[str, Any] = {name: value.to(device, dtype) for name, value in values.items()}
    if not tiny:
        added = {"text_embeds": torch.randn(1, 1280), "time_ids": torch.zeros(1, 6)}
        inputs["added_cond_kwargs"] = {name: value.to(device, dtype) for name, value in added.items()}
    return model.eval().requires_grad_(False), inputs


def step_of(device: torch.device, run: Callable[[], Tensor], parameters: list[nn.Parameter], around: Callable[[Tensor], Tensor], end: Callable[[], None]) -> str:
    """Seconds and peak bytes of a training step on what is attached."""
    optimiser = torch.optim.Adam(parameters, lr=1e-4)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        around(run().float().square().mean()).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        end()

    step()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = sorted(seconds_of(step, device) for _ in range(REPEATS))[REPEATS // 2]
    memory = f"{torch.cuda.max_memory_allocated(device) / 1e9:.2f} GB at its peak" if device.type == "cuda" else "memory not measured (no GPU)"
    return f"{seconds:.3f} s, {memory}, {sum(p.numel() for p in parameters):,} numbers"


def steps(device: torch.device, dtype: torch.dtype, tiny: bool) -> list[str]:
    """One row of a step: our adapter with the quiet term's energies and the counting of dead atoms, and peft's LoRA of the same rank."""
    from peft import LoraConfig, inject_adapter_in_model

    model, inputs = unet(device, dtype, tiny)
    name, found = "a tiny U-Net" if tiny else "SDXL at 1024²", discover_sites(model)

    def run() -> Tensor:
        return model(**inputs, return_dict=False)[0]

    adapter = SparseAdapter.create(model, found.sites, AdapterConfig(), found.component).trainable().to(device)
    with adapter.attach(model, component=found.component) as attachment:
        session, dead = TrainingSession(attachment, energies=True), DeadAtoms(adapter)
        attachment.tap(lambda key, site, x, c, update, output: session.recording and dead.observe(key, c))

        def begun() -> Tensor:
            session.begin(0.1, rows=1)
            return run()

        def with_energies(loss: Tensor) -> Tensor:
            return loss + 0.03 * torch.stack(list(session.end_forward().energies.values())).mean()

        def end() -> None:
            session.commit()
            dead.end_step(None)

        lines = [f"step of {name}, ours: {step_of(device, begun, [p for _, p in adapter.trainable_parameters()], with_energies, end)}"]
    targets = [site.path.removeprefix(found.component + ".") for site in found.sites]
    inject_adapter_in_model(LoraConfig(r=16, target_modules=targets), model)
    lora = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [*lines, f"step of {name}, LoRA r16: {step_of(device, run, lora, lambda loss: loss, lambda: None)}"]


@torch.no_grad()
def compiled(device: torch.device, dtype: torch.dtype, tiny: bool) -> list[str]:
    """The adapter in compiled code and in a captured graph, followed through a change of its strength."""
    model, inputs = unet(device, dtype, tiny)
    found = discover_sites(model)
    adapter = SparseAdapter.create(model, found.sites, AdapterConfig(), found.component).to(device)
    for site in adapter.sites.values():
        assert site.dictionary_basis is not None
        site.dictionary_basis.normal_(std=0.05)
    lines, cuda = [], device.type == "cuda"

    def error(one: Tensor, other: Tensor) -> float:
        return float((one.float() - other.float()).norm() / other.float().norm())

    with adapter.requires_grad_(False).attach(model, component=found.component) as attachment:
        plain = {}
        for strength in (1.0, 0.4):
            attachment.strength = strength
            plain[strength] = model(**inputs, return_dict=False)[0].clone()
        fast = torch.compile(model, backend="inductor" if cuda else "eager")
        for strength in (1.0, 0.4):
            attachment.strength = strength
            lines.append(f"compiled{'' if cuda else ' (eager backend: no GPU)'}, strength {strength}: off by {error(fast(**inputs, return_dict=False)[0], plain[strength]):.1e}")
        if not cuda:
            return [*lines, "CUDA graph: skipped (no GPU)"]
        attachment.capturable = True
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            model(**inputs, return_dict=False)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = model(**inputs, return_dict=False)[0]
        for strength in (1.0, 0.4):
            attachment.strength = strength
            graph.replay()
            lines.append(f"CUDA graph, strength {strength}: off by {error(captured, plain[strength]):.1e}")
    return lines


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-tests", action="store_true", help="without the tests, which take longest")
    chosen = parser.parse_args(arguments)
    cuda = torch.cuda.is_available()
    device, dtype = torch.device("cuda" if cuda else "cpu"), torch.bfloat16 if cuda else torch.float32
    print(f"{torch.cuda.get_device_name() if cuda else 'no GPU here: tiny shapes in fp32, to see that all of it runs'}; torch {torch.__version__}", flush=True)
    print("tests: skipped, as asked" if chosen.no_tests else tests(), flush=True)
    print(training(device, dtype, 20 if cuda else 2), flush=True)
    for part in (steps, compiled):
        print("\n".join(part(device, dtype, tiny=not cuda)), flush=True)


if __name__ == "__main__":
    main()
