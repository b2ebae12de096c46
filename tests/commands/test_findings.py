"""Pruning that cost more than it should, and training that learned nothing, are said to have."""

import json

import pytest
from commands import call, call_json

from causalprune.base.errors import DataError
from causalprune.commands._findings import evaluation_findings, pruning_findings, training_findings


def classified(top1, guessing=0.5):
    return {"top1": top1, "guessing": guessing}


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        # Within a tenth of the baseline itself, or of what is left above it.
        (classified(0.55), True),
        (classified(0.551), False),
        (classified(0.0011, 0.001), True),
        (classified(0.01, 0.001), False),
        (classified(0.981, 0.98), True),
        (classified(0.999, 0.98), False),
        ({"r2": 0.1}, True),
        ({"r2": -3.0}, True),
        ({"r2": 0.11}, False),
        ({"r2": None}, False),
        ({"loss": 1.0}, False),
        ("not metrics", False),
        (None, False),
    ],
)
def test_a_training_at_the_baseline(measured, said):
    found = training_findings({"best_epoch": 3, "validation": measured})
    assert bool(found) == said
    # Where nothing was trained, no training failed.
    assert not training_findings({"best_epoch": 0, "validation": measured})


@pytest.mark.parametrize(
    ("score", "dense", "says"),
    [
        (0.92, 0.95, ""),
        (0.855, 0.9, "pruning cost 11 %"),
        (0.87, 0.9, ""),
        (0.5, 0.9, "pruning left nothing"),
        (0.5, 0.51, "before pruning"),
        (0.95, 0.9, ""),
        (0.7, None, ""),
        (0.5, None, "pruning left nothing"),
    ],
)
def test_what_pruning_cost(score, dense, says):
    found = pruning_findings(classified(score), None if dense is None else classified(dense), "test", "")
    assert [says in one for one in found] == ([True] if says else [])
    evaluation = classified(score) | {"reference": dense and classified(dense), "sparsity_prunable": 0.9}
    assert evaluation_findings(evaluation, "") == found


@pytest.mark.parametrize(
    ("adapted", "first"), [("", "repair it"), ("posttrain", "train it longer"), ("repair", "try a lower")]
)
@pytest.mark.parametrize("score", [0.5, 0.7])
def test_what_to_do_first_depends_on_what_was_done(score, adapted, first):
    (found,) = pruning_findings(classified(score), classified(0.9), "test", adapted)
    assert found.partition("; ")[2].startswith(first)
    assert ("repair" in found) == (not adapted)


def test_a_network_that_was_not_pruned_did_not_lose_by_it():
    (found,) = evaluation_findings(classified(0.5) | {"reference": classified(0.9), "sparsity_prunable": 0.0}, "")
    assert "pruning" not in found


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A network that works, pruned until it doesn't."""
    run = tmp_path_factory.mktemp("findings") / "run"
    data = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4"]
    for stage in (
        ["pretrain", *data, "--epochs", "8"],
        ["record", "--steps", "5"],
        ["apply-mask", "--sparsity", "0.97", "--criterion", "random"],
        ["posttrain", "--epochs", "0"],
        ["evaluate"],
    ):
        assert call(*stage, "--run", run, "-q") == 0
    return run


def test_every_command_that_knows_says_so(run, capsys):
    for stage in (["apply-mask", "--sparsity", "0.97", "--criterion", "random"], ["evaluate"], ["info"]):
        said = call_json(capsys, *stage, "--run", run)
        (warning,) = said["warnings"]
        assert warning.startswith("pruning ")
        # A training of no epochs adapts nothing.
        assert "; repair it (`causalprune repair`, in run and sweep --repair) or train it, then try a lower " in warning
        assert "--sparsity" in warning
        result = run / f"results/{stage[0]}.json"
        assert stage == ["info"] or json.loads(result.read_text())["warnings"] == said["warnings"]
    assert call("evaluate", "--run", run) == 0
    assert "pruning " in capsys.readouterr().err
    assert call("info", "--run", run) == 0
    assert "warning: pruning " in capsys.readouterr().out


def test_apply_mask_measures_what_it_can_and_needs_no_data(run, tmp_path, capsys, monkeypatch):
    prune = ["apply-mask", "--sparsity", "0.97", "--criterion", "random", "--checkpoint", run / "recorded.safetensors"]
    metrics = call_json(capsys, *prune, "--run", tmp_path / "a")["metrics"]
    assert metrics["validation_before"]["top1"] > 0.85
    assert metrics["validation"]["samples"] == 46
    told = json.loads((run / "results/apply-mask.json").read_text())["metrics"]
    assert (metrics["validation"], metrics["validation_before"]) == (told["validation"], told["validation_before"])

    def gone(*args, **kwargs):
        raise DataError("data set", found="nothing")

    monkeypatch.setattr("causalprune.commands.apply_mask.measuring.load_its_data", gone)
    said = call_json(capsys, *prune, "--run", tmp_path / "b")
    assert said["metrics"]["validation"] is None
    assert said["warnings"] == []
    masks = [(tmp_path / folder / "pruned.safetensors").read_bytes() for folder in "ab"]
    assert masks[0] == masks[1]


def test_a_training_that_learned_nothing_is_never_done_without_a_word(tmp_path, capsys):
    train = ["pretrain", "--dataset", "digits", "--model", "mlp", "--hidden", "2", "--epochs", "1", "--lr", "1e-9"]
    for _ in ("made", "found"):
        (warning,) = call_json(capsys, *train, "--run", tmp_path)["warnings"]
        assert "the training ended at accuracy" in warning
        assert "--lr" in warning
    assert any("the training ended" in one for one in call_json(capsys, "info", tmp_path)["warnings"])


def test_cross_validation_says_when_the_best_alpha_is_at_an_end(tmp_path, capsys):
    """Of a recording whose noise is nothing the smallest α is best, of one that is noise the largest."""
    import numpy as np

    from causalprune.models.parameters import ParameterIndex
    from causalprune.trajectory import RecordingInfo, Store

    index = ParameterIndex.from_json([{"name": "weight", "shape": [2, 5], "filter_axis": 0}])
    rng = np.random.default_rng(0)
    for name, caused in (("caused", True), ("noise", False)):
        store = Store.create(tmp_path / f"{name}.zarr", index=index, model={}, start_sha256="")
        delta = rng.standard_normal((80, 10)).astype(np.float32)
        change = -(delta.astype(float) ** 2) @ np.linspace(1, 2, 10) if caused else rng.standard_normal(80) * 1e-3 - 1
        info = RecordingInfo(lr=0.1, batch_size=4, seed=0)
        with store.create_recording(info, np.ones(10, bool), max_rows=80, codec="exact") as writer:
            for row in range(80):
                losses = {"loss_before": 90.0, "loss_after": 90.0 + change[row]}
                writer.append(delta[row], **losses, lr=0.1, epoch=0, batch=row, grad_norm=1.0)
            writer.finish()
    fit = ["fit-gamma", "--alphas", "5", "--cv", "4", "--alpha-min-ratio", "0.3", "--run", tmp_path]
    for _ in ("made", "found"):
        (warning,) = call_json(capsys, *fit, "--store", tmp_path / "caused.zarr")["warnings"]
        assert warning.startswith("cross-validation chose the last α")
        assert "--alpha-min-ratio" in warning
    alphas = call_json(capsys, *fit[:5], "--alpha-min-ratio", "1e-6", "--run", tmp_path, "--name", "wide",
                       "--store", tmp_path / "caused.zarr")  # fmt: skip
    assert not any("chose the first" in one for one in alphas["warnings"])


def test_a_run_says_what_its_pruning_cost(tmp_path, capsys):
    run = ["run", "--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4", "--iterations", "1"]
    run += ["--sparsity", "0.97", "--criterion", "random", "--pretrain-epochs", "8", "--train-epochs", "0"]
    run += ["--record-epochs", "1", "--posttrain-epochs", "0", "--run", tmp_path]
    for _ in ("made", "found"):
        *_, unrepaired, warning = call_json(capsys, *run)["warnings"]
        assert warning.startswith("pruning ")
        assert "lower --sparsity, more --iterations" in warning
        assert "neither a training nor a repair; --repair" in unrepaired
    repaired = call_json(capsys, *run, "--repair", "--overwrite")["warnings"]
    assert not any("repair" in one for one in repaired)
