"""apply-mask goes back to what the pruned network comes from, and to nothing else."""

import shutil

import pytest
import torch
from commands import call

from causalprune.models.checkpoint import load_checkpoint

TINY = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4", "--epochs", "1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run with two dense networks, of which ``other`` was recorded."""
    path = tmp_path_factory.mktemp("rewinding") / "run"
    other = ["--checkpoint", path / "other.safetensors"]
    for command in (
        ["pretrain", *TINY],
        ["pretrain", *TINY, "--seed", "1", "--output", path / "other.safetensors"],
        ["record", "--steps", "3", *other],
    ):
        assert call(*command, "--run", path, "--quiet") == 0
    return path


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


def prune(run, *options):
    return call("apply-mask", "--criterion", "magnitude", "--sparsity", "0.5", *options, "--run", run, "--quiet")


def assert_went_back_to(path, run):
    pruned, earlier = load_checkpoint(run / "pruned.safetensors"), load_checkpoint(path)
    assert pruned.info.inputs["rewind"] == earlier.sha256
    keeps = pruned.mask.tensors()
    for name, weight in earlier.weights.items():
        keep = keeps.get(name, torch.ones_like(weight, dtype=torch.bool))
        assert torch.equal(pruned.weights[name], torch.where(keep, weight, 0.0))


@pytest.mark.parametrize("moment", ["recording", "pretrained"])
def test_an_unrelated_network_is_refused_and_the_right_one_named(run, capsys, moment):
    assert prune(run, "--rewind", moment) == 5
    error = capsys.readouterr().err
    assert f"{run}/pretrained.safetensors: expected what" in error
    assert error.endswith(f"pass --rewind-from {run}/other.safetensors\n")
    assert not (run / "pruned.safetensors").exists()
    assert prune(run, "--rewind", moment, "--rewind-from", run / "other.safetensors") == 0
    assert_went_back_to(run / "other.safetensors", run)


@pytest.mark.parametrize("moment", ["recording", "pretrained"])
def test_one_that_lies_elsewhere_has_to_be_named(run, tmp_path, capsys, moment):
    (run / "other.safetensors").rename(tmp_path / "elsewhere.safetensors")
    (run / "notes.safetensors").write_text("not a checkpoint")
    assert prune(run, "--rewind", moment) == 5
    assert "name the checkpoint to go back to as --rewind-from" in capsys.readouterr().err
    assert prune(run, "--rewind", moment, "--rewind-from", tmp_path / "elsewhere.safetensors") == 0
    assert_went_back_to(tmp_path / "elsewhere.safetensors", run)


def test_the_start_of_a_recording_is_what_it_is(run, capsys):
    """Another one by name would be a --rewind pretrained."""
    wrong = ["--rewind-from", run / "pretrained.safetensors"]
    assert prune(run, "--rewind", "recording", *wrong) == 5
    assert f"pass --rewind-from {run}/other.safetensors" in capsys.readouterr().err
    assert prune(run, "--rewind", "pretrained", *wrong) == 0
    assert_went_back_to(run / "pretrained.safetensors", run)


def test_a_missing_one_is_missing_data(run, capsys):
    (run / "pretrained.safetensors").unlink()
    for moment in ("recording", "pretrained"):
        assert prune(run, "--rewind", moment) == 3
        assert "--rewind-from" in capsys.readouterr().err


def test_a_network_that_was_trained_further_still_comes_from_the_pretrained_one(run):
    trained = run / "trained.safetensors"
    train = ["posttrain", "--epochs", "1", "--checkpoint", run / "pretrained.safetensors", "--output", trained]
    assert call(*train, "--run", run, "--quiet") == 0
    assert call("record", "--steps", "3", "--checkpoint", trained, "--overwrite", "--run", run, "--quiet") == 0
    for moment, name in (("recording", "trained"), ("pretrained", "pretrained")):
        assert prune(run, "--rewind", moment, "--overwrite") == 0
        assert_went_back_to(run / f"{name}.safetensors", run)


def test_without_a_recording_there_is_no_start_of_one(run, capsys):
    dense = ["--checkpoint", run / "pretrained.safetensors"]
    assert prune(run, "--rewind", "recording", *dense) == 5
    assert "expected the end of a recording, to go back to its start, found a checkpoint of pretrain" in (
        capsys.readouterr().err
    )
    assert prune(run, "--rewind", "pretrained", *dense) == 0
