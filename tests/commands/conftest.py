"""What several commands start from."""

import shutil

import pytest
from causalprune_cli.main import main


@pytest.fixture(scope="session")
def _pruned(tmp_path_factory):
    run = tmp_path_factory.mktemp("pruned") / "run"
    model = ["--model", "mlp", "--hidden", "30,20", "--dataset", "digits"]
    assert main(["pretrain", *model, "--epochs", "3", "--run", str(run), "--quiet"]) == 0
    prune = ["--checkpoint", str(run / "pretrained.safetensors"), "--criterion", "magnitude", "--sparsity", "0.9"]
    assert main(["apply-mask", *prune, "--run", str(run), "--quiet"]) == 0
    return run


@pytest.fixture
def run(_pruned, tmp_path):
    """The run directory of a small network that was pretrained and pruned, a copy of one's own."""
    return shutil.copytree(_pruned, tmp_path / "run")
