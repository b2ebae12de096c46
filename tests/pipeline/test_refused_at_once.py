"""What a run can't end well with is said before its first stage, and leaves nothing behind."""

import pytest
from commands import call

TABLE = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "8", "--pretrain-epochs", "1"]


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (
            ["--criterion", "chita", "--set", "record.momentum=0.9"],
            2,
            "found record.momentum=0.9; set record.momentum=0,",
        ),
        (["--criterion", "curvature", "--set", "record.loss_change=next-batch"], 2, "record.loss_change=same-batch"),
        (
            ["--criterion", "fisher", "--set", "record.stride=2", "--set", "record.momentum=0.5"],
            2,
            "set record.momentum=0, record.stride=1, or choose another criterion",
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
        (["--set", "fit-gamma.cv=3"], 2, "--set fit-gamma.cv=…: expected --set fit-gamma.alphas=N beside it"),
        (["--granularity", "filter"], 5, "granularity filter: expected a network with Conv layers"),
        (["--granularity", "channel", "--hidden", ""], 0, ""),
        (["--set", "fit-gamma.granularity=filter"], 5, "granularity filter: expected a network with Conv layers"),
    ],
)
def test_before_the_first_stage(tmp_path, capsys, options, code, says):
    short = ["--iterations", "1", "--train-epochs", "0", "--record-epochs", "1", "--posttrain-epochs", "0"]
    table = TABLE[:4] + TABLE[6:] if "--hidden" in options else TABLE
    assert call("run", *table, *short, *options, "--run", tmp_path / "run", "--quiet") == code
    error = capsys.readouterr().err
    assert says in error
    assert (error.count("\n"), (tmp_path / "run").exists()) == ((1, False) if code else (0, True))
