"""What a run can't end well with is said before its first stage, and leaves nothing behind."""

import sys

import pytest
from commands import call

TABLE = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "8", "--pretrain-epochs", "1"]

STAGES = ("pretrain", "train", "record", "fit-gamma", "apply-mask", "repair", "posttrain", "evaluate")

NORMALIZED = """
from torch import nn

def network(input_shape, num_outputs):
    return nn.Sequential(nn.Linear(30, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, num_outputs))
"""


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (
            ["--criterion", "chita", "--set", "record.momentum=0.9"],
            2,
            "found --set record.momentum=0.9; pass --set record.momentum=0,",
        ),
        (
            ["--criterion", "curvature", "--set", "record.loss_change=next-batch"],
            2,
            "pass --set record.loss-change=same-batch",
        ),
        (
            ["--criterion", "fisher", "--set", "record.stride=2", "--set", "record.momentum=0.5"],
            2,
            "pass --set record.momentum=0 --set record.stride=1, or choose another criterion",
        ),
        (
            ["--criterion", "surgeon", "--set", "apply-mask.exponent=0.5"],
            2,
            "--set apply-mask.exponent=…: expected none, because the formula of criterion surgeon has no exponent",
        ),
        (
            ["--set", "record.hold=true", "--set", "record.stride=2"],
            2,
            "--set record.hold=true and --set record.stride=…: expected one of them, because every step is taken back",
        ),
        (["--set", "fit-gamma.plot=x.png"], 2, "--set fit-gamma.plot=…: expected --set fit-gamma.alphas=N beside it"),
        (["--set", "apply-mask.iteration=9"], 2, "--set apply-mask.iteration=…: expected at most --iterations 1"),
        (["--key-map", "a=b"], 2, "--key-map: expected --init-from FILE beside it, found none"),
        (["--set", "fit-gamma.cv=3"], 2, "--set fit-gamma.cv=…: expected --set fit-gamma.alphas=N beside it"),
        (["--granularity", "filter"], 5, "granularity filter: expected a network with Conv layers"),
        (["--granularity", "channel", "--hidden", ""], 0, ""),
        (["--set", "fit-gamma.granularity=filter"], 5, "granularity filter: expected a network with Conv layers"),
        *(
            (["--repair", "--set", f"{stage}.device=cuda:99"], 2, f"--set {stage}.device=…: expected ")
            for stage in STAGES
        ),
        (
            ["--set", "fit-gamma.memory=1"],
            2,
            "--set fit-gamma.memory=…: expected at least 90.1 MB for 7 × 256, found 1 B",
        ),
        (
            ["--set", "fit-gamma.solver=sklearn", "--set", "fit-gamma.memory=1kB"],
            2,
            "--set fit-gamma.memory=…: expected at least 28.7 kB for 7 × 256 in scikit-learn, found 1 kB",
        ),
        (["--set", "fit-gamma.target-nonzero=9"], 2, "nonzero γ: expected at most 7, found 9"),
        (
            ["--set", "fit-gamma.cv=5", "--set", "fit-gamma.alphas=3"],
            2,
            "--set fit-gamma.cv=…: expected at most 3 folds of 7 rows, found 5",
        ),
        (
            ["--set", "fit-gamma.solver=sgd", "--set", "fit-gamma.bootstrap=3"],
            2,
            "--set fit-gamma.bootstrap=…: expected --set fit-gamma.solver=lasso beside it",
        ),
        (["--set", "fit-gamma.alpha-ratio=1e-300"], 2, "--set fit-gamma.alpha-ratio=…: expected at least"),
        (["--set", "fit-gamma.row-weights=nowhere.npy"], 3, "nowhere.npy: expected a file of numbers, found nothing"),
        (["--set", "record.hold=true", "--set", "fit-gamma.lags=1"], 5, "expected steps that follow each other, for"),
        (["--set", "record.hold=true", "--set", "fit-gamma.normalize=lr"], 5, "expected one learning rate above 0"),
        (
            ["--criterion", "curvature", "--set", "fit-gamma.lags=1"],
            5,
            "criterion curvature: expected a fit without lags, found three coefficients per parameter; pass --set",
        ),
        (["--set", "record.steps=1"], 3, "recording: expected at least 2 rows, found 1 from 1 steps at stride 1"),
        (["--set", "record.stride=9"], 3, "recording: expected at least 2 rows, found 0 from 7 steps at stride 9"),
        (["--set", "record.augment=crop"], 2, "--set record.augment=…: expected"),
        (["--set", "apply-mask.prune=0.bias"], 2, "--set apply-mask.prune=…: expected"),
        (["--set", "posttrain.dense=nowhere.safetensors"], 3, "nowhere.safetensors: expected a checkpoint, found"),
        (["--set", "record.store=other.zarr"], 2, "expected the same store for fit-gamma, which reads the recording"),
        (
            ["--iterations", "2", "--set", "record.store=other.zarr"],
            2,
            "--set record.store=other.zarr: expected one iteration, because each records into a store of its own",
        ),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry"])
def test_before_the_first_stage(tmp_path, capsys, options, code, says, dry):
    short = ["--iterations", "1", "--train-epochs", "0", "--record-epochs", "1", "--posttrain-epochs", "0"]
    table = TABLE[:4] + TABLE[6:] if "--hidden" in options else TABLE
    assert call("run", *table, *short, *options, *dry, "--run", tmp_path / "run", "--quiet") == code
    error = capsys.readouterr().err
    assert says in error
    assert (error.count("\n"), (tmp_path / "run").exists()) == ((1, False) if code else (0, not dry))


SWEEP = [*TABLE, "--sparsity", "0.5", "--seeds", "1", "--record-epochs", "1"]


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--vary", "granularity=parameter,filter"], 5, "granularity filter: expected a network with Conv layers"),
        (["--vary", "granularity=parameter,filter"], 5, "(at granularity=filter)"),
        (["--vary", "record.steps=100,1"], 3, "recording: expected at least 2 rows, found 1 from 1 steps"),
        (["--set", "record.device=cuda:99"], 2, "--set record.device=…: expected"),
        (["--set", "fit-gamma.memory=1"], 2, "--set fit-gamma.memory=…: expected at least"),
        (["--vary", "fit-gamma.target-nonzero=2,999"], 2, "found 999; use --set fit-gamma.l1-ratio=… below 1"),
        # It is recorded for every criterion.
        (["--criterion", "gamma,magnitude", "--set", "record.steps=1"], 3, "recording: expected at least 2 rows"),
    ],
)
def test_before_the_first_cell_of_a_sweep(tmp_path, capsys, options, code, says):
    criterion = [] if "--criterion" in options else ["--criterion", "gamma"]
    assert call("sweep", *SWEEP, *criterion, *options, "--run", tmp_path / "run", "--quiet") == code
    error = capsys.readouterr().err
    assert says in error
    assert (error.count("\n"), (tmp_path / "run").exists()) == (1, False)


def test_a_sweep_of_a_recording_that_is_there_knows_its_size(tmp_path, capsys):
    for command in (["pretrain", *TABLE[:6], "--epochs", "1"], ["record", "--steps", "5"]):
        assert call(*command, "--run", tmp_path / "run", "--quiet") == 0
    capsys.readouterr()
    sweep = ["sweep", "--recorded", tmp_path / "run", "--criterion", "gamma", "--seeds", "1", "--quiet"]
    assert call(*sweep, "--set", "fit-gamma.target-nonzero=6", "--run", tmp_path / "sweep") == 2
    assert "nonzero γ: expected at most 5, found 6" in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


def test_cells_that_are_done_are_not_asked_again(tmp_path, capsys):
    """As on another machine, on which the table is only looked at."""
    sweep = ["sweep", *SWEEP, "--criterion", "gamma", "--run", tmp_path / "run", "--quiet"]
    assert call(*sweep) == 0
    assert call(*sweep, "--set", "record.device=cuda:99") == 0
    assert call(*sweep[:-4], "gamma,magnitude", *sweep[-3:], "--device", "cuda:99") == 2
    assert "--device: expected" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "sweep"])
def test_what_is_not_installed(tmp_path, capsys, monkeypatch, command):
    monkeypatch.setitem(sys.modules, "curvlinops", None)
    options = [*TABLE, "--set", "evaluate.hessian=3"]
    assert call(command, *options, "--run", tmp_path / "run", "--quiet") == 2
    assert "--set evaluate.hessian=… needs curvlinops: pip install '.[flatness]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_batches_that_are_too_small_for_a_later_training(tmp_path, capsys, monkeypatch):
    (tmp_path / "normalized.py").write_text(NORMALIZED)
    monkeypatch.chdir(tmp_path)
    options = ["--model", "normalized:network", "--dataset", "breast-cancer", "--set", "posttrain.batch-size=1"]
    assert call("run", *options, "--run", tmp_path / "run", "--quiet") == 2
    assert "--set posttrain.batch-size=…: expected at least 2" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
