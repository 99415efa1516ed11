"""`sparsedict cache`: what trainings keep for later ones, how much it is, and emptying it."""

from __future__ import annotations

import click

from .common import bytes_text, say


@click.command("cache")
@click.option("--clear", is_flag=True, help="Delete all of it; the next training makes its samples anew.")
def command(clear: bool) -> None:
    """Show or empty the folder of what trainings keep for later ones.

    Pictures of other prompts, made once by each base model, are kept there for all runs. The longest unused go when it is full.
    The environment variable SPARSEDICT_CACHE names another folder.

    \b
    Examples:
      sparsedict cache
      sparsedict cache --clear
    """
    from ..trainer import samples_cache

    folder = samples_cache.default_folder()
    if clear:
        say(f"{folder}: {bytes_text(samples_cache.trim(folder, 0))} deleted")
    kept = samples_cache.kept_in(folder)
    size = sum(status.st_size for status in kept.values())
    say(f"{folder}: {len(kept)} file{'' if len(kept) == 1 else 's'}, {bytes_text(size)} of at most {bytes_text(samples_cache.LIMIT)}")
