"""A training of a second, in a child process that may be killed or find a full disk. POSIX only."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ...sparsedict_core import atomic_write
from ...sparsedict_core.errors import SparseDictError
from ...sparsedict_core.file_format import load
from ...trainer import Callbacks, ConceptData, TrainConfig, checkpoint, train
from ...trainer.backends import open_backend
from ...trainer.backends.base import Backend

STEPS = 8
FINISHED, REFUSED, BROKEN = 0, 1, 2


class SmallTraining:
    """One kind of run, by name of its folder. The base (None: the embedded one) is opened once, here; children get it by fork."""

    def __init__(self, backend: Backend | None = None) -> None:
        torch.set_num_threads(1)  # a forked child has no other threads
        self.backend = backend or open_backend("demo")
        generator = torch.Generator().manual_seed(0)
        pictures = [torch.rand(3, 64, 64, generator=generator) * 2 - 1 for _ in range(2)]
        self.data = ConceptData.from_tensors(pictures, [["a flat fox"], ["a glossy star"]])

    def config(self, folder: Path, **more: Any) -> TrainConfig:
        chosen = {"steps": STEPS, "batch_size": 2, "atoms": 4, "rank": 2, "quiet_samples": 2, "quiet_sampling_steps": 1, "checkpoint_every": 1, **more}
        return TrainConfig(out=folder / "a.safetensors", cache=folder / "cache", **chosen)

    def start(self, folder: Path, log: Path, before: Callable[[], None] = lambda: None, **more: Any) -> int:
        """Fork a run in `folder` that prints to `log` (`before` is called in the child first); returns its process number."""
        child = os.fork()
        if child:
            return child
        code = BROKEN
        try:
            with log.open("w") as stream:
                os.dup2(stream.fileno(), 1)
                os.dup2(stream.fileno(), 2)
            before()
            train(self.config(folder, **more), self.backend, self.data, Callbacks())
            code = FINISHED
        except SparseDictError as error:
            print(error, file=sys.stderr)
            code = REFUSED
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    @staticmethod
    def ended(child: int) -> int | None:
        """Waits; the exit code, or None where it was killed."""
        _, status = os.waitpid(child, 0)
        return None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def killed_within_a_write(number: int, share: float) -> Callable[[], None]:
    """For `start`: the process kills itself within its `number`-th write (0, 1, …), after `share` of the bytes; at 1 all are there but not in place."""

    def arm() -> None:
        begin, left = atomic_write._begin, number

        def begin_and_die(path: Path) -> Any:
            nonlocal left
            stream, temporary = begin(path)
            left -= 1
            return (_Dying(stream, share) if left < 0 else stream), temporary

        atomic_write._begin = begin_and_die  # type: ignore[assignment]

    return arm


class _Dying:
    """A file whose process is killed when it writes."""

    def __init__(self, stream: BinaryIO, share: float) -> None:
        self.stream, self.share = stream, share

    def __enter__(self) -> _Dying:
        return self

    def __exit__(self, *error: object) -> None:
        self.stream.close()

    def writelines(self, parts: Iterable[bytes]) -> None:
        data = b"".join(parts)
        self.stream.write(data[: int(self.share * len(data))])
        self.stream.flush()
        os.kill(os.getpid(), signal.SIGKILL)


def damaged_files(folder: Path) -> list[str]:
    """What is wrong with the files that a run has left: each must be whole, whatever happened to the run."""
    wrong = []
    for path in checkpoint.all_in(folder / "a.checkpoints"):
        try:
            checkpoint.settings_of(path)
        except SparseDictError as error:
            wrong.append(str(error))
    out = folder / "a.safetensors"
    if out.exists():
        try:
            load(out)
        except SparseDictError as error:
            wrong.append(str(error))
    return wrong


def left_over(folder: Path) -> list[str]:
    """Unfinished files that a run which has ended well left in its folders."""
    return [f"{path} is left" for path in folder.rglob("*") if path.name.endswith(atomic_write.UNFINISHED) or path.name == "run.lock"]
