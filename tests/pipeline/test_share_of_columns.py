"""A share of the columns on the command line: predicted, recorded, described, fitted, pruned by, and refused."""

import numpy as np
import pytest
import torch
from commands import call, call_json

from causalprune.models.checkpoint import load_checkpoint
from causalprune.trajectory import Store

TINY = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "20", "--epochs", "2"]
SHARE = ["record", "--columns", "0.25", "--steps", "20"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("share") / "run"
    for command in (["pretrain", *TINY], SHARE, ["fit-gamma"]):
        assert call(*command, "--run", path, "--quiet") == 0
    return path


def test_the_same_training_with_fewer_columns(run, tmp_path, capsys):
    start = ["--checkpoint", run / "pretrained.safetensors", "--run", tmp_path / "run"]
    predicted = call_json(capsys, *SHARE, *start, "--dry-run")["metrics"]
    assert not (tmp_path / "run").exists()
    assert call("record", "--steps", "20", *start, "--quiet") == 0
    whole, part = (Store.open(path / "trajectory.zarr").recording() for path in (tmp_path / "run", run))
    assert (predicted["columns"], predicted["share"], predicted["raw_bytes"]) == (
        part.num_columns,
        0.25,
        20 * (4 * part.num_columns + 48),
    )
    assert part.num_columns == round(30 * 20 / 4) + round(20 * 2 / 4)
    assert np.array_equal(part.read_rows(0, 20), whole.read_rows(0, 20)[:, part.active[whole.active]])
    weights = [load_checkpoint(path / "recorded.safetensors").weights for path in (tmp_path / "run", run)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_it_is_said_everywhere(run, tmp_path, capsys):
    found = call_json(capsys, "info", run / "trajectory.zarr", "--verify")["details"]["recordings"][0]
    assert found["recorded"]["sample"] == {"share": 0.25, "seed": 0}
    assert found["coverage"] == "160 of 640 weights, 25% of each layer, drawn with seed 0"
    assert call("info", run / "trajectory.zarr") == 0
    assert "160 of 640 weights, 25% of each layer, drawn with seed 0 (which ones: " in " ".join(
        capsys.readouterr().out.split()
    )
    assert call("fit-gamma", "--run", run, "--name", "again") == 0
    assert "γ is of 160 of 640 weights" in capsys.readouterr().err
    where = ["--run", run, "--output", tmp_path / "pruned.safetensors"]
    assert call("apply-mask", "--sparsity", "0.2", *where) == 0
    said = capsys.readouterr().err
    assert "not recorded, left alone: 480 of 640 weights (75.00%)" in said
    result = call_json(capsys, "apply-mask", "--sparsity", "0.2", *where, "--overwrite")["metrics"]
    assert (result["unscored"], result["candidates"], result["sparsity"]) == (480, 640, pytest.approx(0.2))
    mask = load_checkpoint(tmp_path / "pruned.safetensors").mask
    reader = Store.open(run / "trajectory.zarr").recording()
    assert not (~mask.numpy() & ~reader.active).any()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            ["apply-mask", "--sparsity", "0.5"],
            "--sparsity: expected at most 25.00%, because only 160 of the 640 weights",
        ),
        (
            ["apply-mask", "--sparsity", "0.2", "--granularity", "neuron"],
            "--granularity neuron: expected single weights",
        ),
        ([*SHARE[:1], "--columns", "0"], "--columns"),
        ([*SHARE[:1], "--columns-seed", "3"], "--columns-seed: expected --columns below 1 beside it"),
        ([*SHARE[:1], "--columns-by-rank", "--loss-change", "next-batch"], "--columns-by-rank: expected --loss-change"),
    ],
)
def test_what_is_refused(run, tmp_path, capsys, command, words):
    capsys.readouterr()
    assert call(*command, "--run", run, "--output", tmp_path / "out.safetensors") == 2
    said = capsys.readouterr().err
    assert words in said
    assert sum("causalprune: " in line for line in said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_pruned_again_by_a_second_recording_of_the_same_share(run, tmp_path, capsys):
    """Masks of a sparser network: other columns, and what is pruned stays so."""
    first, run2 = tmp_path / "pruned.safetensors", tmp_path / "run"
    assert call("apply-mask", "--sparsity", "0.2", "--run", run, "--output", first, "--quiet") == 0
    assert call(*SHARE, "--run", run2, "--checkpoint", first, "--quiet") == 0
    assert call("fit-gamma", "--run", run2, "--quiet") == 0
    result = call_json(capsys, "apply-mask", "--sparsity", "0.35", "--run", run2)["metrics"]
    assert result["sparsity"] == 0.35
    masks = [load_checkpoint(path).mask.numpy() for path in (first, run2 / "pruned.safetensors")]
    assert not (masks[1] & ~masks[0]).any()


def test_a_forecast_knows_it(tmp_path, capsys):
    options = [
        "run",
        "--dataset",
        "breast-cancer",
        "--model",
        "mlp",
        "--hidden",
        "20",
        "--iterations",
        "1",
        "--dry-run",
    ]
    options += ["--sparsity", "0.2", "--run", tmp_path / "run"]
    whole = call_json(capsys, *options)
    part = call_json(capsys, *options, "--set", "record.columns=0.25")
    columns = [[s["columns"] for s in found["metrics"]["stages"] if s.get("columns")] for found in (whole, part)]
    assert columns == [[640], [160]]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--sparsity", "0.9"],
            "--sparsity: expected at most 25.00% after iteration 1, because --set record.columns=0.25",
        ),
        (["--sparsity", "0.2", "--granularity", "neuron"], "--granularity neuron: expected single weights"),
    ],
)
def test_a_pipeline_refuses_before_it_trains(tmp_path, capsys, options, words):
    command = ["run", *TINY[:-2], "--set", "record.columns=0.25", "--run", tmp_path / "run", *options]
    assert call(*command) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
