"""Fits of stores: what the columns are, what is kept, what happens when it can't be done, how much memory it takes."""

import json
import subprocess
import sys

import numpy as np
import pytest
from causalprune_cli.main import main
from kkt import kkt_violation

from causalprune.models.parameters import ParameterIndex
from causalprune.solver import exact_fit
from causalprune.solver.working_set import MemoryPlan
from causalprune.trajectory import RecordingInfo, Store


def record(path, deltas, change, *, shape=None, momentum=0.0, codec="exact"):
    """A finished recording of given deltas and loss changes."""
    shape = shape or [deltas.shape[1]]
    index = ParameterIndex.from_json([{"name": "layer.weight", "shape": shape, "filter_axis": 0}])
    store = Store.create(path, index=index, model={"name": "toy"}, start_sha256="")
    info = RecordingInfo(lr=0.1, batch_size=4, seed=0, start_sha256="", identity="", momentum=momentum)
    writer = store.create_recording(info, np.ones(deltas.shape[1], bool), max_rows=len(deltas), codec=codec)
    for row, (delta, dl) in enumerate(zip(deltas, change, strict=True)):
        writer.append(delta, loss_before=1.0, loss_after=1.0 + dl, lr=0.1, epoch=0, batch=row, grad_norm=1.0)
    writer.finish()
    return path


def steps(rows=40, columns=600, seed=0):
    rng = np.random.default_rng(seed)
    deltas = (rng.normal(size=(rows, columns)) * 10.0 ** rng.uniform(-6, -4, columns)).astype(np.float32)
    squares = deltas.astype(np.float64) ** 2
    change = -(squares[:, :5] / squares[:, :5].mean(axis=0)).sum(axis=1) + 0.1 * rng.normal(size=rows)
    return deltas, change


def fit_gamma(store, *options):
    assert main(["fit-gamma", "--store", str(store), "--quiet", "--json", *options]) == 0
    return Store.open(store).recording().read_fit("default")


@pytest.mark.parametrize("codec", ["exact", "balanced"])
def test_gamma_is_optimal_for_the_deltas_as_they_are_stored(tmp_path, codec):
    deltas, change = steps()
    store = record(tmp_path / "a store.zarr", deltas, change, codec=codec)
    fit = fit_gamma(store, "--alpha-ratio", "0.1", "--tol", "1e-10")
    reader = Store.open(store).recording()
    X = reader.read_columns(0, 600) ** 2
    y = reader.loss_change
    gamma, evidence = fit.arrays["gamma"][0], fit.attributes["evidence"]
    assert kkt_violation(X.astype(np.float64) * 1e8, y, gamma / 1e8, evidence["alpha"] * 1e8) < 1e-4
    assert evidence["num_nonzero"] == np.count_nonzero(gamma) > 3


def test_momentum_has_three_columns_a_parameter(tmp_path):
    deltas, change = steps(columns=50)
    store = record(tmp_path / "s.zarr", deltas, change, momentum=0.9)
    fit = fit_gamma(store, "--alpha-ratio", "0.1", "--tol", "1e-10", "--normalize", "column")
    now, before = deltas[1:].astype(np.float64), deltas[:-1].astype(np.float64)
    X = np.stack([now**2, before**2, now * before], axis=2).reshape(39, 150)
    norms = np.linalg.norm(X, axis=0)
    gamma = fit.arrays["gamma"].T.reshape(-1)
    assert fit.arrays["gamma"].shape == (3, 50)
    y = Store.open(store).recording().loss_change[1:]
    assert kkt_violation(X / norms, y, gamma * norms, fit.attributes["evidence"]["alpha"]) < 1e-3


def test_a_filter_is_the_sum_of_its_members(tmp_path):
    deltas, change = steps(columns=60)
    store = record(tmp_path / "s.zarr", deltas, change, shape=[6, 10, 1, 1])
    fit = fit_gamma(store, "--granularity", "filter", "--alpha-ratio", "0.05", "--tol", "1e-10")
    X = (deltas.astype(np.float64) ** 2).reshape(40, 6, 10).sum(axis=2) * 1e8
    y = Store.open(store).recording().loss_change
    alpha = fit.attributes["evidence"]["alpha"] * 1e8
    assert kkt_violation(X, y, fit.arrays["gamma"][0] / 1e8, alpha) < 1e-3


def test_equal_fits_are_equal_bytes(tmp_path):
    deltas, change = steps(columns=3000)
    kept = []
    for name in ("one", "two"):
        store = record(tmp_path / name, deltas, change, codec="balanced")
        fit_gamma(store, "--alphas", "5", "--bootstrap", "3", "--normalize", "column")
        folder = next(store.rglob("fits")) / "default"
        kept.append({p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()})
    assert kept[0] == kept[1]


def test_a_fit_that_is_given_up_is_kept_apart_and_not_pruned_by(tmp_path, capsys, monkeypatch):
    deltas, change = steps(columns=3000)
    store = record(tmp_path / "s.zarr", deltas, change)
    monkeypatch.setattr(exact_fit, "plan_memory", lambda *a, **k: MemoryPlan(64, 0, 45))
    options = ["--normalize", "column", "--alpha-ratio", "0.01", "--max-passes", "1", "--held-out", "0"]
    assert main(["fit-gamma", "--store", str(store), *options]) == 8
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("causalprune:")]
    assert "default.uncertified" in line
    assert "--max-passes" in line
    reader = Store.open(store).recording()
    assert reader.fits == ("default.uncertified",)
    assert not reader.read_fit("default.uncertified").attributes["evidence"]["certified"]


def test_row_weights_come_from_a_file(tmp_path, capsys):
    deltas, change = steps()
    store = record(tmp_path / "s.zarr", deltas, change)
    half = np.repeat([1.0, 0.0], 20)
    np.save(tmp_path / "w.npy", half)
    fit = fit_gamma(store, "--row-weights", str(tmp_path / "w.npy"), "--alpha-ratio", "0.1", "--held-out", "0")
    first = record(tmp_path / "first.zarr", deltas[:20], change[:20])
    alone = fit_gamma(first, "--alpha-ratio", "0.1", "--held-out", "0")
    alpha = fit.attributes["evidence"]["alpha"]
    # Weights that leave 20 of 40 rows count each of these twice: the same problem.
    assert alpha == pytest.approx(alone.attributes["evidence"]["alpha"], rel=1e-6)
    np.testing.assert_allclose(fit.arrays["gamma"], alone.arrays["gamma"], rtol=1e-6)
    capsys.readouterr()
    (tmp_path / "short.txt").write_text("1 2 3")
    assert main(["fit-gamma", "--store", str(store), "--row-weights", str(tmp_path / "short.txt")]) == 3
    assert "40 numbers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--alphas", "3", "--alpha", "1"], 2, "both"),
        (["--cv", "3"], 2, "--alphas"),
        (["--cv", "1", "--alphas", "3"], 2, "at least 2"),
        (["--positive", "--negative"], 2, "both"),
        (["--target-nonzero", "41"], 2, "--l1-ratio"),
        (["--target-sparsity", "1.0"], 2, "--target-sparsity"),
        (["--solver", "sgd", "--alphas", "3"], 2, "solver lasso"),
        (["--solver", "sklearn", "--bootstrap", "3"], 2, "solver lasso"),
        (["--solver", "sgd", "--device", "cuda"], 2, "solver lasso"),
        (["--device", "auto"], 2, "cpu, cuda"),
        (["--device", "cuda:97"], 2, "--device"),
        (["--memory", "1MB"], 2, "memory"),
        (["--alpha", "0"], 2, "above 0"),
        (["--positive"], 3, "positive"),
    ],
)
def test_bad_input(tmp_path, capsys, options, code, says):
    deltas, _ = steps()
    store = record(tmp_path / "s.zarr", deltas, -(deltas.astype(np.float64) ** 2).sum(axis=1))
    assert main(["fit-gamma", "--store", str(store), *options]) == code
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("causalprune:")]
    assert says in line
    assert Store.open(store).recording().fits == ()


def test_an_alpha_above_alpha_max_is_said(tmp_path, capsys):
    deltas, change = steps()
    store = record(tmp_path / "s.zarr", deltas, change)
    assert main(["fit-gamma", "--store", str(store), "--alpha", "1e9"]) == 0
    captured = capsys.readouterr()
    assert "every γ is 0" in captured.err
    assert not Store.open(store).recording().read_fit("default").arrays["gamma"].any()


@pytest.mark.parametrize("solver", ["sklearn", "sgd"])
def test_other_solvers_fit_stores_too(tmp_path, solver):
    deltas, change = steps()
    store = record(tmp_path / "s.zarr", deltas, change)
    evidence = fit_gamma(store, "--solver", solver, "--alpha-ratio", "0.1").attributes["evidence"]
    assert evidence["certified"] is (solver == "sklearn")


MEASURE = """
import json, pathlib, re, sys
from causalprune_cli.main import main
options = ["--memory", sys.argv[2], "--normalize", "column", "--quiet", "--json"]
code = main(["fit-gamma", "--store", sys.argv[1], *options])
# Not getrusage: its peak is inherited from the process that forked this one.
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) * 1024
print(json.dumps({"code": code, "peak": peak}))
"""


def peak_of_a_fit(store, memory):
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(store), memory], capture_output=True, text=True, check=True
    )
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["code"] == 0
    evidence, _ = json.JSONDecoder().raw_decode(done.stdout)
    return result["peak"], evidence["metrics"]["evidence"]


def wide_store(path, rows, columns):
    """Deltas that take little room on disk: a few patterns, each scaled by powers of two."""
    rng = np.random.default_rng(0)
    patterns = rng.normal(size=(8, columns // 8)).astype(np.float16).astype(np.float32) * np.float32(1e-5)

    def rows_of_deltas():
        for _ in range(rows):
            mixed = patterns[rng.permutation(8)] * (2.0 ** rng.integers(-2, 3, (8, 1))).astype(np.float32)
            yield mixed.reshape(-1)

    index = ParameterIndex.from_json([{"name": "wide.weight", "shape": [columns], "filter_axis": 0}])
    store = Store.create(path, index=index, model={"name": "wide"}, start_sha256="")
    info = RecordingInfo(lr=0.1, batch_size=4, seed=0, start_sha256="", identity="")
    writer = store.create_recording(info, np.ones(columns, bool), max_rows=rows, codec="small")
    for row, delta in enumerate(rows_of_deltas()):
        change = -float((delta[:50].astype(np.float64) ** 2).sum()) * 1e8
        writer.append(delta, loss_before=1.0, loss_after=1.0 + change, lr=0.1, epoch=0, batch=row, grad_norm=1.0)
    writer.finish()
    return path


def test_memory_bounds_the_peak_of_a_larger_store(tmp_path):
    store = wide_store(tmp_path / "wide.zarr", rows=96, columns=2_000_000)
    peak, evidence = peak_of_a_fit(store, "384MiB")
    assert 4 * 96 * 2_000_000 > 1.9 * 384 * 2**20
    assert peak <= 384 * 2**20
    assert evidence["certified"]


@pytest.mark.slow
def test_memory_bounds_the_peak_of_a_store_ten_times_larger(tmp_path):
    store = wide_store(tmp_path / "wide.zarr", rows=512, columns=2_000_000)
    peak, evidence = peak_of_a_fit(store, "390MiB")
    assert 4 * 512 * 2_000_000 > 10 * 390 * 2**20
    assert peak <= 390 * 2**20
    assert evidence["certified"]
