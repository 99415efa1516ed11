"""Speed in the host, side by side with what it has itself: training steps, sampling, and changes of strength.

The host runs in this process, on one thread. All figures are CPU seconds, as wall clock says nothing on a machine that others use; what
is compared takes turns, and medians are kept. The host's folder is the one that `dev.py comfy` makes, or COMFYUI_ROOT.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import itertools
import json
import logging
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..sparsedict_core.adapter import SparseAdapter
from ..sparsedict_core.atomic_write import write_atomically
from ..sparsedict_core.config import AdapterConfig
from ..tools.comfy_host import PROJECT, default_root
from ..tools.host_in_process import make_base, start
from .timing import in_turns

TABLE = "E7-host"
IMAGES = 8
PROMPTS = ["a large red circle", "a small blue square", "a green triangle", "a yellow circle on the left"]
WARM_UP = 4  # steps of a run that are not counted
SAMPLING_STEPS, GUIDANCE = 20, 4.0
SHARES = (0.25, 0.10)


def find_host() -> Path:
    """The host's folder. Raises SystemExit with what to do."""
    root = default_root()
    if not (root / "main.py").exists():
        raise SystemExit(f"there is no ComfyUI at {root}; run `python3 dev.py comfy --setup-only`, or set COMFYUI_ROOT.")
    return root


def start_host(root: Path, folder: Path) -> str:
    """Make the host's modules importable, on the CPU, with folders of their own; returns its version."""
    start(root, make_base(folder))
    import comfy.utils
    import comfyui_version

    comfy.utils.PROGRESS_BAR_ENABLED = False
    logging.getLogger().setLevel(logging.WARNING)
    torch.set_num_threads(1)
    return str(comfyui_version.__version__)


# -- the models, with latents and conditioning ------------------------------------------------------------------


class Case:
    """One model: its patcher, LATENT samples (8 rows), a CONDITIONING for each, and others for quiet samples."""

    def __init__(self, name: str) -> None:
        self.name = name
        if name == "demo":
            from ..comfyui_host.demo_base import empty_latent, load_clip, load_model

            with torch.inference_mode():
                self.patcher, self.clip = load_model(), load_clip()
                self.positive = [self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text)) for text in PROMPTS * 2]
                self.negative = self.clip.encode_from_tokens_scheduled(self.clip.tokenize(""))
            shape = empty_latent(IMAGES)["samples"].shape
        else:
            tiny = tiny_models()
            self.patcher, self.clip = tiny.load(name), None
            self.positive = [tiny.conditioning(name, seed) for seed in range(IMAGES)]
            self.negative = tiny.conditioning(name, 99)
            shape = tiny.latent(name, IMAGES)["samples"].shape
        # As empty latents are on the host; noise would be as good.
        self.samples = torch.randn(shape, generator=torch.Generator().manual_seed(5))

    def backend(self) -> Any:
        """Our training backend on a fresh clone, and its data."""
        from ..trainer.backends.comfyui import ComfyBackend
        from ..trainer.data import ConceptData

        backend = ComfyBackend(self.patcher, steps=2)
        captions = [f"conditioning {row}" for row in range(IMAGES)]
        with torch.inference_mode(False):
            for caption, conditioning in zip(["", *captions], [self.negative, *self.positive]):
                backend.register(caption, conditioning)
            return backend, ConceptData.from_latents(list(backend.latents_in(self.samples)), captions)


def tiny_models() -> Any:
    """The tests' small random models, one a family."""
    path = PROJECT / "tests" / "comfy" / "tiny_models.py"
    if path.stem not in sys.modules:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        sys.modules[path.stem] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
        spec.loader.exec_module(sys.modules[path.stem])
    return sys.modules[path.stem]


# -- (a) training steps -----------------------------------------------------------------------------------------


def host_parameters(patcher: Any, rank: int) -> int:
    """What TrainLoraNode trains: factors for every matrix, and each vector itself."""
    total = 0
    for module in patcher.model.modules():
        if hasattr(module, "weight_function"):
            weight, bias = module.weight, getattr(module, "bias", None)
            total += 0 if weight is None else rank * (weight.shape[0] + weight[0].numel()) if weight.ndim > 1 else weight.numel()
            total += 0 if bias is None else bias.numel()
    return total


def site_widths(patcher: Any) -> list[tuple[int, int]]:
    """(d_in, d_out) of every site."""
    from ..comfyui_host.sites import host_sites

    return [(module.weight.shape[1], module.weight.shape[0]) for module in host_sites(patcher).modules.values()]


def our_parameters(widths: list[tuple[int, int]], atoms: int, rank: int) -> int:
    return sum(2 * atoms * rank + atoms + rank * (a + b) for a, b in widths)


def nearest(count: Callable[[int], int], wanted: int) -> int:
    """The setting from 1 to 4096 whose number of parameters is nearest to `wanted`."""
    return min(range(1, 4097), key=lambda value: abs(count(value) - wanted))


def step_seconds(times: list[float]) -> float:
    """CPU seconds a step, from the times at the end of each; the first steps are left out."""
    return (times[-1] - times[WARM_UP - 1]) / (len(times) - WARM_UP)


def host_step(case: Case, steps: int, batch: int, rank: int, dtype: str, checkpointing: bool) -> float:
    import comfy_extras.nodes_train as host

    times: list[float] = []
    bar = host.ProgressBar

    class Clock(bar):  # updated once a step
        def update(self, value: int) -> None:
            super().update(value)
            times.append(time.process_time())

    one = {
        "model": case.patcher, "batch_size": batch, "steps": steps, "grad_accumulation_steps": 1, "learning_rate": 1e-4, "rank": rank,
        "optimizer": "Adam", "loss_function": "MSE", "seed": 1, "training_dtype": dtype, "lora_dtype": "fp32",
        "algorithm": next(iter(host.adapter_maps)), "gradient_checkpointing": checkpointing, "existing_lora": "[None]",
    }  # fmt: skip
    host.ProgressBar = Clock
    try:
        with torch.inference_mode():
            host.TrainLoraNode.execute(
                # One LATENT of several pictures fails on 0.3.75.
                latents=[{"samples": row[None].clone()} for row in case.samples],
                positive=case.positive,
                **{name: [value] for name, value in one.items()},
            )
    finally:
        host.ProgressBar = bar
    return step_seconds(times)


def our_step(case: Case, steps: int, batch: int, atoms: int, rank: int, dtype: str, checkpointing: bool, quiet: bool, cache: Path) -> float:
    from ..nodes.train_events import HostCallbacks
    from ..trainer import TrainConfig
    from ..trainer.backends.comfyui import train_in_host

    times: list[float] = []

    class Clock(HostCallbacks):  # what the node itself hands over
        def on_step(self, report: Any) -> None:
            super().on_step(report)
            times.append(time.process_time())

    backend, data = case.backend()
    config = TrainConfig(
        out=cache / "speed.safetensors", overwrite=True, steps=steps, batch_size=batch, atoms=atoms, rank=rank, seed=1, learning_rate=1e-4,
        precision=dtype, gradient_checkpointing=checkpointing, cache=cache, moments=False, checkpoint_every=10**6,
        **({"quiet_samples": IMAGES, "quiet_prompts": ["conditioning 0", "conditioning 1"]} if quiet else {"quiet_samples": 0}),
    )  # fmt: skip
    with torch.inference_mode():
        train_in_host(config, backend, lambda: data, Clock(None))
    return step_seconds(times)


def training(case: Case, batch: int, lora_rank: int, ours: tuple[int | None, int | None], dtype: str, checkpointing: bool, steps: int, repeats: int,
             cache: Path) -> dict[str, Any]:  # fmt: skip
    """One comparison; of `ours` (atoms, rank) the one that is None is chosen such that as many numbers are trained."""
    widths, wanted = site_widths(case.patcher), host_parameters(case.patcher, lora_rank)
    atoms, rank = ours
    if rank is None:
        assert atoms is not None
        rank = nearest(lambda value: our_parameters(widths, atoms, value), wanted)
    if atoms is None:
        atoms = nearest(lambda value: our_parameters(widths, value, rank), wanted)
    runs: dict[str, Callable[[], float]] = {
        "host": lambda: host_step(case, steps, batch, lora_rank, dtype, checkpointing),
        "ours": lambda: our_step(case, steps, batch, atoms, rank, dtype, checkpointing, False, cache),
    }
    if batch > 1:
        runs["ours_quiet"] = lambda: our_step(case, steps, batch, atoms, rank, dtype, checkpointing, True, cache)
    result: dict[str, Any] = {
        "what": "training", "model": case.name, "batch": batch, "dtype": dtype, "checkpointing": checkpointing,
        "host_rank": lora_rank, "host_parameters": wanted, "atoms": atoms, "rank": rank, "parameters": our_parameters(widths, atoms, rank),
    }  # fmt: skip
    try:
        return {**result, **in_turns(runs, repeats, warm_up=0)}
    except RuntimeError as error:
        return {**result, "failed": str(error)[:200]}


# -- (b) sampling -----------------------------------------------------------------------------------------------


def full_adapter(case: Case, atoms: int = 128, rank: int = 16) -> SparseAdapter:
    """An adapter on all sites that does something, with about a tenth of its coefficients at work."""
    from ..comfyui_host.sites import alias_tree, host_sites

    sites = host_sites(case.patcher)
    metadata = {"base_family": sites.family}
    with torch.inference_mode(False):
        adapter = SparseAdapter.create(alias_tree(sites), sites.names, AdapterConfig(atoms=atoms, rank=rank), sites.component, 0, metadata)
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for site in adapter.sites.values():
                assert site.dictionary_basis is not None
                site.dictionary_basis.copy_(1e-3 * torch.randn(site.dictionary_basis.shape, generator=generator))
                site.threshold.fill_(1.5)
        adapter.requires_grad_(False)
    return adapter


def kept(adapter: SparseAdapter, share: float) -> dict[str, Tensor]:
    """Gains that keep `share` of every site's atoms, spread over it."""
    gains = {}
    for key, site in adapter.sites.items():
        order = torch.randperm(site.atoms, generator=torch.Generator().manual_seed(len(gains)))
        gains[key] = torch.zeros(site.atoms).index_fill(0, order[: max(1, round(site.atoms * share))], 1.0)
    return gains


def lora_weights(patcher: Any, names: list[str], rank: int) -> dict[str, Tensor]:
    """A LoRA file for the modules of these names (within the host's model)."""
    modules, generator = dict(patcher.model.named_modules()), torch.Generator().manual_seed(8)
    weights = {}
    for name in names:
        out, into = modules[name].weight.shape[0], modules[name].weight[0].numel()
        weights[f"{name}.lora_down.weight"] = torch.randn(rank, into, generator=generator) / into**0.5
        weights[f"{name}.lora_up.weight"] = 1e-3 * torch.randn(out, rank, generator=generator)
        if modules[name].weight.ndim == 4:
            weights[f"{name}.lora_down.weight"] = weights[f"{name}.lora_down.weight"].view(rank, *modules[name].weight.shape[1:])
            weights[f"{name}.lora_up.weight"] = weights[f"{name}.lora_up.weight"].view(out, rank, 1, 1)
    return weights


def names_of(case: Case, every: bool = False) -> list[str]:
    """The host's names of the sites' modules, or of all that have matrices."""
    from ..comfyui_host.sites import host_sites

    sites = set(map(id, host_sites(case.patcher).modules.values()))
    return [
        name
        for name, module in case.patcher.model.named_modules()
        if id(module) in sites
        or (every and getattr(module, "weight", None) is not None and module.weight.ndim in (2, 4) and "embedder" not in name)
    ]


class LowRank(nn.Module):
    """B(A x)·scale, as peft computes it beside the module."""

    def __init__(self, down: Tensor, up: Tensor) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(down.shape[1], down.shape[0], bias=False), nn.Linear(up.shape[1], up.shape[0], bias=False)
        self.down.weight, self.up.weight = nn.Parameter(down, requires_grad=False), nn.Parameter(up, requires_grad=False)
        self.scale = 1.0

    def hook(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        return output + self.up(self.down(args[0])) * self.scale


@contextlib.contextmanager
def unmerged(case: Case, weights: dict[str, Tensor]) -> Iterator[None]:
    """The LoRA beside its modules."""
    modules = dict(case.patcher.model.named_modules())
    handles = []
    for name in names_of(case):
        low = LowRank(weights[f"{name}.lora_down.weight"], weights[f"{name}.lora_up.weight"])
        handles.append(modules[name].register_forward_hook(low.hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def sampling(case: Case, rows: int, repeats: int) -> dict[str, Any]:
    import comfy.sd

    import nodes

    from ..comfyui_host.injection import apply_adapter

    adapter = full_adapter(case)
    widths = site_widths(case.patcher)
    parameters = our_parameters(widths, 128, 16)
    rank = nearest(lambda value: sum(value * (a + b) for a, b in widths), parameters)
    weights = lora_weights(case.patcher, names_of(case), rank)
    latent = {"samples": torch.zeros(rows, *case.samples.shape[1:])}

    def sample(patcher: Any) -> float:
        with torch.inference_mode():
            # Loading is no part of it.
            nodes.common_ksampler(patcher, 1, 1, GUIDANCE, "euler", "normal", case.positive[0], case.negative, latent)
            began = time.process_time()
            nodes.common_ksampler(patcher, 1, SAMPLING_STEPS, GUIDANCE, "euler", "normal", case.positive[0], case.negative, latent)
            return time.process_time() - began

    def beside() -> float:
        with unmerged(case, weights):
            return sample(case.patcher)

    merged, _ = comfy.sd.load_lora_for_models(case.patcher, None, weights, 1.0, 0)
    assert len(merged.patches) == len(widths)
    whole = apply_adapter(case.patcher, adapter)
    runs: dict[str, Callable[[], float]] = {
        "base": lambda: sample(case.patcher),
        "merged_lora": lambda: sample(merged),
        "unmerged_lora": beside,
        "ours": lambda: sample(whole),
    }
    for share in SHARES:
        patcher = apply_adapter(case.patcher, adapter, gains=kept(adapter, share))
        runs[f"ours_{share:.0%}"] = lambda patcher=patcher: sample(patcher)
    if hasattr(comfy.sd, "load_bypass_lora_for_models"):
        bypass, _ = comfy.sd.load_bypass_lora_for_models(case.patcher, None, weights, 1.0, 0)
        runs["bypass_lora"] = lambda: sample(bypass)
    return {
        "what": "sampling", "model": case.name, "rows": rows, "steps": SAMPLING_STEPS, "atoms": 128, "rank": 16, "parameters": parameters,
        "lora_rank": rank, "lora_parameters": sum(tensor.numel() for tensor in weights.values()), **in_turns(runs, repeats),
    }  # fmt: skip


# -- (c) changes ------------------------------------------------------------------------------------------------


def changes(case: Case, repeats: int) -> dict[str, Any]:
    """From another strength to a model that is ready to sample: the node's own work and the host's loading."""
    import comfy.model_management as management
    import comfy.sd

    from ..comfyui_host.injection import apply_adapter

    adapter, widths = full_adapter(case), site_widths(case.patcher)
    selections = itertools.cycle([kept(adapter, share) for share in SHARES])
    strengths = itertools.cycle([0.5, 0.6, 0.7])
    rank = nearest(lambda value: sum(value * (a + b) for a, b in widths), our_parameters(widths, 128, 16))
    same, every = lora_weights(case.patcher, names_of(case), rank), lora_weights(case.patcher, names_of(case, every=True), 16)
    held: list[Any] = [None]

    def timed(make: Callable[[], Any]) -> float:
        # The second of two, so that what went before is of the same kind.
        for _ in range(2):
            with torch.inference_mode():
                began = time.process_time()
                patcher = make()
                management.load_models_gpu([patcher])
                took = time.process_time() - began
            held[0] = patcher  # the last one goes after the clock has stopped
        gc.collect()
        return took

    runs: dict[str, Callable[[], float]] = {
        "lora_same_sites": lambda: timed(lambda: comfy.sd.load_lora_for_models(case.patcher, None, same, next(strengths), 0)[0]),
        "lora_everywhere": lambda: timed(lambda: comfy.sd.load_lora_for_models(case.patcher, None, every, next(strengths), 0)[0]),
        "nothing": lambda: timed(case.patcher.clone),
        "ours_strength": lambda: timed(lambda: apply_adapter(case.patcher, adapter, next(strengths))),
        "ours_selection": lambda: timed(lambda: apply_adapter(case.patcher, adapter, 1.0, next(selections))),
    }
    size = sum(parameter.numel() for parameter in case.patcher.model.parameters())
    result = in_turns(runs, repeats)
    management.load_models_gpu([case.patcher])
    return {
        "what": "change",
        "model": case.name,
        "model_parameters": size,
        "sites": len(widths),
        "lora_rank": rank,
        "everywhere": len(names_of(case, True)),
        **result,
    }


# -- all of it --------------------------------------------------------------------------------------------------


def measure(parts: Sequence[str], models: Sequence[str], results: Path, repeats: int, say: Callable[[str], None]) -> None:
    """Measure `parts` (of ROWS) on `models` (of MODELS); one file for each pair, written anew after each row."""
    root = find_host()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        about = {"host": start_host(root, folder), "torch": torch.__version__, "machine": platform.machine(), "threads": 1}
        for model in models:
            case = Case(model)
            for part in parts:
                rows: list[dict[str, Any]] = []
                path = results / TABLE / f"{part}-{model}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                for row in ROWS[part](case, folder, repeats):
                    say(json.dumps({key: value for key, value in row.items() if key != "all"}))
                    rows.append(row)
                    write_atomically(path, json.dumps({**about, "rows": rows}, indent=1).encode())


def training_rows(case: Case, folder: Path, repeats: int) -> Iterator[dict[str, Any]]:
    if case.name == "sd15":
        return
    steps = 40 if case.name == "wan" else 16
    for batch in (1, 4):
        # The host fails in fp32 on SD3 (0.3.75), of which the embedded base is one.
        for dtype in ("fp32", "bf16") if case.name == "wan" else ("bf16",):
            yield training(case, batch, 8, (128, None), dtype, False, steps, repeats, folder)  # the host's default rank, our default atoms
    yield training(case, 1, 1, (None, 16), "bf16", False, steps, repeats, folder)  # the size of our defaults
    yield training(case, 1, 8, (128, None), "bf16", True, steps, repeats, folder)  # the host's default


def sampling_rows(case: Case, folder: Path, repeats: int) -> Iterator[dict[str, Any]]:
    if case.name == "sd15":
        return
    yield sampling(case, 1, 2 * repeats)
    yield sampling(case, 4, repeats)


def change_rows(case: Case, folder: Path, repeats: int) -> Iterator[dict[str, Any]]:
    yield changes(case, 5 * repeats)


MODELS = ("demo", "wan", "sd15")
ROWS: dict[str, Callable[[Case, Path, int], Iterator[dict[str, Any]]]] = {
    "training": training_rows,
    "sampling": sampling_rows,
    "change": change_rows,
}
