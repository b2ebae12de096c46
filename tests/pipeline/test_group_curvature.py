"""fit-gamma's curvatures of a recorded separable quadratic, whose true ones are known."""

import json

import numpy as np
import pytest
from commands import call, call_json

from causalprune.parameters import ParameterIndex
from causalprune.store import RecordingInfo, TrajectoryStore

LR = 0.05
CURVATURE = np.repeat([1.0, 4.0, 9.0], [6, 6, 4])
"""Two filters of one layer, and a layer of one filter; the last parameter is a bias, which isn't recorded."""


def record(path, rows=60, active=None, **options):
    """Gradient descent on ½Σ h θ² from a new point in each step."""
    index = ParameterIndex.from_json(
        [
            {"name": "a.weight", "shape": [2, 6], "filter_axis": 0},
            {"name": "b.weight", "shape": [1, 3], "filter_axis": 0},
        ]
    )
    store = TrajectoryStore.create(path, index=index, model={"name": "toy"}, start_sha256="")
    active = np.ones(15, bool) if active is None else active
    info = RecordingInfo(**{"lr": LR, "batch_size": 4, "seed": 0, **options})
    writer = store.create_recording(info, active, max_rows=rows, codec="exact", block_rows=rows)
    rng = np.random.default_rng(0)
    for row in range(rows):
        theta = rng.normal(size=16) * rng.uniform(0.2, 2, 3).repeat([6, 6, 4])
        gradient = CURVATURE * theta
        moves = -LR * gradient
        moves[:15][~active] = 0
        loss = [0.5 * float(CURVATURE @ t**2) for t in (theta, theta + moves)]
        norm = float(np.linalg.norm(gradient))
        values = moves[:15][active].astype(np.float32)
        writer.append(values, loss_before=loss[0], loss_after=loss[1], lr=LR, epoch=0, batch=row, grad_norm=norm)
    writer.finish()
    return store


@pytest.mark.parametrize(("granularity", "truth"), [("neuron", [1.0, 4.0, 9.0]), ("layer", [None, 9.0])])
def test_curvature_and_step_size_are_reported_and_kept(tmp_path, capsys, granularity, truth):
    store = record(tmp_path / "s.zarr")
    result = call_json(capsys, "fit-gamma", "--store", tmp_path / "s.zarr", "--granularity", granularity)
    table = result["metrics"]["curvature"]
    assert (table["others"], table["warning"]) == ("a column", "")
    groups = table["groups"]
    for group, h in zip(groups, truth, strict=True):
        if h is not None and granularity == "neuron":
            assert group["curvature"] == pytest.approx(h, rel=1e-3)
            assert group["low"] == pytest.approx(h, rel=1e-2)
            assert group["step_size"] == pytest.approx(1 / h, rel=1e-3)
        assert group["low"] <= group["curvature"] <= group["high"]
        assert group["step_low"] <= group["step_size"] <= group["step_high"]
    fit = store.recording().read_fit("default")
    kept = {"curvature": "curvature", "curvature_low": "low", "curvature_high": "high", "step_size": "step_size"}
    for array, field in kept.items():
        assert fit.arrays[array].tolist() == [g[field] for g in groups]
    again = call_json(capsys, "fit-gamma", "--store", tmp_path / "s.zarr", "--granularity", granularity)
    assert again["already_done"]
    assert again["metrics"]["curvature"] == table


def test_the_table_is_printed(tmp_path, capsys):
    record(tmp_path / "s.zarr")
    assert call("fit-gamma", "--store", tmp_path / "s.zarr", "--granularity", "neuron", "--quiet") == 0
    printed = capsys.readouterr().out
    assert "a.weight[1]" in printed
    assert "interval" in printed


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"momentum": 0.9}, "momentum 0.9"),
        ({"stride": 2}, "stride 2"),
        ({"loss_change": "next-batch"}, "next-batch"),
        ({"optimizer": "adam"}, "optimizer adam"),
        ({"rows": 5}, "5 steps have no power to tell 3 groups apart"),
    ],
    ids=str,
)
def test_another_model_or_too_few_steps_get_a_reason_and_no_table(tmp_path, capsys, options, reason):
    store = record(tmp_path / "s.zarr", **options)
    result = call_json(capsys, "fit-gamma", "--store", tmp_path / "s.zarr", "--granularity", "neuron")
    assert reason in result["metrics"]["curvature"]["unavailable"]
    assert "curvature" not in store.recording().read_fit("default").arrays


def test_pruned_parameters_make_the_movement_of_biases_unknown_and_that_is_said(tmp_path, capsys):
    active = np.ones(15, bool)
    active[3] = False
    record(tmp_path / "s.zarr", active=active)
    assert call("fit-gamma", "--store", tmp_path / "s.zarr", "--granularity", "neuron", "--json") == 0
    table = json.loads(capsys.readouterr().out)["metrics"]["curvature"]
    assert table["others"] == "unknown"
    assert "biases h downwards" in table["warning"]


def test_single_parameters_have_no_table(tmp_path, capsys):
    record(tmp_path / "s.zarr")
    result = call_json(capsys, "fit-gamma", "--store", tmp_path / "s.zarr")
    assert result["metrics"]["curvature"] is None
