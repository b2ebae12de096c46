"""``causalprune.fit``: the fit of the command line, to the byte, with its columns under the weights' names."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch
from causalprune_cli.main import main

import causalprune as cp
from causalprune.base.errors import DataError, MismatchError, NumericalError, UsageError
from causalprune.config.fit_gamma import FitGammaConfig
from causalprune.models.parameters import ParameterIndex
from causalprune.solver.recording.fit import fit_to_use
from causalprune.solver.recording.options import FitOptions
from causalprune.trajectory import RecordingInfo, Store

INDEX = ParameterIndex.from_json(
    [
        {"name": "conv.weight", "shape": [3, 2, 2, 2], "filter_axis": 0},
        {"name": "fc.weight", "shape": [4, 5], "filter_axis": 0},
    ]
)


@pytest.fixture
def store(tmp_path):
    return record(tmp_path / "trajectory.zarr")


def record(path, *, momentum=0.0, rows=30):
    """A recording in which every third weight is pruned already, and two weights cause the loss to fall."""
    rng = np.random.default_rng(0)
    active = np.arange(INDEX.total) % 3 > 0
    deltas = np.zeros((rows, INDEX.total), np.float32)
    deltas[:, active] = rng.normal(size=(rows, active.sum())) * 1e-3
    change = -(deltas[:, [1, 40]].astype(np.float64) ** 2 @ [10.0, 30.0]) + 1e-7 * rng.normal(size=rows)
    writer = Store.create(path, index=INDEX, model={}, start_sha256="").create_recording(
        RecordingInfo(lr=0.1, batch_size=4, seed=0, momentum=momentum), active, max_rows=rows, codec="exact"
    )
    for row, (delta, dl) in enumerate(zip(deltas[:, active], change, strict=True)):
        writer.append(delta, loss_before=1.0, loss_after=1.0 + dl, lr=0.1, epoch=0, batch=row, grad_norm=1.0)
    writer.finish()
    writer.close()
    return path


def files(store, name="default"):
    folder = store / "recordings/000/fits" / name
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_every_option_and_its_default_are_those_of_the_command():
    parameters = inspect.signature(cp.fit).parameters
    for name, field in FitOptions.option_fields().items():
        assert parameters[name].default == field.default == FitGammaConfig.option_fields()[name].default, name
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
    assert set(parameters) - set(FitOptions.option_fields()) == {
        "store",
        "recording",
        "name",
        "overwrite",
        "row_weights",
    }


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({}, []),
        ({"alpha_ratio": 0.3, "scope": "layer"}, ["--alpha-ratio", "0.3", "--scope", "layer"]),
        ({"granularity": "filter", "l1_ratio": 0.5}, ["--granularity", "filter", "--l1-ratio", "0.5"]),
        ({"alphas": 5, "cv": 3, "bootstrap": 2}, ["--alphas", "5", "--cv", "3", "--bootstrap", "2"]),
        ({"solver": "sgd", "preset": "oct-2025"}, ["--solver", "sgd", "--preset", "oct-2025"]),
    ],
)
def test_it_writes_the_bytes_of_the_command(tmp_path, options, flags):
    mine, theirs = record(tmp_path / "mine.zarr"), record(tmp_path / "theirs.zarr")
    cp.fit(mine, **options)
    assert main(["fit-gamma", "--store", str(theirs), "--quiet", *flags]) == 0
    assert files(mine) == files(theirs)
    # And either takes the other's for done.
    assert main(["fit-gamma", "--store", str(mine), "--quiet", *flags]) == 0
    before = files(theirs)
    cp.fit(theirs, **options)
    assert files(theirs) == before


def test_values_are_under_the_names_and_in_the_shapes_of_the_weights(store):
    fit = cp.fit(store)
    active = Store.open(store).recording().active
    assert fit.gamma.shape == fit.kkt_scores.shape == (active.sum(),)
    gamma = fit.by_parameter()
    assert {name: values.shape for name, values in gamma.items()} == {"conv.weight": (3, 2, 2, 2), "fc.weight": (4, 5)}
    flat = np.concatenate([values.reshape(-1) for values in gamma.values()])
    assert np.array_equal(flat[active], fit.gamma)
    assert not flat[~active].any()
    # The two that make the loss fall: position 1, and 40 = 24 + 16, row 3 and column 1.
    assert gamma["conv.weight"][0, 0, 0, 1] < -5
    assert gamma["fc.weight"][3, 1] < -20
    assert fit.by_parameter("dual_correlation")["fc.weight"][3, 1] == pytest.approx(1, abs=1e-4)


def test_what_it_says_of_itself_is_so(store):
    fit = cp.fit(store, alpha_ratio=0.2, tol=1e-10)
    reader = Store.open(store).recording()
    # The fit is exact for squares that are rounded to float32.
    X = (reader.read_columns(0, reader.num_columns) ** 2).astype(np.float64)
    y = reader.loss_change
    residual = y - X @ fit.gamma
    correlation = np.abs(X.T @ residual) / len(y)
    assert fit.alpha == pytest.approx(0.2 * np.abs(X.T @ y).max() / len(y))
    assert np.allclose(fit.kkt_scores, correlation / fit.alpha, atol=2e-4)
    objective = residual @ residual / (2 * len(y)) + fit.alpha * np.abs(fit.gamma).sum()
    scale = min(1.0, fit.alpha / correlation.max())
    dual = (y @ y - (y - scale * residual) @ (y - scale * residual)) / (2 * len(y))
    assert objective - dual <= 1e-9 * (y @ y) / (2 * len(y))
    assert fit.certified
    assert fit.relative_gap <= 1e-10
    assert repr(fit).startswith(
        f"<Fit of 30 steps and {reader.num_columns} columns: {np.count_nonzero(fit.gamma)} nonzero"
    )


def test_groups_share_a_coefficient_and_lags_have_three(store, tmp_path):
    fit = cp.fit(store, granularity="filter", name="filters")
    active = Store.open(store).recording().active[:24].reshape(3, 2, 2, 2)
    gamma = fit.by_parameter()["conv.weight"]
    assert fit.gamma.shape == (7,)
    for unit in range(3):
        assert set(np.unique(gamma[unit][active[unit]])) == {fit.gamma[unit]}
        assert not gamma[unit][~active[unit]].any()
    lagged = cp.fit(record(tmp_path / "m.zarr", momentum=0.9), name="lags")
    assert lagged.gamma.shape == (3, Store.open(tmp_path / "m.zarr").recording().num_columns)
    assert lagged.by_parameter()["fc.weight"].shape == (3, 4, 5)


def test_a_fit_is_not_made_twice_and_not_replaced_unless_told(store):
    first = cp.fit(store)
    assert cp.fit(Store.open(store), alpha_ratio=0.1).digest == first.digest
    with pytest.raises(
        MismatchError, match=r"expected no such fit, .* found another; pass another `name` .*overwrite=True"
    ):
        cp.fit(store, alpha_ratio=0.5)
    second = cp.fit(store, alpha_ratio=0.5, overwrite=True)
    assert second.alpha == pytest.approx(5 * first.alpha)
    assert cp.fit(store, alpha_ratio=0.5, row_weights=np.ones(30), name="weighted").alpha == pytest.approx(second.alpha)
    with pytest.raises(MismatchError, match="found another"):
        cp.fit(store, alpha_ratio=0.5, name="weighted")


def test_a_recording_that_is_still_open_is_not_called_too_short(tmp_path):
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inputs = torch.randn(8, 3)
    with cp.Recorder(model, optimizer, tmp_path / "t.zarr") as recorder:
        for _ in range(5):
            optimizer.zero_grad()
            loss = model(inputs).square().mean()
            loss.backward()
            recorder.step(loss, lambda: model(inputs).square().mean())
        with pytest.raises(DataError, match=r"found 0 of one that is still open; fit after .* its close\(\)"):
            cp.fit(tmp_path / "t.zarr")
    assert cp.fit(tmp_path / "t.zarr").certified


def test_a_fit_without_a_certificate_is_an_error_and_kept(store, monkeypatch):
    with pytest.raises(
        NumericalError, match=r"kept as hard\.uncertified in .*: expected a relative duality gap of 1e-30"
    ):
        cp.fit(store, name="hard", tol=1e-30, max_passes=1)
    assert Store.open(store).recording().fits == ("hard.uncertified",)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"alpha_ratio": -3.0}, UsageError, "`alpha_ratio`: expected a number in (0, 1], found -3.0"),
        ({"alpha": 1.0, "alpha_ratio": 0.5}, UsageError, "`alpha` and `alpha_ratio`: expected one of them, found both"),
        ({"cv": 3}, UsageError, "`cv`: expected `alphas=N` beside it"),
        ({"positive": True, "negative": True}, UsageError, "`positive` and `negative`: expected one of them"),
        ({"solver": "laso"}, UsageError, "did you mean 'lasso'?"),
        ({"name": "a/b"}, UsageError, "name of a fit: expected letters, digits"),
        ({"memory": "lots"}, UsageError, "`memory`: expected a size such as 512MB"),
        ({"row_weights": np.ones(3)}, DataError, "`row_weights`: expected 30 numbers, one per step, found shape (3,)"),
        ({"lags": 2}, UsageError, "`lags`: expected 0 or 1"),
    ],
)
def test_bad_input_names_the_parameter(store, options, error, said):
    with pytest.raises(error) as raised:
        cp.fit(store, **options)
    assert said in str(raised.value)
    assert "--" not in str(raised.value)


def test_a_fit_is_of_its_recording_by_the_same_rule_as_an_object_and_by_its_name(store, tmp_path):
    fit, other = cp.fit(store), cp.fit(record(tmp_path / "other.zarr", rows=20))
    opened = Store.open(store)
    # Early fits don't say what they are of, but what they were read with does.
    silent = replace(fit, attributes=fit.attributes | {"inputs": {}})
    assert fit_to_use(opened, None, "default").digest == fit.digest
    assert fit_to_use(opened, None, fit) is fit
    assert fit_to_use(opened, None, silent) is silent
    for foreign in (other, replace(other, attributes=other.attributes | {"inputs": {}})):
        with pytest.raises(
            MismatchError, match=r"`fit`: expected one of all 30 rows .* found one of another recording"
        ):
            fit_to_use(opened, None, foreign)


def test_a_fit_that_was_given_up_is_not_used_as_an_object_either(store):
    fit = cp.fit(store)
    given_up = replace(fit, attributes=fit.attributes | {"evidence": fit.evidence | {"certified": False}})
    with pytest.raises(MismatchError, match="`fit`: expected a certified fit, found one that the solver gave up"):
        fit_to_use(Store.open(store), None, given_up)
