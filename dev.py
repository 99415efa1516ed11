#!/usr/bin/env python3
"""The project's own commands: `python3 dev.py demo`, `python3 dev.py comfy`, `python3 dev.py test`, `python3 dev.py lint`.

Each makes the folder .venv beside this file on first use, with every package at the version in constraints.txt, and
then works. Extra arguments are passed on: `dev.py test -k prune`, `dev.py demo --out somewhere`.
Only the standard library is used here, and nothing is installed outside .venv and .host.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent
OLDEST_PYTHON = (3, 11)  # the oldest that all versions in constraints.txt install on
INTERRUPTED = 130


class Environment:
    """The virtual environment: where it is, whether it is complete, and how to make it."""

    def __init__(self, root: Path = ROOT, folder: Path | None = None):
        self.root = root
        self.folder = folder or root / ".venv"
        self.stamp = self.folder / "sparsedict-stamp.txt"
        # Present only while packages are being installed: it tells an interrupted .venv from a finished or hand-made one.
        self.unfinished = self.folder / "sparsedict-unfinished.txt"

    @property
    def python(self) -> Path:
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def wanted(self) -> str:
        """Hash of all that decides the environment's content. The path counts, as the editable install records it."""
        digest = hashlib.sha256(f"{self.root}\n{sys.version_info[:2]}\n".encode())
        for name in ("constraints.txt", "pyproject.toml", "setup.py"):
            digest.update((self.root / name).read_bytes())
        return digest.hexdigest()

    def state(self) -> str:
        """One of 'ready', 'missing', 'broken' (make it anew) and 'outdated' (bring it up to date in place)."""
        if not self.folder.exists():
            return "missing"
        if self.unfinished.exists() or not self.python.exists():
            return "broken"
        if self.stamp.exists() and self.stamp.read_text().strip() == self.wanted():
            return "ready"
        return "outdated"

    def steps(self) -> list[tuple[str, list[str]]]:
        """What to run, in order, with what to say about it."""
        # Of 18,000 modules a quarter is ever imported: compiled then, they take a minute or two less than all of them now.
        pip = [str(self.python), "-m", "pip", "install", "--no-compile", "--disable-pip-version-check", "-c", str(self.root / "constraints.txt")]
        return [
            ("build tools", [*pip, "setuptools"]),
            # PyTorch goes first and exact: no other package then has a reason to pull another release of it.
            ("PyTorch, the largest part", [*pip, "torch==2.13.0"]),
            ("the other packages and this project", [*pip, "--no-build-isolation", "-e", f"{self.root}[full,dev]"]),
        ]

    def ensure(self) -> None:
        state = self.state()
        if state == "ready":
            return
        started = time.monotonic()
        if state == "broken":
            say(f"{self.folder.name} was left unfinished; making it anew")
            shutil.rmtree(self.folder)
        if state == "outdated":
            say(f"bringing {self.folder.name} up to date (seconds, or minutes where versions changed)")
        else:
            say(f"first use: making {self.folder} (one to a few minutes, as the connection allows; later runs skip this)")
            self.folder.mkdir(parents=True)
            self.unfinished.touch()
            run_or_stop([sys.executable, "-m", "venv", str(self.folder)], "cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv")
        self.unfinished.touch()
        self.stamp.unlink(missing_ok=True)
        steps = self.steps()
        for number, (title, command) in enumerate(steps, 1):
            say(f"  {number}/{len(steps)} {title} …")
            step_started = time.monotonic()
            install(command, title)
            say(f"      {time.monotonic() - step_started:.0f} s")
        self.stamp.write_text(self.wanted() + "\n")
        self.unfinished.unlink()
        say(f"environment ready after {time.monotonic() - started:.0f} s")


def run(command: list[str], **options: Any) -> int:
    """Its exit code. Ctrl-C has reached the command as well, which may have something to save: it is waited for, until a second one."""
    process = subprocess.Popen(command, **options)
    try:
        return process.wait()
    except KeyboardInterrupt:
        try:
            process.wait()
        finally:
            process.kill()  # nothing, where it has ended
        raise


def say(text: str) -> None:
    print(f"[dev] {text}", flush=True)


def run_or_stop(command: list[str], advice: str) -> None:
    if subprocess.run(command, check=False).returncode != 0:
        raise SystemExit(f"[dev] {advice}")


def install(command: list[str], title: str) -> None:
    """Run pip and pass on only the lines that show progress; all of its last lines where it fails."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    lines: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line.rstrip())
        words = line.split()
        if words[:1] == ["Downloading"] and line.rstrip().endswith(("MB)", "GB)")):  # the small ones are no news
            say(f"      {'-'.join(words[1].split('-')[:2])} {' '.join(words[2:])}")
    if process.wait() != 0:
        print("\n".join(lines[-20:]), file=sys.stderr)
        raise SystemExit(f"[dev] installing failed at: {title}. Run the same command again to start anew")


def child_environment(**extra: str) -> dict[str, str]:
    """Environment for the project's own processes.

    PYTHONSAFEPATH keeps the repository root off sys.path: its folders have common names, and it is a package itself.
    """
    return {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONUTF8": "1", "TOKENIZERS_PARALLELISM": "false", **extra}


def demo(environment: Environment, arguments: list[str]) -> int:
    """train, look into, prune and edit with the built-in model; writes out/demo/report.html (about 6 minutes on 2 cores)"""
    return run([str(environment.python), "-m", "sparsedict", "demo", *arguments], env=child_environment())


def comfy(environment: Environment, arguments: list[str]) -> int:
    """start a ComfyUI with these nodes in it (fetched, or yours by --root or COMFYUI_ROOT); --setup-only, --port"""
    return comfy_host().main(environment, install, say, arguments)


def bench(environment: Environment, arguments: list[str]) -> int:
    """a small version of every table of the evidence (--quick, about 12 minutes on 2 cores), or all of them (--full; goes on where it stopped)"""
    return run([str(environment.python), "-m", "sparsedict.benchmarks", "run", *arguments], env=child_environment(), cwd=ROOT)


def soak(environment: Environment, arguments: list[str]) -> int:
    """bad files, kills, full disks and prompts for --minutes N, and a table of what held (--write: into docs/reliability.md)"""
    comfy_host().ComfyHost(environment, install, say).ensure()
    return run([str(environment.python), "-m", "sparsedict.tools.soak", *arguments], env=child_environment(**TEST_SETTINGS), cwd=ROOT)


def comfy_host() -> ModuleType:
    """tools/comfy_host.py, by path: the root is not on sys.path under PYTHONSAFEPATH."""
    spec = importlib.util.spec_from_file_location("comfy_host", ROOT / "tools" / "comfy_host.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test(environment: Environment, arguments: list[str]) -> int:
    """run the test suite; extra arguments go to pytest (about 13 minutes on 2 cores)"""
    comfy_host().ComfyHost(environment, install, say).ensure()
    return run(pytest_command(environment, arguments), env=child_environment(**TEST_SETTINGS), cwd=ROOT)


# One thread a worker: two workers on two cores gain nothing from more, and sums stay in one order.
# The tests use no hub; saying so turns a stray download into an error.
TEST_SETTINGS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg"}


# A file's tests in one worker, so that its fixtures, pages of a browser among them, are made once; files in their order, the short ones last.
BY_FILE = ["--dist", "loadfile", "--no-loadscope-reorder"]


def pytest_command(environment: Environment, arguments: list[str]) -> list[str]:
    """The root is a package, so tests/ is pytest's root, with its own ini file. Without a path, all tests run."""
    tests = ROOT / "tests"
    paths = [ROOT / argument.split("::")[0] for argument in arguments if not argument.startswith("-")]
    # Only what lies in tests/ is meant as a path: `-k demo` is not, though there is a folder demo/.
    names_a_path = any(path.exists() and path.resolve().is_relative_to(tests) for path in paths)
    workers = [] if any(argument.startswith(("-n", "--numprocesses", "--pdb")) for argument in arguments) else ["-n", "2", *BY_FILE]
    return [
        str(environment.python), "-m", "pytest", "-c", str(tests / "pytest.ini"), "--rootdir", str(tests),
        *workers, *arguments, *([] if names_a_path else [str(tests)]),
    ]  # fmt: skip


def lint(environment: Environment, arguments: list[str]) -> int:
    """ruff on everything, mypy on sparsedict_core/ and trainer/; extra arguments go to ruff (`--fix`)"""
    say("ruff check")
    style = subprocess.run([str(environment.python), "-m", "ruff", "check", *arguments, str(ROOT)], env=child_environment(), cwd=ROOT)
    say("mypy on sparsedict_core and trainer")
    link = package_link(environment)
    types = subprocess.run(
        [str(environment.python), "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "-p", "sparsedict.sparsedict_core", "-p", "sparsedict.trainer"],
        env=child_environment(MYPYPATH=str(link.parent)), cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    # Files under their own names, so that an editor's click leads to them.
    print(types.stdout.replace(str(link) + os.sep, "").replace(str(link.relative_to(ROOT)) + os.sep, ""), end="", flush=True)
    return max(style.returncode, types.returncode)


def package_link(environment: Environment) -> Path:
    """A link named `sparsedict` to the root, inside .venv, made where missing.

    mypy finds packages by folder name, and the clone may have any name. It cannot follow the editable install's import hook.
    """
    link = environment.folder / "typecheck" / "sparsedict"
    if link.exists() and link.resolve() == ROOT:
        return link
    if link.is_symlink():
        link.unlink()
    link.parent.mkdir(parents=True, exist_ok=True)
    if os.name == "nt":  # a junction, unlike a symbolic link, needs no special right on Windows
        run_or_stop(["cmd", "/c", "mklink", "/J", str(link), str(ROOT)], "cannot make the link that the type checker needs")
    else:
        link.symlink_to(ROOT, target_is_directory=True)
    return link


# A new command is one function above and one line here.
COMMANDS: dict[str, Callable[[Environment, list[str]], int]] = {"demo": demo, "comfy": comfy, "test": test, "bench": bench, "soak": soak, "lint": lint}


def usage() -> str:
    lines = [f"  python3 dev.py {name:<6} {(command.__doc__ or '').strip()}" for name, command in COMMANDS.items()]
    return "Usage: python3 dev.py COMMAND [ARGUMENTS]\n\n" + "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"[dev] unknown command {name!r}\n\n{usage()}", file=sys.stderr)
        return 2
    if sys.version_info < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        print(f"[dev] Python {wanted} or newer is needed; this is {sys.version.split()[0]}", file=sys.stderr)
        return 2
    environment = Environment()
    try:
        environment.ensure()
        return COMMANDS[name](environment, rest)
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
