"""The group of commands, loaded by name when called, and the one place where an error becomes a line and an exit code."""

from __future__ import annotations

import errno
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import click

from .. import __version__
from .common import printable, say
from .streams import let_output_get_lost, lost

PACKAGE = __package__.rpartition(".")[0]
OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

# Command → one line for the overview. The module has the same name and holds `command`; it is imported when it is called,
# and imports torch only once it runs, so that help is instant.
COMMANDS = {
    "demo": "Train, look into, prune and edit with the built-in model; writes a page.",
    "train": "Train an adapter from a folder of images.",
    "generate": "Make images from prompts, with or without adapters.",
    "inspect": "List an adapter's layers and atoms; draw them as a picture.",
    "prune": "Keep some of the atoms; the rest leave the file.",
    "sweep": "One seed, a row of images from the base to the full concept.",
    "shrink": "Make the smallest file that keeps the concept (needs the base model).",
    "convert": "Turn a LoRA into a dictionary, or a dictionary into a LoRA.",
    "compose": "Merge adapters (concept + style) into one file.",
    "plan": "Which settings of a training fit into a card's memory.",
    "probe": "Which atoms a prompt sets off, and where in the picture.",
    "cache": "What trainings keep for later ones; how to empty it.",
}


class LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(f".{cmd_name}", __package__).command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 done, 1 something is wrong with the input (one line says what), 2 wrong usage, 130 interrupted (143 by SIGTERM, 129 by SIGHUP).",
)
@click.version_option(__version__, prog_name="sparsedict")
@click.option("--debug", is_flag=True, help="Show the full trace of an error. Works after a command too.")
def group(debug: bool) -> None:
    """Adapters for image models made of learned dictionary atoms.

    \b
    Start here:
      sparsedict demo
      sparsedict train photos/ --out zorp.safetensors
      sparsedict generate "a zorp on a sky background" --adapter zorp.safetensors --out picture.png

    `sparsedict COMMAND --help` explains a command and shows examples.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code."""
    let_output_get_lost()
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Run the command line; returns the exit code and never raises, except with --debug."""
    debug = "--debug" in arguments[: arguments.index("--")] if "--" in arguments else "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"] if debug else arguments
    warnings.showwarning = show_warning
    if not debug:
        # Hints for those libraries' developers; read by them at import.
        os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        for name in ("torchao", "torch.utils._pytree"):  # which tells of torchao's classes
            logging.getLogger(name).setLevel(logging.ERROR)
    try:
        result = group.main(args=arguments, prog_name="sparsedict", standalone_mode=False)
        sys.stdout.flush()
        if (reason := lost()) and not makes_a_file(arguments):
            raise click.ClickException(f"the output could not be written: {reason}")
        return result if isinstance(result, int) else OK
    except click.exceptions.NoArgsIsHelpError as error:
        say(*error.format_message().split("\n"))
        return USAGE
    except click.UsageError as error:
        error.message = printable(error.message)
        error.show()
        return USAGE
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        say("Interrupted.", err=True)
        return INTERRUPTED
    except Exception as error:
        if debug:
            raise
        say(f"Error: {describe(error)}{unnamed_base(error, arguments)}", err=True)
        return FAILED


def unnamed_base(error: Exception, arguments: list[str]) -> str:
    """What to add to an error about the base where nobody has named one: that it is the demo's."""
    named = any(argument.split("=")[0] == "--model" for argument in arguments)
    return " (no --model was given, so the base is the demo's)" if getattr(error, "about_base", False) and not named else ""


def makes_a_file(arguments: list[str]) -> bool:
    """Whether the command's work is there even where what it prints is not."""
    name = next((argument for argument in arguments if argument in COMMANDS), "")
    command = group.get_command(click.Context(group), name)
    return command is not None and any(option.name == "out" for option in command.params)


def show_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, file: object = None, line: str | None = None) -> None:
    """This project's warnings as one line; those of libraries are for their developers and stay away."""
    root, file_path = Path(__file__).resolve().parent.parent, Path(filename).resolve()
    # The environment may lie inside the clone, under .venv.
    if file_path.is_relative_to(root) and not file_path.relative_to(root).parts[0].startswith("."):
        say(f"Warning: {shortened(str(message))}", err=True)


def describe(error: Exception) -> str:
    """One line for any error. A class of this project's own says what is wrong by itself; others get what they lack."""
    if isinstance(error, click.ClickException):
        text = error.format_message()
    elif type(error).__module__.startswith(PACKAGE + "."):
        text = str(error)
    elif isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        advice = " (free some space; nothing half-written was left)" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else ""
        text = f"{error.strerror or error}{where}{advice}"
    elif isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        text = "out of memory: lower the image size, or use --dtype bf16"
    else:
        text = f"unexpected {type(error).__name__}: {error} (please report it, with the trace that --debug shows)"
    return shortened(" ".join(text.split()))


def shortened(text: str) -> str:
    """It may quote a stranger's file."""
    if len(text) < 1000:
        return text
    from ..sparsedict_core.shown_text import MOST_SAID
    from ..sparsedict_core.shown_text import shortened as cut

    return cut(text, MOST_SAID)
