"""What was made of a recording stays its result when the store is compacted."""

import shutil

import pytest
from commands import call, call_json

TINY = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4"]
STAGES = [
    ["pretrain", *TINY, "--epochs", "1"],
    ["record", "--steps", "8"],
    ["fit-gamma", "--held-out", "0"],
    ["apply-mask", "--sparsity", "0.5", "--no-measure"],
]
SWEEP = ["sweep", "--sparsity", "0.5", "--criterion", "effect", "--seeds", "1", "--posttrain-epochs", "0"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    run = tmp_path_factory.mktemp("compacted") / "run"
    for stage in STAGES:
        assert call(*stage, "--run", run, "-q") == 0
    return run


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


def test_every_stage_is_still_done(run, capsys):
    compact = ["store", "compact", run / "trajectory.zarr", "--codec", "small", "-q"]
    before = call_json(capsys, "info", run)["details"]
    assert call(*compact) == 0
    for stage in STAGES:
        assert call_json(capsys, *stage, "--run", run)["already_done"], stage
    after = call_json(capsys, "info", run)
    assert after["problems"] == []
    made_from = [
        {line["name"]: line["made_from"] for line in found["artefacts"]}  # codespell:ignore artefacts
        for found in (before, after["details"])
    ]
    assert made_from[0] == made_from[1]
    # A new fit is one of the rows as they are now, and another option is another fit.
    assert call("fit-gamma", "--held-out", "0", "--name", "anew", "--run", run, "-q") == 0
    assert call("fit-gamma", "--held-out", "0", "--alpha-ratio", "0.2", "--run", run, "-q") == 5


def test_another_recording_is_another_input(run, capsys):
    assert call("record", "--steps", "8", "--seed", "1", "--overwrite", "--run", run, "-q") == 0
    assert call(*STAGES[3], "--run", run, "-q") != 0


def test_a_sweep_of_a_given_recording_goes_on(run, tmp_path, capsys):
    sweep = [*SWEEP, "--recorded", run, "--run", tmp_path / "swept"]
    assert call(*sweep, "-q") == 0
    assert call("store", "compact", run / "trajectory.zarr", "--codec", "small", "-q") == 0
    assert call_json(capsys, *sweep)["already_done"]
