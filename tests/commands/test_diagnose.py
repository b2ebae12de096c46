"""diagnose on a small recording: every part is measured or says why not."""

import json
import shutil

import numpy as np
import pytest
from commands import call, call_json

from causalprune.models.parameters import ParameterIndex
from causalprune.trajectory import RecordingInfo, Store

TINY = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "6"]
FEW = ["--placebo", "3", "--interventions", "9", "--samples", "100"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with two recordings of one network, of different seeds, each with a fit."""
    path = tmp_path_factory.mktemp("diagnose") / "run"
    assert call("pretrain", *TINY, "--epochs", "2", "--run", path, "--quiet") == 0
    assert call("record", "--steps", "30", "--run", path, "--quiet") == 0
    assert call("fit-gamma", "--bootstrap", "20", "--alpha-ratio", "0.01", "--run", path, "--quiet") == 0
    other = ["--store", path / "other.zarr"]
    recorded = ["--output", path / "other.safetensors", "--seed", "1", "--steps", "30"]
    assert call("record", *other, *recorded, "--run", path, "--quiet") == 0
    assert call("fit-gamma", *other, "--alpha-ratio", "0.01", "--run", path, "--quiet") == 0
    return path


def test_everything_is_measured_twice_the_same(run, capsys):
    options = ["diagnose", "--run", run, "--other", run / "other.zarr", *FEW]
    first = call_json(capsys, *options)["metrics"]
    assert call_json(capsys, *options)["metrics"] == first
    diagnosis = first["diagnosis"]
    assert all("unavailable" not in part for part in diagnosis.values())
    assert len(diagnosis["placebo"]["permuted_r2_held_out"]) == 3
    reached = [r2 >= diagnosis["placebo"]["r2_held_out"] for r2 in diagnosis["placebo"]["permuted_r2_held_out"]]
    assert diagnosis["placebo"]["p_value"] == (1 + sum(reached)) / 4
    fitted = call_json(capsys, "fit-gamma", "--bootstrap", "20", "--alpha-ratio", "0.01", "--run", run)
    evidence = fitted["metrics"]["evidence"]
    assert diagnosis["placebo"]["r2_held_out"] == pytest.approx(evidence["r2_held_out"], abs=1e-2)
    assert diagnosis["placebo"]["alpha_max"] == pytest.approx(evidence["alpha_max"], rel=1e-5)
    assert diagnosis["stability"]["resamples"] == 20
    assert diagnosis["agreement"]["seeds"] == [0, 1]
    assert diagnosis["interventions"]["groups"]["count"] == 9
    assert set(diagnosis["interventions"]["groups"]["predictors"]) == {"fit", "effect", "curvature", "magnitude"}
    assert any("no power, 3 permutations" in finding for finding in first["findings"])
    written = json.loads((run / "results" / "diagnose.json").read_text())
    assert written["metrics"] == first


@pytest.mark.parametrize("caused", [True, False])
def test_only_a_true_cause_beats_its_permutations(tmp_path, capsys, caused):
    """Δθ and a ΔL that three columns cause, or that nothing does: the same numbers in another order."""
    index = ParameterIndex.from_json([{"name": "weight", "shape": [4, 10], "filter_axis": 0}])
    store = Store.create(tmp_path / "s.zarr", index=index, model={}, start_sha256="")
    rng = np.random.default_rng(0)
    delta = rng.standard_normal((100, 40)).astype(np.float32)
    change = -(delta[:, [3, 17, 30]].astype(float) ** 2) @ [2.0, 1.0, 1.5]
    change = change if caused else rng.permutation(change)
    info = RecordingInfo(lr=0.1, batch_size=4, seed=0)
    writer = store.create_recording(info, np.ones(40, bool), max_rows=100, codec="exact", block_rows=100)
    for row in range(100):
        losses = {"loss_before": 50.0, "loss_after": 50.0 + change[row]}
        writer.append(delta[row], **losses, lr=0.1, epoch=0, batch=row, grad_norm=1.0)
    writer.finish()
    where = ["--store", tmp_path / "s.zarr", "--run", tmp_path]
    call_json(capsys, "fit-gamma", "--alpha-ratio", "0.05", *where)
    placebo = call_json(capsys, "diagnose", "--placebo", "9", *where)["metrics"]["diagnosis"]["placebo"]
    assert (placebo["r2_held_out"] > 0.9) == caused
    assert (placebo["p_value"] == 0.1) == caused


def test_the_tables_are_printed(run, capsys):
    assert call("diagnose", "--run", run, "--other", run / "other.zarr", *FEW, "--quiet") == 0
    printed = capsys.readouterr().out
    for word in ("R² held out", "selection probability", "Spearman of |γ|", "γθ², the fit's prediction", "•"):
        assert word in printed


def test_what_cannot_be_measured_says_why(run, tmp_path, capsys):
    shutil.copytree(run / "other.zarr", tmp_path / "s.zarr")
    result = call_json(capsys, "diagnose", "--store", tmp_path / "s.zarr", "--run", tmp_path, "--placebo", "0")
    diagnosis = result["metrics"]["diagnosis"]
    # It was counted while the steps were recorded.
    assert set(diagnosis.pop("rounding")) == {"vanished"}
    assert all("unavailable" in part for part in diagnosis.values())
    assert "--bootstrap" in diagnosis["stability"]["unavailable"]
    assert len(result["metrics"]["findings"]) == 5
    sgd = ["fit-gamma", "--store", tmp_path / "s.zarr", "--solver", "sgd", "--name", "sgd", "--quiet"]
    assert call(*sgd) == 0
    result = call_json(capsys, "diagnose", "--store", tmp_path / "s.zarr", "--run", tmp_path, "--fit", "sgd")
    assert "sgd" in result["metrics"]["diagnosis"]["placebo"]["unavailable"]


def test_a_checkpoint_of_another_moment_is_warned_of(run, capsys, caplog):
    options = ["--checkpoint", run / "pretrained.safetensors", "--placebo", "0", "--interventions", "8"]
    assert call("diagnose", "--run", run, *options, "--json") == 0
    assert "isn't the checkpoint that recording 000 ended with" in caplog.text + capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--other", "trajectory.zarr"], 2, "another recording, found the same"),
        (["--fit", "nothing"], 3, "run fit-gamma first"),
        (["--other-fit", "a"], 2, "--other or --other-recording"),
        (["--split", "test"], 2, "one of train, validation"),
        (["--group-share", "0"], 2, "(0, 1]"),
    ],
    ids=str,
)
def test_bad_input_is_one_line(run, monkeypatch, capsys, options, code, message):
    monkeypatch.chdir(run)
    assert call("diagnose", "--run", ".", *options, "--quiet") == code
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
