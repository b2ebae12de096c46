"""What is decided about one's own data is said, once, by every command that trains on them."""

import numpy as np
import pytest
from causalprune_cli.main import main

TRAIN = ["--dataset", "npz:mine.npz", "--model", "mlp", "--hidden", "4", "--run", "run"]
SWEEP = ["sweep", *TRAIN, "--criterion", "magnitude", "--sparsity", "0.5", "--seeds", "2", "--pretrain-epochs", "1"]
RUN = ["run", *TRAIN, "--criterion", "magnitude", "--iterations", "1", "--pretrain-epochs", "1", "--train-epochs", "0"]
COMMANDS = [["pretrain", *TRAIN, "--epochs", "1"], SWEEP, [*RUN, "--posttrain-epochs", "0"]]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Gray images as bytes, with no splits and no axis of channels."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    return {"x": rng.integers(0, 256, (300, 9, 9), dtype=np.uint8), "y": np.arange(300) % 3}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_splits_channels_and_standardization_are_said_once(mine, capsys, command):
    np.savez("mine.npz", **mine)
    assert main(command) == 0
    line = (
        "npz:mine.npz: samples are 216 train, 24 validation, 60 test (validation and test cut at random); "
        "inputs are 1×9×9, standardized by channel\n"
    )
    error = capsys.readouterr().err
    assert error.count(line) == error.count("mine.npz:") == 1


def test_what_was_not_cut_is_not_called_so(mine, capsys):
    x, y = mine["x"].reshape(300, -1).astype(float), mine["y"]
    np.savez("mine.npz", x_train=x[:200], y_train=y[:200], x_val=x[200:240], y_val=y[200:240], x_test=x, y_test=y)
    assert main(COMMANDS[0]) == 0
    line = "npz:mine.npz: samples are 200 train, 40 validation, 300 test; inputs are 81, standardized by feature\n"
    assert line in capsys.readouterr().err


def test_data_that_come_along_are_known(capsys, tmp_path):
    assert main(["pretrain", "--dataset", "breast-cancer", "--epochs", "1", "--run", str(tmp_path)]) == 0
    assert "samples are" not in capsys.readouterr().err
