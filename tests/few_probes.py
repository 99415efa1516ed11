"""Fewer rows than usual for the ranking at a training's end: 64 would be most of what a run of some steps takes."""

from functools import partial

from sparsedict.trainer import calibrate

ROWS = 8  # what the full number is worth: trainer/test_calibrate.py


def probe_few_rows() -> None:
    """For the rest of the process."""
    calibrate.site_responses = partial(calibrate.site_responses, wanted=ROWS)
