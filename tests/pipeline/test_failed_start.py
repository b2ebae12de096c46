"""A command whose input can't be used leaves nothing, so that the corrected command may run in the same place."""

import pytest
from causalprune_cli.main import main

NO_DATA = ["--dataset", "npz:nope.npz"]
SMALL = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4", "--quiet", "--run", "new/run"]
SWEEP = ["sweep", "--criterion", "magnitude", "--sparsity", "0.5", "--seeds", "1", "--pretrain-epochs", "1"]
RUN = ["run", "--criterion", "magnitude", "--iterations", "1", "--pretrain-epochs", "1", "--posttrain-epochs", "0"]


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
def test_what_was_made_before_an_error_keeps_its_place(tmp_path, monkeypatch, command):
    """A later stage fails: what is there belongs to its configuration."""
    monkeypatch.chdir(tmp_path)
    recording = [word.replace("magnitude", "gamma") for word in command]
    assert main([*recording, *SMALL, "--set", "record.lr=1e18"]) != 0
    made = {p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file()}
    assert any(p.name in ("run.json", "grid.json") for p in made)
    assert main([*command, *SMALL]) == 5
