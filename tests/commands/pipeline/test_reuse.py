"""``run --from``: the dense network of another run directory, byte for byte, with all that it was made with."""

import json
import shutil

import pytest
from causalprune_cli.main import main

from causalprune.config.pretrain import PretrainConfig
from causalprune.models.checkpoint import read_checkpoint_info
from causalprune.training.loop import train

DENSE = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "5", "--split-seed", "3", "--seed", "2"]
TRAINED = ["--epochs", "2", "--lr", "0.02", "--batch-size", "32", "--nesterov"]
SHORT = ["--iterations", "1", "--train-epochs", "1", "--record-epochs", "1", "--posttrain-epochs", "1"]


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dense") / "dense"
    assert main(["pretrain", *DENSE, *TRAINED, "--run", str(folder), "--quiet"]) == 0
    return folder


@pytest.fixture
def trained(monkeypatch):
    """The stages that train from now on."""
    from causalprune.commands import _training

    stages = []

    def noting(*args, **kwargs):
        stages.append(kwargs["description"])
        return train(*args, **kwargs)

    monkeypatch.setattr(_training, "train", noting)
    return stages


def run(folder, *more):
    return main(["run", *SHORT, "--run", str(folder), *map(str, more), "--quiet"])


def test_the_network_is_the_same_file_and_nothing_is_pretrained(dense, tmp_path, trained, capsys):
    assert run(tmp_path / "run", "--from", dense) == 0
    assert trained == ["posttrain", "posttrain"]
    mine = tmp_path / "run/pretrained.safetensors"
    assert mine.read_bytes() == (dense / "pretrained.safetensors").read_bytes()
    final = read_checkpoint_info(tmp_path / "run/final.safetensors")
    assert final.model.hidden == (5,)
    assert final.data.name == "breast-cancer"
    assert final.data.split_seed == 3
    # Again, and without the other directory's name: all of it is done.
    capsys.readouterr()
    assert run(tmp_path / "run", "--from", dense, "--json") == 0
    assert json.loads(capsys.readouterr().out)["already_done"] is True
    settings = json.loads((tmp_path / "run/run.json").read_text())["set"]
    options = [part for setting in settings for part in ("--set", setting)]
    assert run(tmp_path / "run", *DENSE[:-2], "--pretrain-epochs", "2", *options, "--json") == 0
    assert json.loads(capsys.readouterr().out)["already_done"] is True
    assert trained == ["posttrain", "posttrain"]


def test_every_stage_after_it_is_that_of_a_run_that_trained_it_itself(dense, tmp_path):
    assert run(tmp_path / "from", "--from", dense) == 0
    options = [*DENSE[:-2], "--pretrain-epochs", "2", "--set", "pretrain.lr=0.02", "--set", "pretrain.batch-size=32"]
    assert run(tmp_path / "itself", *options, "--set", "pretrain.seed=2") == 0
    names = [p.relative_to(tmp_path / "from") for p in (tmp_path / "from").rglob("*.safetensors")]
    assert len(names) > 5
    for name in names:
        assert (tmp_path / "from" / name).read_bytes() == (tmp_path / "itself" / name).read_bytes(), name


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--dataset", "digits"], "--dataset: expected breast-cancer, with which the network of --from"),
        (["--hidden", "6"], "--hidden: expected 5, with which"),
        (["--split-seed", "0"], "--split-seed: expected 3, with which"),
        (["--pretrain-epochs", "30"], "--pretrain-epochs: expected 2, with which"),
        (["--set", "pretrain.warmup=0.1"], "--set pretrain.warmup=0.1: expected pretrain.warmup=0.0, with which"),
        (["--set", "pretrain.channels-last=true"], "expected pretrain.channels-last=false, with which"),
        (["--set", "pretrain.lr=0.5"], "--set pretrain.lr=0.5: expected pretrain.lr=0.02, with which"),
    ],
)
def test_another_value_is_refused_even_if_it_is_the_default(dense, tmp_path, capsys, more, says):
    assert run(tmp_path / "run", "--from", dense, *more) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert says in error
    assert not (tmp_path / "run").exists()


def test_the_same_value_is_taken(dense, tmp_path):
    said = ["--dataset", "breast-cancer", "--hidden", "5", "--set", "pretrain.lr=0.02", "--pretrain-epochs", "2"]
    assert run(tmp_path / "run", "--from", dense, *said, "--dry-run") == 0


def test_seed_and_batch_size_are_those_of_what_follows(dense, tmp_path):
    assert run(tmp_path / "run", "--from", dense, "--seed", "7", "--batch-size", "64") == 0
    config = read_checkpoint_info(tmp_path / "run/final.safetensors").config
    assert (config["seed"], config["batch_size"]) == (7, 64)


def test_a_dry_run_predicts_no_training_of_it(dense, tmp_path, capsys):
    assert run(tmp_path / "run", "--from", dense, "--dry-run", "--json") == 0
    stages = json.loads(capsys.readouterr().out)["metrics"]["stages"]
    assert stages[0]["stage"] == "pretrain"
    assert (stages[0]["steps"], stages[0]["seconds"]) == (None, None)
    assert stages[0]["bytes"] == (dense / "pretrained.safetensors").stat().st_size
    assert stages[1]["steps"] > 0
    assert not (tmp_path / "run").exists()


def test_a_run_with_another_dense_network_is_left_alone(dense, tmp_path, capsys):
    folder = tmp_path / "run"
    assert run(folder, "--from", dense) == 0
    other = tmp_path / "other"
    assert main(["pretrain", *DENSE, *TRAINED, "--lr", "0.03", "--run", str(other), "--quiet"]) == 0
    before = (folder / "pretrained.safetensors").read_bytes()
    assert run(folder, "--from", other) == 5
    assert "--overwrite" in capsys.readouterr().err
    assert (folder / "pretrained.safetensors").read_bytes() == before
    assert run(folder, "--from", other, "--overwrite") == 0
    assert (folder / "pretrained.safetensors").read_bytes() == (other / "pretrained.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("make", "code", "says"),
    [
        (lambda folder, _: folder.mkdir(), 3, "pretrained.safetensors"),
        (lambda folder, dense: shutil.copytree(dense, folder) and _cut(folder), 4, "pretrained.safetensors"),
        (lambda folder, dense: _pruned(folder, dense), 5, "expected a network of pretrain, found one of apply-mask"),
    ],
)
def test_a_directory_without_a_dense_network_is_refused(dense, tmp_path, capsys, make, code, says):
    make(tmp_path / "other", dense)
    capsys.readouterr()
    assert run(tmp_path / "run", "--from", tmp_path / "other") == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert says in error


def _cut(folder):
    path = folder / "pretrained.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def _pruned(folder, dense):
    folder.mkdir()
    output = ["--output", str(folder / "pretrained.safetensors"), "--run", str(folder), "--quiet"]
    criterion = ["--criterion", "magnitude", "--sparsity", "0.5"]
    assert main(["apply-mask", str(dense / "pretrained.safetensors"), *criterion, *output]) == 0


def test_a_resume_needs_the_other_directory_until_it_has_its_copy(dense, tmp_path, capsys):
    other, folder = shutil.copytree(dense, tmp_path / "other"), tmp_path / "run"
    assert run(folder, "--from", other) == 0
    final, identity = ((folder / name).read_bytes() for name in ("final.safetensors", "run.json"))
    (folder / "final.safetensors").unlink()
    shutil.rmtree(other)
    assert run(folder, "--from", other) == 0
    assert (folder / "final.safetensors").read_bytes() == final
    assert (folder / "run.json").read_bytes() == identity
    for more in (["--overwrite"], []):
        if not more:
            (folder / "pretrained.safetensors").unlink()
        capsys.readouterr()
        assert run(folder, "--from", other, *more) == 3
        assert f"{other} is still needed" in capsys.readouterr().err
    assert (folder / "final.safetensors").read_bytes() == final


def test_its_own_directory_is_refused(dense, capsys):
    assert run(dense, "--from", dense) == 2
    assert "--from: expected another directory than --run" in capsys.readouterr().err


def test_a_mask_of_foreign_weights_comes_along(dense, tmp_path):
    pruned = tmp_path / "pruned.safetensors"
    criterion = ["--criterion", "magnitude", "--sparsity", "0.5", "--output", str(pruned)]
    command = ["apply-mask", str(dense / "pretrained.safetensors"), *criterion, "--run", str(tmp_path / "scratch")]
    assert main([*command, "--quiet"]) == 0
    other = tmp_path / "other"
    start = [*DENSE, "--init-from", str(pruned), "--epochs", "0", "--run", str(other), "--quiet"]
    assert main(["pretrain", *start]) == 0
    assert run(tmp_path / "run", "--from", other, "--sparsity", "0.8") == 0
    for name in ("pretrained.safetensors", "pretrained.mask.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (other / name).read_bytes()
    # What is gone of the copy is copied again.
    (tmp_path / "run/pretrained.mask.safetensors").unlink()
    assert run(tmp_path / "run", "--from", other, "--sparsity", "0.8") == 0
    assert (tmp_path / "run/pretrained.mask.safetensors").exists()


def test_code_that_a_foreign_network_names_is_not_run(dense, tmp_path, monkeypatch, capsys):
    (tmp_path / "theirs.py").write_text(
        "from torch import nn\ndef net(input_shape, num_outputs):\n    return nn.Linear(30, num_outputs)\n"
    )
    monkeypatch.chdir(tmp_path)
    make = ["pretrain", "--dataset", "breast-cancer", "--model", "theirs:net", "--epochs", "0", "--run", "other"]
    assert main([*make, "--quiet"]) == 0
    capsys.readouterr()
    assert run(tmp_path / "run", "--from", "other") == 4
    assert "--trust-code" in capsys.readouterr().err
    assert run(tmp_path / "run", "--from", "other", "--trust-code", "--dry-run") == 0
    assert run(tmp_path / "run", "--from", "other", "--model", "theirs:net", "--dry-run") == 0


def test_no_option_of_pretrain_is_forgotten():
    """Each that decides the network is one of the run's, or becomes a setting."""
    from causalprune.commands.pipeline.reuse import _SHARED
    from causalprune.config.run import RunConfig

    deciding = {name for name, f in PretrainConfig.option_fields().items() if f.metadata["affects_result"]}
    assert RunConfig.option_fields().keys() >= _SHARED
    assert {"seed", "lr", "batch_size", "epochs"} <= deciding - _SHARED
