"""The evidence, by command. Done runs are skipped, so any part can be resumed or run alone."""

from __future__ import annotations

import os
from pathlib import Path

import click

from .result_table import RESULTS


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, help="Folder of the result files.")
@click.option(
    "--cache", type=click.Path(path_type=Path), default=Path("out/benchmarks"), show_default=True, help="Folder of the quiet samples."
)
@click.option("--threads", type=int, default=os.cpu_count(), show_default=True)
@click.pass_context
def main(context: click.Context, results: Path, cache: Path, threads: int) -> None:
    """Runs on the embedded base's world; results as JSON, tables made from them."""
    import torch

    torch.set_num_threads(threads)
    cache.mkdir(parents=True, exist_ok=True)
    context.obj = (results, cache)


def names(context: click.Context, parameter: click.Parameter, value: str | None) -> list[str] | None:
    """A list with commas; None for all."""
    return None if value is None else [name.strip() for name in value.split(",") if name.strip()]


@main.command()
@click.option("--quick", "quick", flag_value=True, default=True, help="A small version of each table, in minutes, under out/.  [default]")
@click.option("--full", "quick", flag_value=False, help="All of it, into --results; done runs are skipped.")
@click.option("--only", callback=names, help="Only these parts, with commas between: E1 to E7.")
@click.option("--methods", callback=names, help="Of E1, only these, by their names in the tables.")
@click.option("--concepts", callback=names, help="Of E1 to E5, only these.")
@click.option("--seeds", type=click.IntRange(1), help="Of E1 to E5.")
@click.pass_context
def run(
    context: click.Context, quick: bool, only: list[str] | None, methods: list[str] | None, concepts: list[str] | None, seeds: int | None
) -> None:  # fmt: skip
    """The tables of the embedded base's world: each method's settings searched alike, then reported on other prompts."""
    from dataclasses import replace

    from .page import write_tables
    from .parts import FULL, PARTS, QUICK, Job

    results, cache = context.obj
    if quick and results == RESULTS:
        results = cache / "quick"
    unknown = set(only or ()) - set(PARTS)
    if unknown:
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: there are {', '.join(PARTS)}", param_hint="--only")
    scope = QUICK if quick else FULL
    changes = {"methods": methods and tuple(methods), "concepts": concepts and tuple(concepts), "seeds": seeds}
    scope = replace(scope, **{name: value for name, value in changes.items() if value is not None})
    job = Job(results, cache, scope, click.echo)
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # the profiler that sees the memory would tell of each start
    for name in only or PARTS:
        click.echo(f"{name}: {(PARTS[name].__doc__ or '').splitlines()[0]}")
        PARTS[name](job)
    click.echo(write_tables(results))


@main.command("host-speed")
@click.option("--part", "parts", type=click.Choice(["training", "sampling", "change", "learning", "server"]), multiple=True, help="Only these; all without it.")
@click.option("--model", "models", type=click.Choice(["demo", "wan", "sd15"]), multiple=True, help="Only these; all without it.")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
@click.pass_obj
def host_speed(paths: tuple[Path, Path], parts: tuple[str, ...], models: tuple[str, ...], repeats: int) -> None:
    """In ComfyUI, beside its own LoRA: training steps, sampling, changes of strength; learning beside the command line; start and stop."""
    from .host.speed import MODELS, PARTS, measure
    from .page import write_tables

    measure(parts or PARTS, models or MODELS, paths[0], repeats, click.echo)
    click.echo(write_tables(paths[0]))


@main.command("front-end")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
@click.pass_obj
def front_end(paths: tuple[Path, Path], repeats: int) -> None:
    """Frames of the atom selector in Chromium, while a mouse works on 20,480 atoms."""
    from .host.front_end import measure
    from .page import write_tables

    measure(paths[0], repeats, click.echo)
    click.echo(write_tables(paths[0]))


@main.command()
@click.option("--figure", type=click.Path(path_type=Path), help="Where to draw it; with the project's own results docs/images/digits.png.")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.pass_obj
def digits(paths: tuple[Path, Path], figure: Path | None, seeds: int) -> None:
    """E6: an 8 becomes a 3 on handwritten digits, taken apart by layer and atom."""
    from .digits.queue import evidence
    from .page import write_tables

    if figure is None and paths[0] == RESULTS:
        figure = RESULTS.parent.parent / "docs" / "images" / "digits.png"
    evidence(paths[1], paths[0], click.echo, seeds, figure=figure)
    click.echo(write_tables(paths[0]))


@main.command("lora")
@click.option("--part", "parts", type=click.Choice(["kept", "gated", "conversion", "selector"]), multiple=True, help="Only these; all without it.")
@click.option("--concepts", callback=names, help="Of the demo world, only these.")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.pass_obj
def lora(paths: tuple[Path, Path], parts: tuple[str, ...], concepts: list[str] | None, seeds: int) -> None:
    """E9: what is kept of a LoRA taken apart, and the time and memory of doing it. Done runs are skipped."""
    from .lora import conversion, keeping, selector
    from .page import write_tables

    if "conversion" in (parts or ("conversion",)):
        conversion.measure(paths[0], click.echo)
    if "selector" in (parts or ("selector",)):
        selector.measure(paths[0], click.echo)
    for part in keeping.PARTS:
        if part in (parts or keeping.PARTS):
            keeping.measure(part, paths[0], paths[1], concepts or keeping.CONCEPTS, seeds, click.echo)
    click.echo(write_tables(paths[0]))


@main.command("layer-speed")
@click.option("--quick", is_flag=True, help="SD3-medium with few tokens and repeats, and changes of all models; in a minute or two, under out/.")
@click.option("--part", "parts", type=click.Choice(["sites", "steps", "memory", "change"]), multiple=True, help="Only these; all without it.")
@click.option("--model", "models", type=click.Choice(["sd3-medium", "flux", "sdxl"]), multiple=True, help="Only these; all without it.")
@click.option("--before", type=click.Path(path_type=Path, exists=True), help="Another sparsedict_core, measured beside this one.")
@click.pass_obj
def layer_speed(paths: tuple[Path, Path], quick: bool, parts: tuple[str, ...], models: tuple[str, ...], before: Path | None) -> None:
    """E7: steps, changes, files and memory at real widths, beside peft's LoRA, DoRA and OFT."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # the profiler that sees the memory would tell of each start
    from .layer.models import NAMES
    from .layer.speed import PARTS, measure
    from .page import write_tables

    results = paths[1] / "quick" if quick and paths[0] == RESULTS else paths[0]
    measure(parts or PARTS, models or NAMES, results, quick, before, click.echo)
    click.echo(write_tables(results))


@main.command("file-speed")
@click.option("--before", type=click.Path(path_type=Path, exists=True), help="Another sparsedict_core, measured beside this one.")
@click.option("--repeats", type=click.IntRange(1), default=25, show_default=True)
def file_speed(before: Path | None, repeats: int) -> None:
    """Loading and attaching a file of about a megabyte; only said, not stored."""
    from .layer.file_speed import measure

    measure(before, repeats, click.echo)


@main.command()
@click.option("--demo", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="A report.json of dev.py demo, to show in the README until E1 is measured.")
@click.pass_obj
def tables(paths: tuple[Path, Path], demo: Path | None) -> None:
    """RESULTS.md and the README's tables, from the result files."""
    from .page import keep_demo, write_tables

    if demo:
        keep_demo(demo, paths[0])
    click.echo(write_tables(paths[0]))


if __name__ == "__main__":
    main()
