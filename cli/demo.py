"""`sparsedict demo`: the main job, end to end, with the model inside the package."""

from __future__ import annotations

from pathlib import Path

import click

from .common import out_option


@click.command("demo")
@out_option(default="out/demo", help="Folder for report.html, report.json and the pictures.")
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Train the concept, and the LoRAs beside it, with this many seeds; the page shows means, report.json each.")
def command(out: Path, overwrite: bool, seeds: int) -> None:
    """Train a concept from five images, look into it, prune it, edit with it; write it all as a page.

    Everything is in the package: no download, no GPU, a few minutes on two cores. An earlier run's report in the default
    folder is replaced; one in a folder that you name with --out is not.

    \b
    Examples:
      sparsedict demo
      sparsedict demo --out somewhere --seeds 3
    """
    from ..demo import run
    from .common import check_out

    # The default folder belongs to the demo alone, so that running the demo twice just works.
    replace = overwrite or out == Path("out/demo")
    check_out(out, replace, folder=True)
    run(out, seeds=seeds)
