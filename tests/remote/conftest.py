"""A run directory with a tiny network, and stores of it on a disk and in object storage."""

import shutil

import pytest
from causalprune_cli.main import main

TINY = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4", "--epochs", "2", "--batch-size", "256"]


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory):
    run = tmp_path_factory.mktemp("pretrained") / "run"
    assert main(["pretrain", *TINY, "--run", str(run), "--quiet"]) == 0
    return run


@pytest.fixture
def run(pretrained, tmp_path):
    """A run directory ready for recording."""
    return shutil.copytree(pretrained, tmp_path / "run")
