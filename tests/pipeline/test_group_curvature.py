"""fit-gamma's curvatures of a recorded separable quadratic, whose true ones are known."""

import json

import numpy as np
import pytest
from commands import call, call_json

from causalprune.models.parameters import ParameterIndex
from causalprune.trajectory import RecordingInfo, Store

LR = 0.05
SIZES = [8, 8, 3, 3, 1]
"""Of two filters of a Conv layer, two neurons of a Linear layer, and a bias, which isn't recorded."""
UNITS = [1.0, 4.0, 9.0, 2.0, 3.0]
"""Curvature of each when every unit has its own."""
LAYERS = [1.0, 1.0, 9.0, 9.0, 3.0]
"""And when those of a layer have one."""


def record(path, rows=60, active=None, curvature=UNITS, **options):
    """Gradient descent on ½Σ h θ² from a new point in each step."""
    index = ParameterIndex.from_json(
        [
            {"name": "blocks.0.conv1.weight", "shape": [2, 2, 2, 2], "filter_axis": 0},
            {"name": "blocks.0.fc.weight", "shape": [2, 3], "filter_axis": 0},
        ]
    )
    store = Store.create(path, index=index, model={"name": "toy"}, start_sha256="")
    total, hessian = index.total, np.repeat(curvature, SIZES)
    active = np.ones(total, bool) if active is None else active
    info = RecordingInfo(**{"lr": LR, "batch_size": 4, "seed": 0, **options})
    writer = store.create_recording(info, active, max_rows=rows, codec="exact", block_rows=rows)
    rng = np.random.default_rng(0)
    for row in range(rows):
        theta = rng.normal(size=total + 1) * rng.uniform(0.2, 2, len(SIZES)).repeat(SIZES)
        gradient = hessian * theta
        moves = -LR * gradient
        moves[:total][~active] = 0
        loss = [0.5 * float(hessian @ t**2) for t in (theta, theta + moves)]
        norm = float(np.linalg.norm(gradient))
        values = moves[:total][active].astype(np.float32)
        writer.append(values, loss_before=loss[0], loss_after=loss[1], lr=LR, epoch=0, batch=row, grad_norm=norm)
    writer.finish()
    return store


@pytest.mark.parametrize(
    ("granularity", "curvature", "truth"),
    [("filter", UNITS, UNITS[:4]), ("neuron", UNITS, UNITS[:4]), ("layer", LAYERS, [1.0, 9.0])],
)
def test_curvature_and_step_size_are_reported_and_kept(tmp_path, capsys, granularity, curvature, truth):
    store = record(tmp_path / "s.zarr", curvature=curvature)
    result = call_json(capsys, "fit-gamma", "--store", tmp_path / "s.zarr", "--granularity", granularity)
    table = result["metrics"]["curvature"]
    assert (table["others"], table["warning"]) == ("a column", "")
    groups = table["groups"]
    names = ["blocks.0.conv1.weight", "blocks.0.fc.weight"]
    units = [f"{name}[{unit}]" for name in names for unit in (0, 1)]
    assert [group["name"] for group in groups] == (names if granularity == "layer" else units)
    for group, h in zip(groups, truth, strict=True):
        assert group["curvature"] == pytest.approx(h, rel=1e-3)
        assert (group["low"], group["high"]) == pytest.approx((h, h), rel=1e-2)
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


def test_the_documented_order_keeps_both_fits(tmp_path, capsys):
    """The README's fit-gamma, then the curvature of layers."""
    store = record(tmp_path / "s.zarr")
    where = ["--store", tmp_path / "s.zarr"]
    first = call_json(capsys, "fit-gamma", *where)["metrics"]["evidence"]
    assert call("fit-gamma", "--granularity", "layer", *where, "--quiet") == 5
    assert "name another fit to keep both, as --name layers, or pass --overwrite" in capsys.readouterr().err
    call_json(capsys, "fit-gamma", "--granularity", "layer", "--name", "layers", *where)
    assert set(store.recording().fits) == {"default", "layers"}
    assert store.recording().read_fit("default").attributes["evidence"] == first


def test_groups_of_one_layer_are_told_apart_at_eighty_columns(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    record(tmp_path / "s.zarr")
    assert call("fit-gamma", "--store", tmp_path / "s.zarr", "--granularity", "neuron", "--quiet") == 0
    printed = capsys.readouterr().out
    for name in ("blocks.0.conv1.weight[0]", "blocks.0.conv1.weight[1]", "blocks.0.fc.weight[0]"):
        assert name in printed
    assert max(map(len, printed.splitlines())) <= 80


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"momentum": 0.9}, "momentum 0.9"),
        ({"stride": 2}, "stride 2"),
        ({"loss_change": "next-batch"}, "next-batch"),
        ({"optimizer": "adam"}, "optimizer adam"),
        ({"rows": 5}, "5 steps have no power to tell 4 groups apart"),
        ({"rows": 5}, "choose a coarser --granularity"),
    ],
    ids=str,
)
def test_another_model_or_too_few_steps_get_a_reason_and_no_table(tmp_path, capsys, options, reason):
    store = record(tmp_path / "s.zarr", **options)
    result = call_json(capsys, "fit-gamma", "--store", tmp_path / "s.zarr", "--granularity", "neuron")
    assert reason in result["metrics"]["curvature"]["unavailable"]
    assert "curvature" not in store.recording().read_fit("default").arrays


def test_pruned_parameters_make_the_movement_of_biases_unknown_and_that_is_said(tmp_path, capsys):
    active = np.ones(22, bool)
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
