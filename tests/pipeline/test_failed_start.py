"""A command whose input can't be used leaves nothing, so that the corrected command may run in the same place."""

from pathlib import Path

import pytest
from causalprune_cli.main import main

from causalprune.commands.sweep.command import _Worker

NO_DATA = ["--dataset", "npz:nope.npz"]
SMALL = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4", "--quiet", "--run", "new/run"]
SWEEP = ["sweep", "--criterion", "magnitude", "--sparsity", "0.5", "--seeds", "1", "--pretrain-epochs", "1"]
RUN = ["run", "--criterion", "magnitude", "--iterations", "1", "--pretrain-epochs", "1", "--posttrain-epochs", "0"]
GRID = Path("new/run/sweep/grid.json")


def claimed() -> list[Path]:
    """The files by which a sweep has its place."""
    return [path for path in (GRID, GRID.with_name("results.jsonl")) if path.exists()]


@pytest.mark.parametrize(
    "command",
    [
        ["pretrain", *NO_DATA],
        ["pretrain", "--dataset", "mnist"],
        ["pretrain", *NO_DATA, "--output", "other/place/network.safetensors"],
        ["pretrain", "--model", "nothing.here:Network"],
        ["run", *NO_DATA],
        ["run", *NO_DATA, "--overwrite"],
        ["sweep", *NO_DATA],
        ["sweep", *NO_DATA, "--vary", "repair=false,true"],
        ["record"],
        ["fit-gamma"],
        ["apply-mask", "--sparsity", "0.5"],
        ["repair"],
        ["posttrain"],
        ["evaluate"],
        ["diagnose"],
        ["export"],
        ["report"],
        ["store", "verify", "nothing.zarr"],
    ],
    ids=" ".join,
)
def test_nothing_is_left(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    where = [] if command[0] == "store" else ["--run", "new/run"]
    assert main([*command, *where, "--quiet"]) != 0
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "empty").mkdir(parents=True)
    assert main(["pretrain", *NO_DATA, "--run", "run", "--quiet"]) != 0
    assert main(["pretrain", *NO_DATA, "--run", "run/empty", "--quiet"]) != 0
    assert (tmp_path / "run" / "empty").is_dir()


@pytest.mark.parametrize("command", [RUN, SWEEP], ids=lambda command: command[0])
def test_the_corrected_command_is_not_refused(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    assert main([*command, *SMALL, *NO_DATA]) == 3
    assert main([*command, *SMALL]) == 0


@pytest.mark.parametrize("command", [RUN, SWEEP], ids=lambda command: command[0])
def test_what_was_made_before_an_error_is_kept_for_the_corrected_command(tmp_path, monkeypatch, command):
    """A later stage fails: the stages before it aren't done again."""
    monkeypatch.chdir(tmp_path)
    recording = [word.replace("magnitude", "gamma") for word in command]
    assert main([*recording, *SMALL, "--set", "record.lr=1e18"]) == 3
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("pretrained.safetensors")}
    assert len(made) == 1
    assert main([*recording, *SMALL]) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("pretrained.safetensors")} == made


def test_a_sweep_that_is_refused_takes_nothing_from_the_one_that_has_just_begun(tmp_path, monkeypatch):
    """At a moment when that has made nothing but its claim."""
    monkeypatch.chdir(tmp_path)
    measure = _Worker.measure

    def after_the_other(self, *arguments):
        monkeypatch.setattr(_Worker, "measure", measure)
        before = {path: path.read_bytes() for path in claimed()}
        assert main([*(word.replace("0.5", "0.7") for word in SWEEP), *SMALL]) == 5
        assert {path: path.read_bytes() for path in claimed()} == before
        return measure(self, *arguments)

    monkeypatch.setattr(_Worker, "measure", after_the_other)
    assert main([*SWEEP, *SMALL]) == 0
    assert len(claimed()) == 2
