"""Starts a real ComfyUI on a free port with the pack in it, and talks to it as a front end does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
START_TIMEOUT = 600  # seconds; a start takes 15 on a free machine, and minutes beside ten others
PACK = "SparseDict"


class PromptRefused(Exception):
    """The host's validation said no. `errors` is its node_errors: node id → {"errors": [...], "class_type"}."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.errors: dict[str, Any] = answer.get("node_errors") or {}
        self.messages = [error["details"] or error["message"] for node in self.errors.values() for error in node["errors"]]
        super().__init__("; ".join(self.messages) or json.dumps(answer.get("error")))


class PromptFailed(Exception):
    """A node failed while running; the text is what the front end shows. `node` is its id, `interrupted` a stop by the user."""

    def __init__(self, message: str, node: str | None, interrupted: bool, details: dict[str, Any]) -> None:
        super().__init__(message)
        self.node, self.interrupted, self.details = node, interrupted, details


class Host:
    """One server. Its input, output, user and models folders are under `base`; `log` is all that it printed."""

    def __init__(self, root: Path, base: Path, arguments: Sequence[str] = ("--cpu",)) -> None:
        self.root, self.base, self.arguments = root, base, list(arguments)
        self.log_file = base / "host.log"
        self.process: subprocess.Popen | None = None
        self.port = 0

    # Life.

    def __enter__(self) -> Host:
        link = self.base / "custom_nodes" / PACK
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(PROJECT, target_is_directory=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        # dev.py's tests run with PYTHONSAFEPATH, under which the host would not find its own modules.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
        environment.pop("PYTHONSAFEPATH", None)
        command = [
            sys.executable, "main.py", "--port", str(self.port), "--listen", "127.0.0.1", "--base-directory", str(self.base),
            "--disable-auto-launch", *self.arguments,
        ]  # fmt: skip
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=self.root, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            assert self.process is not None
            if self.process.poll() is not None:
                raise RuntimeError(f"the host ended with {self.process.returncode} while starting:\n{self.log[-3000:]}")
            try:
                self.get("/queue")
                return
            except OSError:
                time.sleep(0.2)
        raise RuntimeError(f"the host did not answer within {START_TIMEOUT} s:\n{self.log[-3000:]}")

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    @contextlib.contextmanager
    def _told_where_it_hangs(self) -> Iterator[None]:
        """A server that does not answer is ended, and the stacks of its threads are the error: every later test would wait for it in vain."""
        try:
            yield
        except OSError as error:
            late = isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError)
            if not late or self.process is None or self.process.poll() is not None:
                raise
            self.process.send_signal(signal.SIGABRT)  # the fault handler writes all stacks into the log
            self.process.wait(20)
            raise RuntimeError(f"the host hung and was ended; its last words:\n{self.log[-12000:]}") from error

    # Talk.

    def get(self, path: str) -> Any:
        with self._told_where_it_hangs(), urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as answer:
            body = answer.read()
        return json.loads(body) if answer.headers.get_content_type() == "application/json" else body

    def post(self, path: str, data: Any) -> tuple[int, Any]:
        """Status and answer, also of a refusal."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", json.dumps(data).encode(), {"Content-Type": "application/json"}
        )
        try:
            with self._told_where_it_hangs(), urllib.request.urlopen(request, timeout=120) as answer:
                status, body = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, body = error.code, error.read()
        return status, json.loads(body) if body else None

    def object_info(self, node: str | None = None) -> dict[str, Any]:
        """What the front end knows of all nodes, or of one."""
        return self.get("/object_info") if node is None else self.get(f"/object_info/{node}")[node]

    def queue(self, prompt: dict[str, Any], client: str | None = None, workflow: str | None = None) -> str:
        """Hands a prompt (API format) over and returns its id; `workflow` is the id of the one that it was made of. Raises PromptRefused."""
        more: dict[str, Any] = {"client_id": client} if client else {}
        if workflow is not None:
            more["extra_data"] = {"extra_pnginfo": {"workflow": {"id": workflow}}}
        status, answer = self.post("/prompt", {"prompt": prompt, **more})
        if status != 200 or answer.get("node_errors"):
            raise PromptRefused(answer)
        return answer["prompt_id"]

    def wait(self, prompt_id: str, timeout: float = 300) -> dict[str, Any]:
        """The history entry of a prompt, once it has one."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            history = self.get(f"/history/{prompt_id}")
            if prompt_id in history:
                return history[prompt_id]
            time.sleep(0.05)
        raise TimeoutError(f"the prompt was not done within {timeout} s; the host's last words:\n{self.log[-2000:]}")

    def result(self, prompt_id: str, timeout: float = 300) -> dict[str, Any]:
        """Outputs by node id. Raises PromptFailed."""
        entry = self.wait(prompt_id, timeout)
        for kind, data in entry["status"]["messages"]:
            if kind == "execution_error":
                raise PromptFailed(data["exception_message"].strip(), data["node_id"], False, data)
            if kind == "execution_interrupted":
                raise PromptFailed("interrupted", data.get("node_id"), True, data)
        return entry["outputs"]

    def run(self, prompt: dict[str, Any], client: str | None = None, timeout: float = 300) -> dict[str, Any]:
        """Outputs by node id. Raises PromptRefused or PromptFailed."""
        return self.result(self.queue(prompt, client), timeout)

    def finished(self) -> set[str]:
        """Ids of the prompts that are done."""
        return set(self.get("/history"))

    def next_finished(self, before: set[str], timeout: float = 120) -> str:
        """The id of a prompt that is done and was not in `before`; a front end shows outputs before the prompt is over."""
        deadline = time.monotonic() + timeout
        while not (new := self.finished() - before):
            if time.monotonic() > deadline:
                raise TimeoutError(f"no further prompt was done within {timeout} s; the host's last words:\n{self.log[-2000:]}")
            time.sleep(0.05)
        return new.pop()

    def ran(self, prompt_id: str) -> set[str]:
        """Ids of the nodes that did not come from the cache. (Only those of the prompt itself, of a finished one.)"""
        entry = self.wait(prompt_id)
        cached = {node for kind, data in entry["status"]["messages"] if kind == "execution_cached" for node in data["nodes"]}
        return set(entry["prompt"][2]) - cached

    def interrupt(self) -> None:
        self.post("/interrupt", {})

    def file(self, entry: dict[str, str]) -> Path:
        """Where a file named by an output ({"filename", "subfolder", "type"}) lies."""
        return self.base / entry["type"] / entry["subfolder"] / entry["filename"]

    def listen(self) -> Listener:
        """A connected client: `with host.listen() as client: host.run(prompt, client.id)`; then `client.events`."""
        return Listener(self.port)


class Listener:
    """The websocket of one client. `events` are (type, data) in order; `previews` are the binary frames."""

    def __init__(self, port: int) -> None:
        self.id = uuid.uuid4().hex
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.previews: list[bytes] = []
        self._address = f"http://127.0.0.1:{port}/ws?clientId={self.id}"
        self._connected, self._loop = threading.Event(), asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Listener:
        self._thread.start()
        assert self._connected.wait(20), "no websocket connection"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(10)

    def wait_for(self, kind: str, timeout: float = 60) -> dict[str, Any]:
        """The data of the first event of a kind."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for seen, data in list(self.events):
                if seen == kind:
                    return data
            time.sleep(0.02)
        raise TimeoutError(f"no event {kind!r} within {timeout} s; seen: {[seen for seen, _ in self.events]}")

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._task = self._loop.create_task(self._receive())
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        finally:
            self._loop.close()

    async def _receive(self) -> None:
        import aiohttp

        async with aiohttp.ClientSession() as session, session.ws_connect(self._address, max_msg_size=0) as socket:
            self._connected.set()
            async for message in socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    event = json.loads(message.data)
                    self.events.append((event["type"], event.get("data") or {}))
                elif message.type is aiohttp.WSMsgType.BINARY:
                    self.previews.append(message.data)
