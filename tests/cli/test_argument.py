"""What a command works on, without a flag."""

import json
import shutil

import pytest
from causalprune_cli.main import main

from causalprune.base.paths import RunPaths
from causalprune.commands.names import ARGUMENTS, CONFIGS


@pytest.fixture(scope="module")
def _made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "exp"
    tiny = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4", "--epochs", "1"]
    for command in (["pretrain", *tiny], ["record", "--epochs", "1"]):
        assert main([*command, "--run", str(folder), "--quiet"]) == 0
    return folder


@pytest.fixture
def exp(_made, tmp_path, monkeypatch):
    """A run directory ``exp`` in the working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(_made, tmp_path / "exp")
    return tmp_path / "exp"


def names(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and "lock" not in p.name)


STAGES = [
    ["fit-gamma", "trajectory.zarr"],
    ["apply-mask", "recorded.safetensors", "--sparsity", "0.5"],
    ["repair", "pruned.safetensors", "--samples", "50"],
    ["posttrain", "pruned.safetensors", "--epochs", "1"],
    ["evaluate", "final.safetensors"],
    ["diagnose", "trajectory.zarr", "--placebo", "1", "--interventions", "0"],
    ["export", "final.safetensors"],
]


def test_outputs_go_to_the_folder_of_the_argument_as_with_its_run_directory(exp, tmp_path):
    """The same files with the same names, whether the file is named or its folder is the run directory."""
    shutil.copytree(exp, tmp_path / "same")
    for command, file, *options in STAGES:
        assert main([command, f"exp/{file}", *options, "--quiet"]) == 0
        assert main([command, "--run", "same", *options, "--quiet"]) == 0
    assert names(exp) == names(tmp_path / "same")
    assert len([name for name in names(exp) if name.startswith("results/")]) == 9
    assert not (tmp_path / "run").exists()


def test_a_file_in_the_working_directory_makes_that_the_run_directory(exp, monkeypatch):
    monkeypatch.chdir(exp)
    assert main(["record", "pretrained.safetensors", "--epochs", "1", "--quiet"]) == 0
    assert main(["fit-gamma", "trajectory.zarr", "--quiet"]) == 0
    assert (exp / "results/fit-gamma.json").exists()
    assert not (exp / "run").exists()


def test_another_run_directory_that_is_named_wins(exp, tmp_path, monkeypatch):
    prune = ["apply-mask", "exp/recorded.safetensors", "--store", "exp/trajectory.zarr", "--sparsity", "0.5"]
    assert main([*prune, "--criterion", "magnitude", "--run", "other", "--quiet"]) == 0
    assert (tmp_path / "other/pruned.safetensors").exists()
    monkeypatch.setenv("CAUSALPRUNE_RUN", "third")
    assert main([*prune, "--criterion", "magnitude", "--quiet"]) == 0
    assert (tmp_path / "third/pruned.safetensors").exists()
    assert not (exp / "pruned.safetensors").exists()


def test_the_option_leaves_the_run_directory_as_it_was(exp, tmp_path):
    prune = ["apply-mask", "--checkpoint", "exp/recorded.safetensors", "--criterion", "magnitude", "--sparsity", "0.5"]
    assert main([*prune, "--quiet"]) == 0
    assert (tmp_path / "run/pruned.safetensors").exists()
    assert not (exp / "pruned.safetensors").exists()


@pytest.mark.parametrize("command", list(ARGUMENTS))
def test_both_and_different_is_refused(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flag = f"--{ARGUMENTS[command][0]}"
    more = ["--sparsity", "0.5"] if command == "apply-mask" else []
    assert main([command, "a/one", flag, "b/two", *more]) == 2
    error = capsys.readouterr().err
    assert error == f"causalprune: a/one and {flag} b/two: expected one of them, found both\n"
    assert list(tmp_path.iterdir()) == []


def test_both_and_the_same_is_taken(exp, capsys):
    assert main(["fit-gamma", "exp/trajectory.zarr", "--store", "./exp/trajectory.zarr", "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["outputs"]["result"] == "exp/results/fit-gamma.json"


def test_a_run_directory_is_no_checkpoint(exp, capsys):
    assert main(["evaluate", "exp"]) == 3
    said = "exp: expected a checkpoint, found a directory; name a file in it, or pass --run exp"
    assert capsys.readouterr().err == f"causalprune: {said}\n"


def test_every_argument_is_an_option_and_a_file_of_a_run_directory(tmp_path):
    for command, (option, file) in ARGUMENTS.items():
        assert option in CONFIGS.load(command).option_fields()
        assert getattr(RunPaths(tmp_path), file)


def test_a_report_of_a_directory(exp):
    pytest.importorskip("matplotlib")
    assert main(["report", "exp"]) == 0
    assert (exp / "report/index.html").is_file()
