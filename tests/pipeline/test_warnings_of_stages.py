"""A warning of a stage of a run or a sweep says of which part it is, and names options as that command takes them."""

import re

import pytest
from causalprune_cli.main import main

from causalprune.commands.names import with_settings
from causalprune.config.run import Setting

SMALL = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4", "--pretrain-epochs", "1", "--run", "run"]
# Steps that float32 hardly sees.
TINY = ["--set", "record.lr=1e-7", "--set", "record.epochs=2", "--criterion", "gamma"]
LINE = r"\d+% of the recorded changes vanished .+: record with a larger (.+), or with (.+)"
MEANT = ("--set record.lr=…", "--set record.hold=true")


def vanished(error):
    """The lines of stderr that say so, without the time: what is in front, and the two remedies."""
    found = [re.fullmatch(rf"[\d:]+ (.*?){LINE}", line) for line in error.splitlines()]
    return [match.groups() for match in found if match]


def test_of_a_sweep(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *SMALL, *TINY, "--sparsity", "0.5", "--seeds", "2"]) == 0
    assert vanished(capsys.readouterr().err) == [(f"[{n}/2] record: ", *MEANT) for n in (1, 2)]


def test_of_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run", *SMALL, *TINY, "--iterations", "1", "--train-epochs", "0", "--posttrain-epochs", "0"]) == 0
    assert vanished(capsys.readouterr().err) == [("", *MEANT)]


def test_of_a_single_stage(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["pretrain", *SMALL[:6], "--epochs", "1"]) == 0
    assert main(["record", "--lr", "1e-7", "--epochs", "2"]) == 0
    assert vanished(capsys.readouterr().err) == [("", "--lr", "--hold")]


@pytest.mark.parametrize("stage", ["pretrain", "train", "record", "fit-gamma"])
def test_what_is_named_is_taken(stage):
    said = with_settings("`seed` `lr=0.5` `alpha=0.1` `nothing`", stage)
    assert "`seed`" in said
    assert "`nothing`" in said
    for text in re.findall(r"--set (\S+)", said):
        of, _, value = text.partition("=")
        assert Setting.of(*of.split("."), value, text, "test").stage == stage
    assert "--set" in said


def test_other_commands_have_no_settings():
    assert with_settings("a larger `lr`", "diagnose") == "a larger `lr`"
