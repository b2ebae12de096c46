"""Pruned networks as checkpoints, made by the commands."""

import json

import pytest
from causalprune_cli.main import main


def pruned_network(directory, model, granularity):
    """A run directory whose final network has whole units pruned, then single weights."""
    run = directory / "run"
    prune = ["apply-mask", "--criterion", "magnitude"]
    dense, units, final = (run / f"{name}.safetensors" for name in ("pretrained", "units", "final"))
    for command in (
        ["pretrain", "--model", model, "--epochs", 1, "--batch-size", 256],
        [*prune, "--granularity", granularity, "--sparsity", 0.5, "--checkpoint", dense, "--output", units],
        [*prune, "--sparsity", 0.8, "--checkpoint", units, "--output", final],
    ):
        assert main([str(c) for c in command] + ["--run", str(run), "--quiet"]) == 0
    return run


@pytest.fixture(scope="session")
def lenet_run(tmp_path_factory):
    """Of a network with convolutions."""
    return pruned_network(tmp_path_factory.mktemp("lenet"), "lenet", "filter")


@pytest.fixture(scope="session")
def resnet_run(tmp_path_factory):
    """Of a network with convolutions, BatchNorm and residual connections."""
    return pruned_network(tmp_path_factory.mktemp("resnet"), "resnet20", "filter")


@pytest.fixture
def exported(monkeypatch, capsys):
    """Runs ``export`` and returns its metrics, latency unmeasured."""
    monkeypatch.setattr("causalprune.commands.export.latency", lambda models, *_: [1.0] * len(models))

    def export(run, *options):
        capsys.readouterr()
        assert main(["export", *map(str, options), "--run", str(run), "--overwrite", "--json", "--quiet"]) == 0
        return json.loads(capsys.readouterr().out)["metrics"]

    return export
