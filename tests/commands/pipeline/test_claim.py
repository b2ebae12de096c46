"""The options of a run may be corrected until something was made with those that change."""

import json
import shutil

import pytest
from causalprune_cli.main import main

from causalprune.commands.pipeline.beforehand import Start

TINY = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4", "--iterations", "2", "--sparsity", "0.8"]
SHORT = ["--pretrain-epochs", "1", "--train-epochs", "1", "--record-epochs", "1", "--posttrain-epochs", "1"]
RUN = ["run", *TINY, *SHORT, "--batch-size", "128", "--quiet"]


def run(folder, *options):
    return main([*RUN, *map(str, options), "--run", str(folder)])


def networks(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.safetensors")}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run that never had other options."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    assert run(folder) == 0
    return networks(folder)


@pytest.mark.parametrize("wrong", ["record.lr=1e18", "posttrain.lr=1e18", "posttrain.epochs=0"])
def test_a_run_that_is_corrected_ends_as_if_it_had_never_had_other_options(tmp_path, plain, wrong):
    """Whatever stage fails, or was never reached."""
    assert run(tmp_path / "run", "--set", wrong) == (0 if "epochs" in wrong else 3)
    trained = (tmp_path / "run/pretrained.safetensors").stat().st_mtime_ns
    (tmp_path / "run/final.safetensors").unlink(missing_ok=True)
    assert run(tmp_path / "run") == 0
    assert networks(tmp_path / "run") == plain
    assert (tmp_path / "run/pretrained.safetensors").stat().st_mtime_ns == trained
    assert json.loads((tmp_path / "run/run.json").read_text())["set"] == []
    assert main(["info", str(tmp_path / "run"), "--verify"]) == 0


def test_what_was_made_with_other_options_is_named_and_stays(tmp_path, capsys):
    folder = tmp_path / "run"
    assert run(folder, "--set", "posttrain.lr=1e18") == 3
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    capsys.readouterr()
    for options, made, keeps_dense in (
        (["--set", "record.lr=0.5"], "iteration-000/trajectory.zarr", True),
        (["--criterion", "magnitude"], "iteration-000/trajectory.zarr", True),
        (["--set", "fit-gamma.alpha-ratio=0.5"], "iteration-000/trajectory.zarr", True),
        (["--sparsity", "0.9"], "iteration-000/pruned.safetensors", True),
        (["--iterations", "1"], "iteration-000/pruned.safetensors", True),
        (["--seed", "1"], "pretrained.safetensors", False),
    ):
        assert run(folder, *options) == 5
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert f"found {folder / made}, made by another (" in error
        assert (f"(--from {folder} keeps its dense network)" in error) is keeps_dense
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_stage_that_is_interrupted_keeps_its_options(tmp_path, capsys):
    folder = tmp_path / "run"
    assert run(folder) == 0
    # As after a signal: the last stage has a saved state instead of its output.
    (folder / "final.safetensors").rename(folder / "final.safetensors.progress")
    assert run(folder, "--set", "posttrain.lr=0.5") == 5
    assert "final.safetensors.progress, made by another (none → --set posttrain.lr=0.5)" in capsys.readouterr().err


def test_an_evaluation_that_is_asked_for_later_is_added(tmp_path, capsys):
    folder = tmp_path / "run"
    assert run(folder) == 0
    before = networks(folder)
    capsys.readouterr()
    assert run(folder, "--set", "evaluate.hessian=2", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["metrics"]["evaluation"]["hessian"]["all"]["eigenvalues"]) == 2
    assert networks(folder) == before


def test_a_folder_in_which_nothing_was_made_is_free(tmp_path):
    """A run that was killed before it made anything, perhaps by another version."""
    for options in ('{"dataset": "another"}', '{"dataset": "digits", "iterations": 3}'):
        (tmp_path / "run").mkdir()
        (tmp_path / "run/run.json").write_text(options)
        assert run(tmp_path / "run") == 0
        shutil.rmtree(tmp_path / "run")


def test_options_that_nobody_can_read_bind_what_is_there(tmp_path, capsys):
    assert run(tmp_path / "run") == 0
    (tmp_path / "run/run.json").write_text('{"dataset": "another"}')
    assert run(tmp_path / "run") == 5
    assert "pretrained.safetensors, made by another (" in capsys.readouterr().err


def test_info_says_which_options_a_folder_has_in_which_nothing_was_made(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text('{"dataset": "digits", "iterations": 3}')
    assert main(["info", str(tmp_path / "run")]) == 0
    assert "causalprune run --iterations 3" in " ".join(capsys.readouterr().out.split())


def test_a_corrected_run_that_replaced_another_goes_on_with_overwrite(tmp_path, plain):
    folder = tmp_path / "run"
    assert run(folder, "--overwrite", "--set", "posttrain.lr=1e18") == 3
    trained = (folder / "pretrained.safetensors").stat().st_mtime_ns
    assert run(folder, "--set", "posttrain.lr=1e17") == 3
    assert run(folder, "--overwrite", "--set", "posttrain.lr=1e17") == 3
    assert (folder / "pretrained.safetensors").stat().st_mtime_ns == trained
    assert run(folder) == 0
    assert networks(folder) == plain


def test_what_is_done_is_not_asked_any_more(tmp_path, monkeypatch):
    """As where a network was trained on a GPU, and the rest is done without one; a finished run reads no data."""
    gpu = ["--set", "pretrain.device=cuda", "--set", "fit-gamma.memory=1"]
    assert run(tmp_path / "run", *gpu) == 2
    assert run(tmp_path / "run") == 0
    monkeypatch.setattr(Start, "of", None)
    assert run(tmp_path / "run", *gpu) == 0
    assert run(tmp_path / "run", *gpu, "--overwrite") == 2


def test_settings_that_decide_nothing_are_no_difference(tmp_path, capsys):
    assert run(tmp_path / "run", "--set", "fit-gamma.memory=1GiB") == 0
    capsys.readouterr()
    assert run(tmp_path / "run", "--set", "fit-gamma.alpha-ratio=0.5") == 5
    error = capsys.readouterr().err
    assert "fit-gamma.alpha-ratio" in error
    assert "memory" not in error
