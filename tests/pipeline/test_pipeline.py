import json
from itertools import pairwise

import pytest
import torch
from commands import QUICK, QUICK_RUN, artefact_hashes, call, call_json

from causalprune.models.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    run = tmp_path_factory.mktemp("pipeline") / "run"
    for stage, options in QUICK.items():
        assert call(stage, *options, "--run", run, "--quiet") == 0
    return run


def test_the_pipeline_keeps_the_accuracy_at_ninety_percent(finished_run):
    result = json.loads((finished_run / "results/evaluate.json").read_text())["metrics"]["evaluation"]
    assert result["sparsity_prunable"] == pytest.approx(0.9, abs=1e-5)
    assert result["reference"]["top1"] > 0.9
    assert result["top1"] >= result["reference"]["top1"] - 0.02
    kept = sum(layer["kept"] for layer in result["layers"])
    assert kept == round(0.1 * sum(layer["total"] for layer in result["layers"]))


def test_pruned_weights_are_zero_bit_for_bit_after_posttraining(finished_run):
    checkpoint = load_checkpoint(finished_run / "final.safetensors")
    for name, keep in checkpoint.mask.tensors().items():
        assert not checkpoint.weights[name][~keep].view(torch.int32).any()
        assert checkpoint.weights[name][keep].any()


def test_every_checkpoint_names_the_hash_of_its_input(finished_run):
    chain = ["pretrained", "recorded", "pruned", "final"]
    checkpoints = [load_checkpoint(finished_run / f"{name}.safetensors") for name in chain]
    for before, after in pairwise(checkpoints):
        assert after.info.inputs["checkpoint"] == before.sha256


def test_finished_work_is_left_alone(finished_run, capsys):
    before = artefact_hashes(finished_run)
    for stage, options in QUICK.items():
        if stage != "evaluate":
            assert call_json(capsys, stage, *options, "--run", finished_run)["already_done"]
    assert artefact_hashes(finished_run) == before


@pytest.mark.parametrize(
    "command",
    [
        ["pretrain", "--epochs", "4"],
        ["record", "--epochs", "1", "--lr", "0.02"],
        ["fit-gamma", "--alpha-ratio", "0.5"],
        ["apply-mask", "--sparsity", "0.8"],
        ["posttrain", "--epochs", "3", "--seed", "1"],
    ],
)
def test_another_configuration_is_refused(finished_run, command, capsys):
    before = artefact_hashes(finished_run)
    assert call(*command, "--run", finished_run, "--quiet") == 5
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--overwrite" in error
    assert artefact_hashes(finished_run) == before


def test_info_describes_what_lies_there(finished_run, capsys):
    for path, kind in ((finished_run, "run"), (finished_run / "final.safetensors", "checkpoint")):
        report = call_json(capsys, "info", path, "--verify")
        assert (report["kind"], report["healthy"]) == (kind, True)
    report = call_json(capsys, "info", finished_run / "trajectory.zarr", "--verify")
    recording = report["details"]["recordings"][0]
    assert (recording["rows"], recording["columns"]) == (21, 130_500)
    assert recording["fits"]["default"]["certified"]


def test_every_criterion_prunes_exactly(finished_run, tmp_path, capsys):
    masks = {}
    for criterion in ("gamma", "effect", "curvature", "magnitude", "random", "fisher", "obd", "chita", "obs"):
        output = tmp_path / f"{criterion}.safetensors"
        options = ["--criterion", criterion, "--sparsity", "0.7", "--output", output, "--run", finished_run]
        assert call_json(capsys, "apply-mask", *options)["metrics"]["sparsity"] == pytest.approx(0.7, abs=1e-5)
        masks[criterion] = load_checkpoint(output).mask.keep
    weights = load_checkpoint(finished_run / "recorded.safetensors").weights
    theta = torch.cat([weights[name].flatten() for name in load_checkpoint(output).mask.tensors()])
    pruned = theta.abs().argsort(stable=True)[: round(0.7 * len(theta))]
    expected = torch.ones(len(theta), dtype=torch.bool)
    expected[pruned] = False
    assert torch.equal(masks["magnitude"], expected)


def test_pruning_by_zero_gamma_keeps_the_nonzero_ones(finished_run, tmp_path, capsys):
    output = tmp_path / "zero.safetensors"
    call_json(capsys, "apply-mask", "--zero", "--output", output, "--run", finished_run)
    kept = load_checkpoint(output).mask.num_kept
    fit = call_json(capsys, "info", finished_run / "trajectory.zarr")["details"]["recordings"][0]["fits"]["default"]
    # A layer without a single nonzero γ keeps its best weight.
    assert fit["num_nonzero"] <= kept <= fit["num_nonzero"] + 4


def test_rewinding_takes_the_pretrained_weights_under_the_mask(finished_run, tmp_path, capsys):
    output = tmp_path / "rewound.safetensors"
    options = ["--sparsity", "0.5", "--rewind", "pretrained", "--output", output, "--run", finished_run]
    call_json(capsys, "apply-mask", *options)
    rewound, dense = load_checkpoint(output), load_checkpoint(finished_run / "pretrained.safetensors")
    for name, weight in dense.weights.items():
        keep = rewound.mask.tensors().get(name, torch.ones_like(weight, dtype=torch.bool))
        assert torch.equal(rewound.weights[name], torch.where(keep, weight, 0.0))


@pytest.mark.parametrize(
    "options",
    [
        ["--solver", "sgd", "--preset", "june-2025"],
        ["--scope", "layer"],
        ["--granularity", "filter"],
        ["--granularity", "layer", "--normalize", "column"],
        ["--normalize", "lr"],
        ["--l1-ratio", "0.5"],
        ["--lags", "1"],
    ],
)
def test_every_kind_of_fit_can_be_pruned_by(finished_run, tmp_path, capsys, options):
    name = "-".join(options).replace("--", "")
    fit = call_json(capsys, "fit-gamma", *options, "--name", name, "--run", finished_run)
    assert fit["metrics"]["evidence"]["num_columns"] > 0
    output = tmp_path / "pruned.safetensors"
    options = ["--fit", name, "--sparsity", "0.6", "--output", output, "--run", finished_run]
    assert call_json(capsys, "apply-mask", *options)["metrics"]["sparsity"] == pytest.approx(0.6, abs=1e-4)


@pytest.mark.parametrize("dataset", ["breast-cancer", "diabetes"])
def test_tables_run_through(dataset, tmp_path, capsys):
    run = tmp_path / "run"
    report = call_json(capsys, *QUICK_RUN, "--dataset", dataset, "--hidden", "32", "--model", "mlp", "--run", run)
    evaluation = report["metrics"]["evaluation"]
    assert evaluation["sparsity_prunable"] == pytest.approx(0.9, abs=0.01)
    assert (evaluation["r2"] if dataset == "diabetes" else evaluation["top1"]) is not None


def test_mnist_runs_through(real_data, tmp_path, capsys):
    options = ["--dataset", "mnist", "--data-root", real_data, "--model", "mlpnet", "--pretrain-epochs", "1"]
    report = call_json(
        capsys, "run", "--iterations", "1", "--sparsity", "0.8", *options, "--train-epochs", "0", "--batch-size", "500",
        "--record-epochs", "1", "--posttrain-epochs", "1", "--run", tmp_path / "run",
    )  # fmt: skip
    assert report["metrics"]["evaluation"]["top1"] > 0.85
