"""Where the example scripts are."""

from pathlib import Path

import pytest


@pytest.fixture
def scripts():
    return Path(__file__).parents[2] / "examples" / "slurm"
