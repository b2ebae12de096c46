"""What a stage says within a run or a sweep says of which part it is, and names options as that command takes them."""

import json
import re
import sys

import pytest
from causalprune_cli.main import main

from causalprune.commands.names import with_settings
from causalprune.config.run import RunConfig, Setting

SMALL = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4", "--pretrain-epochs", "1", "--run", "run"]
SWEEP = ["sweep", *SMALL, "--sparsity", "0.5", "--seeds", "2", "--criterion", "gamma"]
RUN = ["run", *SMALL, "--iterations", "1", "--train-epochs", "0", "--posttrain-epochs", "0", "--criterion", "gamma"]
# Steps that float32 hardly sees.
TINY = ["--set", "record.lr=1e-7", "--set", "record.epochs=2"]
LINE = r"\d+% of the recorded changes vanished .+: record with a larger (.+), or with (.+)"
MEANT = ("--set record.lr=…", "--set record.hold=true")


def vanished(error):
    """The lines of stderr that say so, without time and colors: what is in front, and the two remedies."""
    lines = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "\n", error).splitlines()
    found = [re.fullmatch(rf"(?:[\d:]+|warning:) (.*?){LINE}", line) for line in lines]
    return [match.groups() for match in found if match]


@pytest.fixture(params=[False, True], ids=["log", "terminal"])
def stderr(request, monkeypatch, tmp_path, capsys):
    """What was written to stderr, which is a terminal or isn't."""
    monkeypatch.chdir(tmp_path)
    if request.param:
        monkeypatch.setenv("COLUMNS", "300")
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    return lambda: capsys.readouterr().err


def test_of_a_sweep(stderr):
    assert main([*SWEEP, *TINY]) == 0
    assert vanished(stderr()) == [(f"[{n}/2] record: ", *MEANT) for n in (1, 2)]


def test_of_a_run(stderr):
    assert main([*RUN, *TINY]) == 0
    assert vanished(stderr()) == [("", *MEANT)]


def test_of_a_single_stage(stderr):
    assert main(["pretrain", *SMALL[:6], "--epochs", "1"]) == 0
    assert main(["record", "--lr", "1e-7", "--epochs", "2"]) == 0
    assert vanished(stderr()) == [("", "--lr", "--hold")]


@pytest.mark.parametrize("command", [RUN, SWEEP], ids=lambda command: command[0])
def test_an_error_of_a_stage(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--set", "record.lr=1e18", "--quiet"]) == 3
    assert capsys.readouterr().err.endswith("lower --set record.lr=… of the recording\n")


def test_a_warning_in_the_result_of_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*RUN, "--set", "pretrain.lr=1e-9", "--quiet", "--json"]) == 0
    first, *_ = json.loads(capsys.readouterr().out)["warnings"]
    assert "try another --set pretrain.lr=…, more --pretrain-epochs, or a look at the data" in first


@pytest.mark.parametrize("stage", ["pretrain", "train", "record", "fit-gamma"])
def test_what_is_named_is_taken(stage):
    said = with_settings("`seed` `lr=0.5` `alpha=0.1` `nothing`", stage)
    assert "`seed`" in said
    assert "`nothing`" in said
    for text in re.findall(r"--set (\S+)", said):
        of, _, value = text.partition("=")
        assert Setting.of(*of.split("."), value, text, "test").stage == stage
    assert "--set" in said


def test_what_means_something_else_in_a_stage_is_its_own_option():
    assert "scope" in RunConfig.option_fields()
    assert with_settings("`scope=layer`", "fit-gamma") == "--set fit-gamma.scope=layer"
    assert with_settings("`scope=layer`", "apply-mask") == "`scope=layer`"


def test_what_run_has_for_an_option_of_one_stage_is_that():
    assert with_settings("`epochs` `epochs=3, momentum=0`", "record") == (
        "--record-epochs --record-epochs 3 --set record.momentum=0"
    )


def test_other_commands_have_no_settings():
    assert with_settings("a larger `lr`", "diagnose") == "a larger `lr`"
