"""Options in backticks are named as each command takes them."""

import pytest
from causalprune_cli.session import with_flags

from causalprune.commands.names import in_run, with_axes, with_settings


@pytest.mark.parametrize(
    ("said", "typed"),
    [
        ("`record.layer_statistics`", "record --layer-statistics"),
        ("`record.momentum=0, record.stride=1`", "record --momentum 0 --stride 1"),
        ("`init_from=FILE, keep_zeros=true`", "--init-from FILE --keep-zeros"),
        ("`measure=false`", "--no-measure"),
        ("`sparsity=0.5,0.9`", "--sparsity 0.5,0.9"),
        ("`set=record.lr=1e6`", "--set record.lr=1e6"),
        (
            "`torch.export` and `record.nothing` and `apply-mask`",
            "`torch.export` and `record.nothing` and `apply-mask`",
        ),
    ],
)
def test_on_the_command_line(said, typed):
    assert with_flags(said) == typed


@pytest.mark.parametrize("stage", ["apply-mask", "repair", "diagnose"])
def test_an_option_of_another_stage_is_that_stages_setting(stage):
    said = with_settings("`record.momentum=0, record.stride=1`, `record.layer_statistics`, `record.epochs=3`", stage)
    assert said == (
        "--set record.momentum=0 --set record.stride=1, --set record.layer-statistics=true, --record-epochs 3"
    )
    assert with_settings("`record.dry_run` `torch.export`", stage) == "`record.dry_run` `torch.export`"


def test_the_flag_of_run_comes_first():
    assert in_run("pretrain", "epochs") == "--pretrain-epochs"
    assert in_run("posttrain", "epochs", "3") == "--posttrain-epochs 3"
    assert in_run("posttrain", "lr") == "--set posttrain.lr=…"
    assert in_run("record", "hold") == "--set record.hold=true"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("lower --set record.lr=… there", "lower --vary record.lr=… there"),
        ("--set record.layer-statistics=true", "--vary record.layer-statistics=true"),
        ("more --train-epochs, or `train_epochs=3`", "more --vary train-epochs=…, or --vary train-epochs=3"),
        ("--train-epochs 3", "--vary train-epochs=3"),
        ("`scope=layer` and --scopes", "--vary scope=layer and --scopes"),
        ("--set record.lr-schedule=… and --set posttrain.lr=1", "--set record.lr-schedule=… and --set posttrain.lr=1"),
    ],
)
def test_what_a_sweep_varies_is_said_with_vary(message, said):
    assert with_axes(message, ("record.lr", "record.layer_statistics", "train_epochs", "scope")) == said
