"""What the trainer's tests share."""

import pytest
import torch

from sparsedict.trainer.backends import open_backend


@pytest.fixture(scope="module")
def backend():
    torch.set_num_threads(1)
    return open_backend("demo")
