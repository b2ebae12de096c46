"""Which work a result is of: options said in another way are the same, other code or other files aren't."""

import pytest
from commands import call, call_json
from PIL import Image

from causalprune.commands import pretrain as module
from causalprune.commands._checkpoint_output import CheckpointOutput
from causalprune.config.fit_gamma import FitGammaConfig
from causalprune.config.pretrain import PretrainConfig
from causalprune.config.record import RecordConfig
from causalprune.config.run import RunConfig
from causalprune.models.checkpoint import read_checkpoint_info

TINY = ["--dataset", "breast-cancer", "--hidden", "4", "--epochs", "1"]


@pytest.mark.parametrize(
    ("config", "said", "same"),
    [
        (FitGammaConfig, {"alpha_ratio": 0.1}, True),
        (FitGammaConfig, {"alpha_ratio": 0.2}, False),
        (FitGammaConfig, {"alpha": 0.1}, False),
        (RecordConfig, {"momentum": 0}, True),
        (RecordConfig, {"lr": 1}, False),
        (PretrainConfig, {"model": "lenet"}, True),
        (PretrainConfig, {"model": "mlp"}, False),
        (RunConfig, {"sparsity": 0.9}, True),
    ],
)
def test_writing_a_default_out_says_the_same(config, said, same):
    assert (config(**said).identity_fields() == config().identity_fields()) == same
    # Also where a file of an earlier version has it as it was said, or lacks it.
    assert config.written_out({}) == config().identity_fields()


def test_the_presets_of_sgd_have_an_alpha_of_their_own():
    fields = [FitGammaConfig(solver="sgd", **said).identity_fields() for said in ({}, {"alpha_ratio": 0.1})]
    assert fields[0] != fields[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = tmp_path_factory.mktemp("identity") / "run"
    for stage in (["pretrain", *TINY], ["record", "--steps", "6"], ["fit-gamma", "--held-out", "0"]):
        assert call(*stage, "--run", run, "-q") == 0
    return run


@pytest.mark.parametrize(
    ("stage", "default"),
    [
        (["pretrain", *TINY], ["--model", "mlp"]),
        (["pretrain", *TINY], ["--optimizer", "sgd", "--seed", "0"]),
        (["record", "--steps", "6"], ["--momentum", "0", "--stride", "1"]),
        (["fit-gamma", "--held-out", "0"], ["--alpha-ratio", "0.1"]),
        (["fit-gamma", "--held-out", "0"], ["--lags", "0", "--recording", "000"]),
    ],
)
def test_a_stage_with_a_default_written_out_is_done(run, capsys, stage, default):
    assert call_json(capsys, *stage, *default, "--run", run)["already_done"]


def test_another_value_is_another_configuration(run, capsys):
    assert call("fit-gamma", "--held-out", "0", "--alpha-ratio", "0.2", "--run", run, "-q") == 5
    assert call("fit-gamma", "--held-out", "0", "--lags", "1", "--run", run, "-q") == 5


def test_run_knows_a_default_of_a_stage(tmp_path, capsys):
    options = ["run", *TINY[:4], "--iterations", "1", "--sparsity", "0.5", "--pretrain-epochs", "0"]
    options += ["--train-epochs", "0", "--record-epochs", "1", "--posttrain-epochs", "0", "--run", tmp_path]
    assert call(*options, "-q") == 0
    assert call_json(capsys, *options, "--set", "fit-gamma.alpha-ratio=0.1", "--model", "mlp")["already_done"]
    assert call(*options, "--set", "fit-gamma.alpha-ratio=0.2", "-q") == 5


def image(path, gray):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), gray).save(path)


@pytest.fixture
def pets(tmp_path):
    """A folder of images, and a network trained on it that remembers their contents."""
    for name, gray in (("cat", 50), ("dog", 200)):
        for number in range(8):
            image(tmp_path / f"pets/train/{name}/{number}.png", gray + number)
    return ["pretrain", "--dataset", f"imagefolder:{tmp_path}/pets", "--model", "mlp", "--hidden", "2",
            "--epochs", "0", "--run", tmp_path / "run"]  # fmt: skip


def test_a_changed_folder_is_no_nothing_to_do(pets, tmp_path, capsys):
    assert call(*pets, "--check-contents", "-q") == 0
    checkpoint = tmp_path / "run/pretrained.safetensors"
    before = checkpoint.read_bytes()
    assert call_json(capsys, *pets)["already_done"]
    (tmp_path / "pets/notes.txt").write_text("not an image")
    assert call_json(capsys, *pets, "--check-contents")["already_done"]
    # The same name and size, other contents: noticed on demand.
    changed = tmp_path / "pets/train/cat/3.png"
    size = changed.stat().st_size
    image(changed, 99)
    assert changed.stat().st_size == size
    assert call_json(capsys, *pets)["already_done"]
    assert call(*pets, "--check-contents", "-q") == 5
    assert "contents of imagefolder:" in capsys.readouterr().err
    image(tmp_path / "pets/train/cat/new.png", 1)
    assert call(*pets, "-q") == 5
    error = capsys.readouterr().err
    assert "found a result of the data of imagefolder:" in error
    assert "--overwrite" in error
    assert checkpoint.read_bytes() == before
    assert call(*pets, "--overwrite", "-q") == 0
    assert checkpoint.read_bytes() != before


def test_an_interrupted_stage_goes_on_with_edited_code_and_says_so(tmp_path, monkeypatch, capsys):
    """A comment in a file must not cost three days of training."""

    run = tmp_path / "run"
    monkeypatch.setattr(module, "sources_of", lambda *args, **kwargs: {"code of mine:net": "old"})
    stage = ["pretrain", *TINY[:4], "--epochs", "2", "--run", run, "--checkpoint-every", "5steps"]
    saved = []
    keep = CheckpointOutput.save_progress

    def save(self, checkpoint):
        keep(self, checkpoint)
        saved.append(self._progress.read_bytes())

    monkeypatch.setattr(CheckpointOutput, "save_progress", save)
    assert call(*stage, "-q") == 0
    (run / "pretrained.safetensors").unlink()
    (run / "pretrained.safetensors.progress").write_bytes(saved[0])
    monkeypatch.setattr(module, "sources_of", lambda *args, **kwargs: {"code of mine:net": "new"})
    assert call(*stage) == 0
    assert "the code of mine:net has changed since" in capsys.readouterr().err
    assert read_checkpoint_info(run / "pretrained.safetensors").sources == {"code of mine:net": "new"}
