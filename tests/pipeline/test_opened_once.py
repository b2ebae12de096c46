"""A store that is opened walks its tree of files, and data are read whole: a command does each once."""

import shutil

import pytest
from commands import call

from causalprune.data import datasets
from causalprune.trajectory import Store


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    run = tmp_path_factory.mktemp("opened-once") / "run"
    tiny = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4"]
    record = ["record", "--steps", "30", "--batch-size", "16"]
    other = ["--seed", "1", "--store", run / "other.zarr", "--output", run / "other.safetensors"]
    for stage in (["pretrain", *tiny, "--epochs", "1"], record, [*record, *other], ["fit-gamma"]):
        assert call(*stage, "--run", run, "--quiet") == 0
    assert call("fit-gamma", "--store", run / "other.zarr", "--run", run, "--quiet") == 0
    return run


@pytest.fixture
def opened(monkeypatch):
    """The paths of the stores that were opened, in order."""
    paths = []
    real = Store.open.__func__

    def noted(cls, path, **options):
        paths.append(str(path))
        return real(cls, path, **options)

    monkeypatch.setattr(Store, "open", classmethod(noted))
    return paths


LAYERS = ["--granularity", "layer", "--name", "layers"]


@pytest.mark.parametrize(
    "command",
    [
        ["record", "--steps", "30", "--batch-size", "16"],
        ["record", "--steps", "31", "--batch-size", "16", "--overwrite"],
        ["fit-gamma"],
        ["fit-gamma", "--name", "another", "--alpha-ratio", "0.2"],
        ["fit-gamma", *LAYERS, "--scope", "layer"],
        ["apply-mask", "--sparsity", "0.5", "--rewind", "recording"],
        ["diagnose", "--placebo", "2", "--interventions", "2"],
        ["info", "{run}/trajectory.zarr", "--rows", "0:3", "--param", "layers.0.weight"],
        ["info", "{run}/trajectory.zarr", "--verify"],
        ["store", "verify"],
        ["store", "export", "--output", "{run}/rows.npz"],
        ["store", "compact", "--codec", "small"],
    ],
    ids=" ".join,
)
def test_a_command_opens_its_store_once(prepared, opened, tmp_path, command):
    run = shutil.copytree(prepared, tmp_path / "run")
    arguments = [part.replace("{run}", str(run)) for part in command]
    assert call(*arguments, "--run", run, "--quiet") == 0
    assert opened == [str(run / "trajectory.zarr")]


def test_a_new_store_is_not_opened(prepared, opened, tmp_path):
    shutil.copy(prepared / "pretrained.safetensors", tmp_path)
    assert call("record", "--steps", "8", "--run", tmp_path, "--quiet") == 0
    assert opened == []


def test_each_store_of_a_comparison_or_a_merge_is_opened_once(prepared, opened, tmp_path):
    run = shutil.copytree(prepared, tmp_path / "run")
    stores = [str(run / name) for name in ("trajectory.zarr", "other.zarr")]
    comparison = ["--other", stores[1], "--placebo", "0", "--interventions", "0"]
    assert call("diagnose", *comparison, "--run", run, "--quiet") == 0
    assert opened == stores
    for _ in ("made", "there already"):
        opened.clear()
        assert call("store", "merge", *stores, "--output", run / "merged.zarr", "--quiet") == 0
        assert opened == [*stores, str(run / "merged.zarr")]


def test_run_reads_its_data_once(tmp_path, monkeypatch):
    read = []
    real = datasets._load
    monkeypatch.setattr(datasets, "_load", lambda spec, **options: read.append(spec) or real(spec, **options))
    tiny = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4", "--pretrain-epochs", "1"]
    stages = ["--iterations", "2", "--sparsity", "0.5", "--criterion", "surgeon", "--repair", "--posttrain-epochs", "1"]
    assert call("run", *tiny, *stages, "--run", tmp_path, "--quiet") == 0
    assert len(read) == 1
