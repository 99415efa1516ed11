"""What all tests share."""

from functools import partial

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Trainings keep their samples with the tests, not in the home folder of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSEDICT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def few_rows_are_probed():
    """At a training's end: 64 rows would be most of what a run of some steps takes. What the full number is worth: trainer/test_calibrate.py."""
    from sparsedict.trainer import calibrate

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibrate, "site_responses", partial(calibrate.site_responses, wanted=8))
        yield
