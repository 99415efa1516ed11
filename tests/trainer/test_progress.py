"""The console's view of a run: it goes on where nobody listens, tells the right time left, and leaves pictures."""

from __future__ import annotations

import errno
import io
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from sparsedict.trainer import TrainConfig
from sparsedict.trainer.callbacks import StepReport
from sparsedict.trainer.previews import save_sheet
from sparsedict.trainer.progress import ConsoleProgress, Lines


def told(progress, first=1, steps=3):
    for step in range(first, steps + 1):
        progress.on_step(StepReport(step, steps, 1.0, 1.0, 0.5, 0.1, 0, 0, 0.01, None, 1.0))
    progress.on_stage("importance", "of atoms → and more")
    progress.on_progress("importance", 1, 2)
    progress.on_warning("a warning → with an arrow")
    progress.on_stopped(2, 3, Path("a"), None)
    progress.close()


class Gone(io.StringIO):
    """A pipe whose reader has left."""

    def write(self, text):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    def flush(self):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [Gone, closed, lambda: None], ids=["its reader gone", "closed", "none at all"])
def test_a_lost_terminal_is_not_told_anything_and_nothing_is_raised(monkeypatch, stream):
    monkeypatch.setattr(sys, "stdout", stream())
    monkeypatch.setattr(sys, "stderr", stream())
    told(ConsoleProgress())


def test_a_narrow_encoding_gets_all_that_it_can_print(monkeypatch):
    streams = [io.TextIOWrapper(io.BytesIO(), "cp1252") for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    told(ConsoleProgress())
    printed, bars = (stream.buffer.getvalue().decode("cp1252") for stream in streams if stream.flush() is None)
    assert "a warning ? with an arrow" in printed and "of atoms ? and more" in printed and "density 0.50 (aim 0.10)" in bars


def test_a_run_that_goes_on_counts_its_own_steps_only():
    progress = ConsoleProgress()
    progress.on_step(StepReport(101, 200, 1.0, 1.0, 0.5, 0.1, 0, 0, 0.01, None, 1.0))
    assert progress._bar.initial == 100 and progress._bar.n == 101  # what tqdm takes the rate from
    progress.close()


def test_a_full_disk_ends_the_log_and_not_the_run(tmp_path, capsys):
    class Writer:
        def add_scalar(self, *values):
            raise OSError(errno.ENOSPC, "No space left on device")

    progress = ConsoleProgress(TrainConfig(out=tmp_path / "a.safetensors"))
    progress._log._writer = Writer()
    told(progress)
    assert capsys.readouterr().out.count("TensorBoard log ends here: No space left on device") == 1


def pictures(value, count=2):
    return torch.full((count, 3, 4, 6), value)


def test_previews_are_files_with_the_base_above_the_adapter(tmp_path, capsys):
    progress = ConsoleProgress(TrainConfig(out=tmp_path / "a.safetensors"))
    progress.on_preview(20, ["a zorp", "写真"], pictures(1.0), pictures(-1.0))
    path = tmp_path / "a.previews" / "step-000020.png"
    with Image.open(path) as sheet:
        assert sheet.size == (12, 8) and sheet.getpixel((0, 0)) == (0, 0, 0) and sheet.getpixel((11, 7)) == (255, 255, 255)
        assert sheet.text["sparsedict.prompts"] == "a zorp\n写真"
    assert str(path) in capsys.readouterr().out


def test_previews_of_later_steps_are_of_a_run_before(tmp_path):
    for step in (20, 40, 10):
        save_sheet(tmp_path, step, ["a"], pictures(0.0), pictures(0.0))
    assert [path.name for path in tmp_path.iterdir()] == ["step-000010.png"]


def test_a_preview_that_cannot_be_written_is_a_warning(tmp_path, capsys):
    (tmp_path / "a.previews").touch()
    ConsoleProgress(TrainConfig(out=tmp_path / "a.safetensors")).on_preview(1, ["a"], pictures(0.0), pictures(0.0))
    assert "warning: " in (out := capsys.readouterr().out) and "a.previews" in out


def test_a_log_gets_lines_and_a_terminal_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    def written(stream, every):
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(Lines, "EVERY", every)
        progress = ConsoleProgress()
        for step in range(1, 101):
            progress.on_step(StepReport(step, 100, 1.0, 1.0, 0.5, 0.1, 0, 0, 0.01, None, 1.0))
        progress.close()
        return stream.getvalue()

    lines = written(io.StringIO(), 1000).splitlines()
    assert len(lines) == 2 and lines[0].startswith("training: 1/100 [steps, loss") and lines[1].startswith("training: 100/100 [00:00<")
    assert all("loss 1.0000, density 0.50 (aim 0.10)" in line and "\r" not in line for line in lines)
    assert len(written(io.StringIO(), 0).splitlines()) == 100
    assert "\r" in written(Terminal(), 1000)
