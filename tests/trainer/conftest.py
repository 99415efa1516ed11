"""What the trainer's tests share."""

import pytest
import tiny_pipelines
import torch
from small_base import small_base

from sparsedict.trainer.backends import open_backend
from sparsedict.trainer.backends.open_diffusers import open_diffusers


@pytest.fixture(scope="module")
def backend():
    torch.set_num_threads(1)
    return small_base()


@pytest.fixture(scope="module")
def demo():
    """The embedded base, for what has to be learned."""
    torch.set_num_threads(1)
    return open_backend("demo")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`folder(name, **options)`: of a tiny pipeline, saved once."""
    made = {}

    def get(name, **options):
        key = (name, *options.items())
        if key not in made:
            made[key] = tiny_pipelines.save_tiny(name, tmp_path_factory.mktemp(name), **options)
        return made[key]

    return get


@pytest.fixture(scope="module")
def opened(folder):
    """`opened(name, **options)`: its backend, opened once."""
    made = {}

    def get(name, **options):
        key = (name, *options.items())
        if key not in made:
            made[key] = open_diffusers(folder(name, **options))
        return made[key]

    return get
