"""The evidence, by command: `python -m sparsedict.benchmarks search | report | host-speed | tables`. Done runs are skipped, so any part can be resumed."""

from __future__ import annotations

import os
from pathlib import Path

import click

from . import plans
from .runs import RESULTS


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


METHODS = click.option("--methods", callback=names, help="Only these, by their names in the tables, with commas between.")
CONCEPTS = click.option("--concepts", callback=names, default=",".join(plans.CONCEPTS), show_default=True)
SEEDS = click.option("--seeds", type=click.IntRange(1), default=plans.SEEDS, show_default=True)


@main.command()
@METHODS
@click.pass_obj
def search(paths: tuple[Path, Path], methods: list[str] | None) -> None:
    """Each method's settings, as many trials each, on prompts that the report never uses."""
    from .personalisation import measure
    from .queue import work_through
    from .training import World

    results, cache = paths
    found = work_through("E1-search", plans.search_runs(methods), World(cache), measure, results)
    for name, best in plans.winners(found).items():
        run = best["run"]
        click.echo(f"{name}: rate {run['learning_rate']}, quiet weight {run['quiet_weight']}, {run['settings']}")


@main.command()
@METHODS
@CONCEPTS
@SEEDS
@click.pass_obj
def report(paths: tuple[Path, Path], methods: list[str] | None, concepts: list[str], seeds: int) -> None:
    """E1 and E2: the searched winners on new prompts and noise, over concepts and seeds."""
    from .personalisation import measure
    from .queue import work_through
    from .runs import read_results
    from .training import World

    results, cache = paths
    winners = plans.winners(read_results("E1-search", results))
    chosen = {name: best for name, best in winners.items() if methods is None or name in methods}
    work_through("E1", plans.report_runs(chosen, concepts, seeds), World(cache), measure, results)
    from .tables import write_tables

    click.echo(write_tables(results))


@main.command("host-speed")
@click.option("--part", "parts", type=click.Choice(["training", "sampling", "change"]), multiple=True, help="Only these; all without it.")
@click.option("--model", "models", type=click.Choice(["demo", "wan", "sd15"]), multiple=True, help="Only these; all without it.")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
@click.pass_obj
def host_speed(paths: tuple[Path, Path], parts: tuple[str, ...], models: tuple[str, ...], repeats: int) -> None:
    """CPU time in ComfyUI, beside its own LoRA: training steps, sampling, changes of strength."""
    from .host_speed import MODELS, ROWS, measure
    from .tables import write_tables

    measure(parts or tuple(ROWS), models or MODELS, paths[0], repeats, click.echo)
    click.echo(write_tables(paths[0]))


@main.command()
@click.pass_obj
def tables(paths: tuple[Path, Path]) -> None:
    """RESULTS.md from the result files."""
    from .tables import write_tables

    click.echo(write_tables(paths[0]))


if __name__ == "__main__":
    main()
