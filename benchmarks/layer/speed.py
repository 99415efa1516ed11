"""Speed and memory of the layer at real widths, as ratios to the base in one run: steps, the sites alone, changes, memory.

All figures are CPU seconds of one thread, or seconds of a GPU where there is one. The sites alone are timed too, because what an adapter
adds to a whole step is smaller than that step's own noise.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...evaluation.machine import machine
from ...sparsedict_core.site_discovery import discover_sites
from ..result_table import ResultTable
from ..timing import in_turns, paired_difference, paired_ratio, peak_bytes, seconds_of
from .models import NAMES, Outline, WideModel, denoiser_of, made_on, wide_model
from .variants import BEFORE, LORA_RANK, Variant, Worker, core_at, lora_parameters, pruned, trained_adapter, variants

TABLE = "E7-layer"
PARTS = ("sites", "steps", "memory", "change")
STEPS_SAMPLING = {"base", "lora", "dora", "oft", "ours_equal", "ours_128", "ours_256", "ours_1024", "ours_128_10%"}
STEPS_TRAINING = {"base", "lora", "dora", "ours_equal", "ours_128", "ours_256"}
SITES_FEW = {"base", "lora", "ours_equal", "ours_128", "ours_256", "ours_128_10%"}  # of the models that take long
FEW = {"base", "lora", "ours_equal", "ours_128"}
MEMORY = {"base", "lora", "dora", "ours_equal", "ours_128", "ours_256", "ours_1024"}
RATE = 1e-4


def dtypes(device: torch.device) -> list[torch.dtype]:
    """What the device has instructions for; a CPU that emulates bf16 says nothing about bf16."""
    if device.type == "cuda":
        return [torch.bfloat16]
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
    return [torch.float32, torch.bfloat16] if native else [torch.float32]


# -- (a) whole steps, and (b) their sites alone ------------------------------------------------------------------


def training_step(worker: Worker, optimiser: torch.optim.Optimizer | None, forward_backward: Callable[[Callable[[], Any]], None]) -> None:
    """One step of whatever is on the model, as the trainer does it."""
    if optimiser is not None:
        optimiser.zero_grad(set_to_none=True)
    worker.begin()
    forward_backward(worker.forward_done)
    if optimiser is not None:
        torch.nn.utils.clip_grad_norm_(worker.parameters, 1.0)
        optimiser.step()
    worker.commit()


def timed(variant: Variant, model: WideModel, training: bool, warm: Callable[[], Any], full: Callable[[], Any], train: Callable[[Any, bool], Any]) -> float:
    """Seconds of one step with the variant on; a small step before it makes what is made once."""
    device = next(model.denoiser.parameters()).device
    with variant.on(training) as worker:
        if not training:
            with torch.inference_mode():
                warm()
                return seconds_of(full, device)
        optimiser = torch.optim.Adam(worker.parameters, lr=RATE) if worker.parameters else None
        training_step(worker, optimiser, lambda done: train(done, True))
        return seconds_of(lambda: training_step(worker, optimiser, lambda done: train(done, False)), device)


def whole_step(model: WideModel) -> Callable[[Variant, bool], float]:
    """Times a sampling or training step of the whole model."""
    small, full = model.inputs(True), model.inputs()
    first = model.denoiser.get_submodule(discover_sites(model.denoiser).sites[0].path.removeprefix(model.component + "."))
    with torch.no_grad():
        targets = {True: torch.randn_like(model.run(small)), False: torch.randn_like(model.run(full))}

    def train(done: Callable[[], Any], is_small: bool) -> None:
        # Gradients reach back to the first site, with or without an adapter there.
        handle = first.register_forward_pre_hook(lambda module, args: (args[0].detach().requires_grad_(),))
        out = model.run(small if is_small else full)
        handle.remove()
        done()
        (out - targets[is_small]).float().square().mean().backward()

    return lambda variant, training: timed(variant, model, training, lambda: model.run(small), lambda: model.run(full), train)


def sites_alone(model: WideModel, paths: Sequence[str]) -> Callable[[Variant, bool], float]:
    """Times the sites' Linears on inputs of the model's own shapes, one after another."""
    shapes: dict[str, torch.Size] = {}
    handles = [
        model.denoiser.get_submodule(path).register_forward_pre_hook(lambda module, args, path=path: shapes.__setitem__(path, args[0].shape))
        for path in paths
    ]
    with torch.no_grad():
        model.run(model.inputs())
    for handle in handles:
        handle.remove()
    weight = next(model.denoiser.parameters())
    inputs = {path: torch.randn(shape, device=weight.device).to(weight.dtype) for path, shape in shapes.items()}
    leaves = {path: x.clone().requires_grad_() for path, x in inputs.items()}

    def run(rows: dict[str, Tensor]) -> list[Tensor]:
        return [model.denoiser.get_submodule(path)(x) for path, x in rows.items()]

    with torch.no_grad():
        gradients = [torch.randn_like(out) for out in run(inputs)]

    def train(done: Callable[[], Any], is_small: bool) -> None:
        outs = run(leaves)
        done()
        torch.autograd.backward(outs, gradients)

    return lambda variant, training: timed(variant, model, training, lambda: run(inputs), lambda: run(inputs), train)


def compare(time_of: Callable[[Variant, bool], float], found: Sequence[Variant], training: bool, repeats: int, collect: bool) -> dict[str, Any]:
    """One row: seconds, and ratios to the base and to LoRA."""
    runs = {variant.name: (lambda variant=variant: time_of(variant, training)) for variant in found}
    result = in_turns(runs, repeats, collect=collect)
    times = result["all"]
    result["to_base"] = {name: paired_ratio(times, name, "base") for name in times}
    result["over_base"] = {name: paired_difference(times, name, "base") for name in times}
    result["to_lora"] = {name: paired_ratio(times, name, "lora") for name in times}
    return {"training": training, "parameters": {variant.name: variant.parameters for variant in found}, **result}


# -- (c) memory --------------------------------------------------------------------------------------------------


def memory(model: WideModel, found: Sequence[Variant]) -> dict[str, Any]:
    """Peak bytes of one step above what is held before it: weights and optimiser state are not counted."""
    inputs, device = model.inputs(), next(model.denoiser.parameters()).device
    peaks: dict[str, dict[str, int]] = {"sampling": {}, "training": {}}
    for variant in found:
        with variant.on(False), torch.inference_mode():
            model.run(model.inputs(True))
            peaks["sampling"][variant.name] = peak_bytes(lambda: model.run(inputs), device)
        if variant.name == "base":
            continue
        with variant.on(True) as worker:

            def step(worker: Worker = worker) -> None:
                worker.begin()
                out = model.run(inputs)
                worker.forward_done()
                out.float().square().mean().backward()
                worker.commit()

            peaks["training"][variant.name] = peak_bytes(step, device)
    return {"peak_bytes": peaks, "parameters": {variant.name: variant.parameters for variant in found}}


# -- (d) changes, loading, files ---------------------------------------------------------------------------------


def outlines(name: str) -> tuple[list[Any], dict[str, nn.Module], str]:
    """(the sites of the model with all its blocks, a stand-in for each, the component)."""
    with made_on(torch.device("meta"), torch.float32):
        denoiser, component = denoiser_of(name, True)
    sites = discover_sites(denoiser).sites
    linears = {site.path: denoiser.get_submodule(site.path.removeprefix(component + ".")) for site in sites}
    return sites, {path: Outline(linear.in_features, linear.out_features) for path, linear in linears.items()}, component


def changes(name: str, before: Path | None, repeats: int) -> dict[str, Any]:
    """A new selection, a new strength and a load, at all sites of the whole model; files by their bytes."""
    sites, modules, component = outlines(name)
    widths = [(module.in_features, module.out_features) for module in modules.values()]
    runs: dict[str, Callable[[], float]] = {}
    inputs = {path: torch.randn(1, module.in_features) for path, module in modules.items()}
    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode():
        folder, result = Path(scratch), {"sites": len(sites), "parameters": 0, "lora_parameters": lora_parameters(widths)}
        lora = {f"{path}.{part}": torch.randn(size).half() for path, (a, b) in zip(modules, widths) for part, size in (("A", (LORA_RANK, a)), ("B", (b, LORA_RANK)))}
        save_file(lora, folder / "lora.safetensors")
        runs["read a LoRA file"] = lambda: seconds_of(lambda: {key: value.float() for key, value in load_file(folder / "lora.safetensors").items()})
        for core, suffix in ((core_at(None), ""), *(((core_at(before), f" {BEFORE}"),) if before else ())):
            with torch.inference_mode(False):
                adapter = trained_adapter(core, _Modules(modules), component, sites, 128)
                result["parameters"] = adapter.parameter_count()
                path = folder / f"ours{len(runs)}.safetensors"
                core.save(adapter, path, moments=False)
                if not suffix:
                    result |= files(core, adapter, folder) | {"lora_bytes": (folder / "lora.safetensors").stat().st_size}
            attachment = adapter.attach(None, resolve=modules.get)
            masks = [core.select(adapter, core.Selection(keep=share)).gains() for share in (0.25, 0.10)]
            runs |= change_runs(core, adapter, attachment, masks, path, modules, inputs, suffix)
        result |= in_turns(runs, repeats)
    return result


def change_runs(core: Any, adapter: Any, attachment: Any, masks: list, path: Path, modules: dict, inputs: dict, suffix: str) -> dict[str, Callable[[], float]]:
    """What a user changes; a change counts until every site has made one call with it."""
    selections, strengths, shares = itertools.cycle(masks), itertools.cycle([0.5, 0.8, 1.0]), itertools.cycle([0.25, 0.10])

    def call() -> None:
        for site, x in inputs.items():
            modules[site](x)

    def selected() -> None:
        attachment.set_gains(next(selections))
        call()

    def ranked() -> None:
        attachment.set_gains(core.select(adapter, core.Selection(keep=next(shares))).gains())
        call()

    def strength() -> None:
        attachment.strength = next(strengths)
        call()

    def load() -> None:
        core.load(path).attach(None, resolve=modules.get).detach()

    works = {"calls alone": call, "strength": strength, "selection": selected, "selection, ranked": ranked, "load": load}
    return {name + suffix: (lambda work=work: seconds_of(work)) for name, work in works.items()}


class _Modules:
    """Finds the outlines by their sites' paths, as a model would."""

    def __init__(self, modules: dict[str, nn.Module]) -> None:
        for path, module in modules.items():
            *parents, last = path.split(".")
            place: Any = self
            for parent in parents:
                if not hasattr(place, parent):
                    setattr(place, parent, nn.Module())
                place = getattr(place, parent)
            setattr(place, last, module)


def files(core: Any, adapter: Any, folder: Path) -> dict[str, Any]:
    """Bytes of files without moments: whole, by share of the atoms, and at a tenth of the parameters."""
    found: dict[str, Any] = {}

    def size(smaller: Any) -> int:
        core.save(smaller, folder / "size.safetensors", moments=False, overwrite=True)
        return (folder / "size.safetensors").stat().st_size

    found["bytes"] = {"100% of the atoms": size(adapter)}
    for share in (0.5, 0.25, 0.10, 0.05):
        found["bytes"][f"{share:.0%} of the atoms"] = size(pruned(core, adapter, share).compact())
    budget, low, high = adapter.parameter_count() // 10, 1, adapter.atom_count

    def at(count: int) -> Any:
        return core.prune(adapter, core.select(adapter, core.Selection(top=count))).compact()

    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if at(middle).parameter_count() <= budget else (low, middle)
    found["bytes"]["10% of the parameters"] = size(at(low))
    return found


# -- all of it ---------------------------------------------------------------------------------------------------


def rows_of(name: str, parts: Sequence[str], device: torch.device, quick: bool, before: Path | None) -> Iterator[dict[str, Any]]:
    """The rows of one model."""
    full, main = device.type == "cuda", name == NAMES[0]
    # Building a model takes a quick run longer than timing it.
    if {"sites", "steps", "memory"} & set(parts) and (main or not quick):
        for dtype in dtypes(device):
            model = wide_model(name, device, dtype, full, 16 if quick and not full else None)
            sites = discover_sites(model.denoiser).sites
            paths = [site.path.removeprefix(model.component + ".") for site in sites]
            linears = [model.denoiser.get_submodule(path) for path in paths]
            widths = [(linear.in_features, linear.out_features) for linear in linears]
            common = {"dtype": str(dtype).removeprefix("torch."), **model.about}

            def chosen(wanted: set[str] | None, model: WideModel = model, sites: list = sites, widths: list = widths) -> list[Variant]:
                return variants(model, sites, widths, before, FEW if quick else wanted)

            if "sites" in parts:
                alone, found = sites_alone(model, paths), chosen(None if main or full else SITES_FEW)
                for training in (False, True):
                    yield {"what": "sites", **common, **compare(alone, found, training, 3 if quick else (9 if main else 4), collect=False)}
            if "steps" in parts:
                step = whole_step(model)
                for training, wanted in ((False, STEPS_SAMPLING), (True, STEPS_TRAINING)):
                    found = chosen(wanted if main or full else FEW)
                    yield {"what": "steps", **common, **compare(step, found, training, 1 if quick else (3 if main else 2), collect=True)}
            if "memory" in parts and (main or full):
                yield {"what": "memory", **common, **memory(model, chosen(MEMORY))}
    if "change" in parts:
        yield {"what": "change", **changes(name, before, 5 if quick else 15)}


def measure(parts: Sequence[str], models: Sequence[str], results: Path, quick: bool, before: Path | None, say: Callable[[str], None]) -> None:
    """Measure `parts` of `models`; one result a model, written anew after each row, that keeps its other parts. `before`: another core to measure beside this one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
    about = {**machine(), "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
             "bf16": "native" if torch.bfloat16 in dtypes(device) else "emulated on this machine, so not timed"}  # fmt: skip
    kept = ResultTable(TABLE, results)
    for name in models:
        key = f"{name}-{device.type}"
        rows = other_parts(kept.get(key), parts, {**about, "quick": quick})
        for row in rows_of(name, parts, device, quick, before):
            say(json.dumps({"model": name, **{key: value for key, value in row.items() if key not in ("all", "parameters")}}))
            rows.append(row)
            kept.put(key, {"model": name, **about, "quick": quick, "rows": rows})


def other_parts(found: dict[str, Any] | None, parts: Sequence[str], about: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a result that `parts` don't replace, where it is of the same machine."""
    if found is None:
        return []
    same = all(found[key] == value for key, value in about.items() if key in found)
    return [row for row in found["rows"] if row["what"] not in parts] if same else []
