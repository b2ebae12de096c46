"""apply-mask prunes dead ends before all other weights: by effect unless told otherwise, by others when told to."""

import json
import shutil

import pytest
import torch
from commands import call

from causalprune.models.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run with a recording of a perceptron on digits, and its fit."""
    run = tmp_path_factory.mktemp("connected") / "run"
    for command in (["pretrain", "--model", "mlp", "--epochs", "2"], ["record", "--steps", "20"], ["fit-gamma"]):
        assert call(*command, "--run", run, "--quiet") == 0
    return run


@pytest.fixture
def prune(made, tmp_path, capsys):
    """Prune a copy of the run; returns the metrics, the mask, and what was said."""
    run = shutil.copytree(made, tmp_path / "run")

    def run_it(*options):
        capsys.readouterr()
        output = tmp_path / f"{len(list(tmp_path.iterdir()))}.safetensors"
        assert call("apply-mask", "--sparsity", "0.99", *options, "--output", output, "--run", run, "--json") == 0
        return json.loads(capsys.readouterr().out)["metrics"], load_checkpoint(output).mask

    return run_it


def dead(mask):
    """How many of the kept weights of a perceptron are on no path."""
    matrices = list(mask.tensors().values())
    reached = [torch.ones(matrices[0].shape[1], dtype=torch.bool)]
    for matrix in matrices:
        reached.append((matrix & reached[-1]).any(1))
    needed = [torch.ones(matrices[-1].shape[0], dtype=torch.bool)]
    for matrix in reversed(matrices):
        needed.insert(0, (matrix & needed[0][:, None]).any(0))
    return sum(int((matrix & ~(reached[n] & needed[n + 1][:, None])).sum()) for n, matrix in enumerate(matrices))


def test_effect_and_who_is_told_to_keep_none_and_others_do(prune):
    found = {
        name: prune("--criterion", criterion, *(["--dead-ends", rule] if rule else []))
        for name, criterion, rule in (
            ("effect", "effect", ""),
            ("effect, first", "effect", "first"),
            ("effect, scored", "effect", "scored"),
            ("magnitude", "magnitude", ""),
            ("magnitude, first", "magnitude", "first"),
        )
    }
    count = {name: dead(mask) for name, (_, mask) in found.items()}
    assert count["effect, scored"] > 0
    assert count["magnitude"] > 0
    assert count["effect"] == count["effect, first"] == count["magnitude, first"] == 0
    assert torch.equal(found["effect"][1].keep, found["effect, first"][1].keep)
    assert len({mask.num_kept for _, mask in found.values()}) == 1
    more = found["effect"][1].keep & ~found["effect, scored"][1].keep
    assert found["effect"][0]["reconnected"] == int(more.sum()) > 0
    assert found["effect, scored"][0]["reconnected"] is None
    assert found["magnitude"][0]["reconnected"] is None


def test_what_is_there_already_is_not_made_again(prune, made, tmp_path, capsys):
    """The rule is part of the work: spelled out it is the same, another one is another."""
    run = tmp_path / "run"
    command = ["apply-mask", "--sparsity", "0.99", "--run", run]
    assert call(*command) == 0
    assert call(*command, "--dead-ends", "first") == 0
    capsys.readouterr()
    assert call(*command, "--dead-ends", "scored") == 5
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--zero"], "no weights are ranked"),
        (["--sparsity", "0.5", "--granularity", "neuron"], "no weights are ranked"),
        (["--sparsity", "0.5", "--criterion", "obs"], "sets the weights that it keeps"),
        (["--sparsity", "0.5", "--dead-ends", "last"], "first, scored"),
    ],
)
def test_it_needs_a_ranking_of_weights(made, capsys, options, reason):
    options = options if "--dead-ends" in options else [*options, "--dead-ends", "first"]
    assert call("apply-mask", *options, "--run", made) == 2
    assert reason in " ".join(capsys.readouterr().err.split())


def test_run_refuses_it_before_anything_is_trained(tmp_path, capsys):
    options = ["--set", "apply-mask.dead-ends=first", "--set", "apply-mask.granularity=neuron"]
    assert call("run", "--run", tmp_path / "run", *options, "--quiet") == 2
    assert "no weights are ranked" in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.glob("run/*.safetensors"))
