"""What the newest training run has said so far, so that a page that is loaded later can show it; and what a page has asked of it."""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

NOWHERE: Mapping[str, str | None] = MappingProxyType({})  # a host that has one run at most
POINTS = 2000  # kept of a run; beyond that, every other one goes


class RunState:
    """Filled by the run's thread, read by the server's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._job: dict[str, Any] | None = None
        self._origin: dict[str, str | None] = {}
        self._preview: bytes | None = None
        self._keep = False

    def begin(self, origin: Mapping[str, str | None] = NOWHERE) -> None:
        """A run starts; `origin` is by what the host tells its runs apart, and a part of the run's events and of `job`."""
        with self._lock:
            self._origin = dict(origin)
            self._job = {
                **origin, "running": True, "points": [], "stage": None, "warnings": [],
                "finished": None, "file": None, "stopped": None, "steps": None, "ended": None, "previews": 0,
            }  # fmt: skip
            self._preview, self._keep = None, False

    def end(self) -> None:
        """The run is over, however it went."""
        with self._lock:
            if self._job is not None:
                self._job["running"] = False

    def ask_to_keep(self, origin: Mapping[str, str | None] = NOWHERE) -> bool:
        """Stop the run that has this as its origin or a part of it, and go on with what it has learned; False where no such run is going on."""
        with self._lock:
            if self._job is None or not self._job["running"] or not origin.items() <= self._origin.items():
                return False
            self._keep = True
            return True

    def keep_asked(self) -> bool:
        with self._lock:
            return self._keep

    def note(self, data: dict[str, Any]) -> None:
        """An event of host_shared/run_events.py."""
        with self._lock:
            job, kind = self._job, data["event"]
            if job is None:
                return
            rest = {key: value for key, value in data.items() if key != "event" and key not in self._origin}
            if kind == "step":
                job["points"].append(rest)
                if len(job["points"]) > POINTS:
                    # The newest stays, and every other one before it.
                    job["points"] = job["points"][::-2][::-1]
            elif kind in ("stage", "progress"):
                job["stage"] = rest
            elif kind == "warning":
                job["warnings"].append(data["text"])
            elif kind == "finished":
                job.update(finished=data["path"], **{key: data[key] for key in ("file", "stopped", "steps")})
            elif kind == "ended":
                job["ended"] = data["text"]

    def note_preview(self, picture: Any) -> int:
        """A PIL picture; returns the number of previews so far."""
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, "JPEG", quality=88)
        with self._lock:
            self._preview = buffer.getvalue()
            if self._job is not None:
                self._job["previews"] += 1
                return self._job["previews"]
        return 1

    def job(self) -> dict[str, Any] | None:
        """A copy for JSON; None before the first run."""
        with self._lock:
            if self._job is None:
                return None
            return {**self._job, "points": list(self._job["points"]), "warnings": list(self._job["warnings"])}

    def preview(self) -> bytes | None:
        """JPEG of the newest preview."""
        with self._lock:
            return self._preview
