"""The method of the paper on the bundled digits: its phases, its experiments, and the signs that it has failed."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from commands import call, call_json

from causalprune.config.recipes.authors import RECIPES
from causalprune.models.checkpoint import load_checkpoint
from causalprune.trajectory import Store

STUDY = Path(__file__).parents[2] / "docs/study"
DIGITS = ["--dataset", "digits", "--model", "mlp", "--hidden", "16", "--batch-size", "128"]
CUT = ["--iterations", "2", "--pretrain-epochs", "2", "--train-epochs", "1", "--record-epochs", "2"]
CUT += ["--posttrain-epochs", "1"]


def flat(path):
    checkpoint = load_checkpoint(path)
    return checkpoint.info.index.flatten(checkpoint.weights).numpy(), checkpoint


# Phases ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES)
def test_each_phase_of_each_version(tmp_path, capsys, recipe):
    run = tmp_path / "run"
    # Of the paper's α next to nothing of this network is pruned.
    options = ["--set", "fit-gamma.alpha=1e-11"] if recipe == "paper-v1" else []
    result = call_json(capsys, "run", *DIGITS, *CUT, *options, "--recipe", recipe, "--run", run)["metrics"]
    assert result["recipe"]["name"] == recipe
    assert "iterations=2 instead of 10" in result["recipe"]["changes"]
    assert call("info", run, "--quiet") == 0
    assert f"recipe {recipe}, but" in " ".join(capsys.readouterr().out.split())
    before = np.ones(1184, bool)
    for number in range(2):
        here = run / f"iteration-00{number}"
        reader = Store.open(here / "trajectory.zarr").recording()
        fit = reader.read_fit("default")
        assert fit.evidence["solver"] == f"sgd {recipe}"
        assert bool(fit.attributes["layers"]) == (recipe == "paper-v1")
        assert reader.info.lr == 0.001
        assert reader.info.loss_change == ("next-batch" if recipe == "paper-v1" else "same-batch")
        assert reader.info.label_smoothing == (0 if recipe == "paper-v1" else 0.1)
        weights, pruned = flat(here / "pruned.safetensors")
        keep, gamma = pruned.mask.numpy(), np.zeros(1184)
        gamma[before] = np.abs(fit.arrays["gamma"][0])
        if recipe == "paper-v1":
            np.testing.assert_array_equal(keep, gamma != 0)
        else:
            progress = (number + 1) / 2
            target = 0.9 * (1 - (1 - progress) ** 3) if recipe == "june-2025" else 1 - 0.1**progress
            assert np.count_nonzero(~keep) == pytest.approx(1184 * target, abs=1)
            assert gamma[before & ~keep].max() <= gamma[keep].min()
        # The kept weights go back behind the recording.
        origin = run / "pretrained.safetensors" if recipe == "paper-v1" else here / "trained.safetensors"
        np.testing.assert_array_equal(weights[keep], flat(origin)[0][keep])
        assert (flat(here / "recorded.safetensors")[0][keep] != weights[keep]).any()
        assert np.count_nonzero(before & ~keep) > 0
        before = keep


# Experiments ----------------------------------------------------------------------------------------------------------


def experiment(tmp_path, capsys, name, *options, hidden=16):
    """The rows of an experiment of docs/study on the digits, and what report says of it."""
    run = tmp_path / name
    cut = [
        "--pretrain-epochs",
        "2",
        "--train-epochs",
        "1",
        "--posttrain-epochs",
        "0",
        "--iterations",
        "1",
        "--seeds",
        "1",
    ]
    digits = [*DIGITS[:4], "--hidden", hidden, *DIGITS[6:]]
    assert call("sweep", STUDY / f"{name}.toml", *digits, *cut, *options, "--run", run, "--quiet") == 0
    rows = [json.loads(line) for line in (run / "sweep/results.jsonl").read_text().splitlines()]
    printed = capsys.readouterr().out
    return rows, call_json(capsys, "report", "--run", run)["metrics"], printed


def test_the_phase_shift(tmp_path, capsys):
    rows, report, _ = experiment(tmp_path, capsys, "paper-phase-shift", "--sparsity", "0.3,0.8,0.95,0.999")
    assert len(rows) == 2 * 4
    shifts = {line["criterion"]: line for line in report["phase_shift"]}
    assert set(shifts) == {"gamma", "magnitude"}
    assert all(line.get("sparsity", 0) > 0.3 or "below 30 %" in line.get("reason", "") for line in shifts.values())
    assert rows[0]["score"] > rows[-1]["score"] == pytest.approx(0.1, abs=0.05)


def test_the_eigenvalues_of_causal_and_magnitude_networks(tmp_path, capsys):
    pytest.importorskip("curvlinops")
    _, report, _ = experiment(tmp_path, capsys, "paper-eigenvalues", "--sparsity", "0.9", hidden=2)
    found = {(line["criterion"], line["sparsity"]): line["unpruned"]["mean"] for line in report["eigenvalues"]}
    assert set(found) == {(None, 0.0), ("gamma", 0.9), ("magnitude", 0.9)}
    assert all(value > 0 for value in found.values())


def test_the_coefficient_swept_by_the_authors_solver(tmp_path, capsys):
    alphas = [1e-13, 1e-12, 1e-11, 1e-10]
    options = ["--vary", "fit-gamma.alpha=1e-13,1e-12,1e-11,1e-10", "--record-epochs", "2"]
    rows, report, printed = experiment(tmp_path, capsys, "paper-alpha", *options)
    assert "sparsity" not in rows[0]
    pruned = [row["sparsity_reached"] for row in rows]
    assert pruned == sorted(pruned)
    assert pruned[0] < 0.1 < 0.5 < pruned[-1]
    for row in rows:
        kept, found = sum(layer["kept"] for layer in row["layers"]), row["iterations_log"][0]["num_nonzero"]
        # A layer without any γ ≠ 0 keeps one weight.
        assert found <= kept <= found + 2
    lines = report["coefficients"]
    assert [line["coefficient"] for line in lines] == [{"fit-gamma.alpha": alpha} for alpha in alphas]
    assert [line["pruned"]["mean"] for line in lines] == pytest.approx(pruned)
    assert [line["score"]["mean"] for line in lines] == [row["score"] for row in rows]
    assert f"alpha=1e-11 {100 * pruned[2]:.2f}" in " ".join(printed.split())
    page = (tmp_path / "paper-alpha/report/index.html").read_text()
    assert "What each L1 coefficient prunes" in page
    assert f"{100 * pruned[1]:.2f}" in page


def test_the_coefficient_swept_by_the_exact_solver(tmp_path, capsys):
    rows, report, _ = experiment(tmp_path, capsys, "paper-alpha-exact", "--record-epochs", "2")
    assert [row["fit-gamma.alpha_ratio"] for row in rows] == [0.5, 0.1, 0.01]
    for row in rows:
        (line,) = row["iterations_log"]
        # At most T in each of two layers, whatever α is.
        assert sum(layer["kept"] for layer in row["layers"]) <= 2 * line["rows"]
    assert len(report["coefficients"]) == 3


def test_a_fit_every_k_steps_against_every_epoch(tmp_path, capsys):
    options = ["--iterations", "2", "--train-epochs", "0", "--vary", "record.steps=3,11", "--criterion", "gamma"]
    rows, _, _ = experiment(tmp_path, capsys, "paper-cadence", *options)
    assert [[line["rows"] for line in row["iterations_log"]] for row in rows] == [[3, 3], [11, 11]]
    assert [row["sparsity_reached"] for row in rows] == pytest.approx([0.9, 0.9], abs=1e-3)


def test_no_experiment_is_left_out():
    names = {path.stem for path in STUDY.glob("paper-*.toml")}
    assert names == {"paper-phase-shift", "paper-eigenvalues", "paper-alpha", "paper-alpha-exact", "paper-cadence"}
    assert all(tomllib.loads((STUDY / f"{name}.toml").read_text())["model"] for name in names)


# Signs of failure -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    run = tmp_path_factory.mktemp("method") / "run"
    options = [*DIGITS[:-2], "--epochs", "2"]
    assert call("pretrain", *options, "--run", run, "--quiet") == 0
    assert call("record", "--steps", "20", "--lr", "0.001", "--run", run, "--quiet") == 0
    return run


@pytest.mark.parametrize(
    ("stages", "code", "says"),
    [
        # Steps so long that the loss is no number.
        ([["record", "--lr", "1e18", "--steps", "20"]], 3, "loss while recording"),
        # Steps so short that they vanish in the rounding of the weights: no column is left, and no loss changes.
        ([["record", "--lr", "1e-15", "--steps", "20"], ["fit-gamma"]], 3, "expected a loss that changes"),
        # The same against the next minibatch, whose loss does change: no weight moves.
        ([["record", "--lr", "1e-15", "--steps", "20", "--loss-change", "next-batch"], ["fit-gamma"]], 3, "that move"),
        # An α that leaves nothing: every layer keeps its best weight, and the network knows nothing.
        (
            [["fit-gamma", "--alpha", "1e3", "--name", "zero"], ["apply-mask", "--zero", "--fit", "zero"]],
            0,
            "alpha 1000 is not below alpha_max; would have been emptied; pruning left nothing",
        ),
        # Columns of single samples, for which the steps of the authors' solver are too long.
        (
            [
                ["record", "--batch-size", "1", "--lr", "0.001", "--steps", "40"],
                ["fit-gamma", "--solver", "sgd", "--preset", "june-2025"],
            ],
            0,
            "is worse than γ = 0; the steps are too long",
        ),
        # A network that was lost to training.
        (
            [["posttrain", "--checkpoint", "pretrained", "--epochs", "1", "--lr", "30", "--clip-norm", "0"]],
            0,
            "learned",
        ),
    ],
)
def test_what_failed_is_said(dense, tmp_path, capsys, caplog, stages, code, says):
    place = {"record": ["--store", tmp_path / "s.zarr", "--output", tmp_path / "r.safetensors"]}
    place["fit-gamma"] = ["--store", tmp_path / "s.zarr"] if stages[0][0] == "record" else []
    place["apply-mask"] = place["posttrain"] = ["--output", tmp_path / "o.safetensors"]
    for number, (command, *options) in enumerate(stages, start=1):
        options = [dense / f"{o}.safetensors" if o == "pretrained" else o for o in options]
        found = call(command, *options, *place[command], "--run", dense)
        assert found == (code if number == len(stages) else 0)
    said = " ".join((capsys.readouterr().err + caplog.text).split())
    for part in says.split("; "):
        assert part in said


def test_an_exact_fit_can_not_prune_less_than_all_but_its_rows(dense, tmp_path, capsys):
    """T ≪ P: why the paper's rule needs a solver that stops early."""
    kept = {}
    for ratio in ("0.5", "0.001"):
        name = f"exact-{ratio}"
        call_json(capsys, "fit-gamma", "--alpha-ratio", ratio, "--name", name, "--run", dense)
        output = ["--output", tmp_path / f"{name}.safetensors"]
        result = call_json(capsys, "apply-mask", "--zero", "--fit", name, *output, "--run", dense)
        kept[ratio] = 1184 * (1 - result["metrics"]["sparsity"])
        assert result["metrics"]["lasso"]["most"] == 20
    assert kept["0.5"] < kept["0.001"] <= 20 + 1
