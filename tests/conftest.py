"""Fixtures that several test folders share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch):
    for name in [n for n in os.environ if n.startswith("CAUSALPRUNE_") and n != "CAUSALPRUNE_TEST_DATA"]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def real_data():
    """Folder with MNIST and CIFAR-10 images; the test is skipped where there is none."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CAUSALPRUNE_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip("no real data: set CAUSALPRUNE_TEST_DATA to a folder with MNIST/raw")
    return folder
