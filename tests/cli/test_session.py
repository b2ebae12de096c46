"""What a command says on stderr, and how it names options there."""

import json
import logging
import shlex
import sys

import pytest
from causalprune_cli.main import main
from causalprune_cli.session import end, print_error, start_logging, with_flags

from causalprune.base.errors import DataError

TINY = ["pretrain", "--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4"]


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("`data_root`: expected a folder", "--data-root: expected a folder"),
        ("raise `memory`, or use `solver=lasso`", "raise --memory, or use --solver lasso"),
        ("record with `momentum=0, stride=1`, or", "record with --momentum 0 --stride 1, or"),
        ("rename them with `key_map=OLD=NEW`", "rename them with --key-map OLD=NEW"),
        ("see `nesterov`", "see --nesterov"),
        ("name a `store`", "name a --store"),
        ("`debug` shows where", "--debug shows where"),
        ("found `weight`, `data root` and `size=3`", "found `weight`, `data root` and `size=3`"),
        ("`momentum=0, size=3`", "`momentum=0, size=3`"),
        ("run `causalprune record` first", "run `causalprune record` first"),
    ],
)
def test_a_parameter_is_named_by_its_flag_and_other_words_stay(message, shown):
    assert with_flags(message) == shown


@pytest.mark.parametrize("as_json", [True, False])
def test_errors_and_warnings_name_flags(capsys, as_json):
    start_logging(logging.INFO, as_json=as_json)
    logging.getLogger("causalprune").warning("%s: too small", "`memory`")
    print_error("lower `lr`", 3)
    warning, error = capsys.readouterr().err.splitlines()
    assert "--memory: too small" in warning
    assert "lower --lr" in error


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A directory with a recording of plain SGD in ``run`` and one with momentum in ``momentum.zarr``."""
    folder = tmp_path_factory.mktemp("recorded")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([*TINY, "--epochs", "1", "--quiet"]) == 0
        assert main(["record", "--steps", "12", "--quiet"]) == 0
        start = ["--checkpoint", "run/pretrained.safetensors", "--output", "momentum.safetensors"]
        other = ["--momentum", "0.5", "--store", "momentum.zarr"]
        assert main(["record", "--steps", "12", *other, *start, "--quiet"]) == 0
    return folder


PRUNE = "apply-mask --sparsity 0.5 --output p.safetensors"


@pytest.mark.parametrize(
    ("command", "code", "line"),
    [
        (
            "pretrain --dataset breast-cancer --model lenet --run x",
            2,
            "model lenet: expected images, found 30 features; use --model mlp for tables",
        ),
        (
            "pretrain --dataset cifar10 --data-root . --run x",
            3,
            "data set CIFAR10: expected torchvision's files such as cifar-10-batches-py/data_batch_1, found no such "
            "file; pass the folder that holds them as --data-root, or --download",
        ),
        (
            "pretrain --dataset breast-cancer --model mlp --lr 1e18 --run x",
            3,
            "training loss: expected a finite number, found nan; lower --lr, or look for NaN in the data",
        ),
        (
            "record --lr 1e18 --steps 5 --store x.zarr --overwrite",
            3,
            "loss while recording: expected a finite number, found nan; lower --lr of the recording",
        ),
        ("fit-gamma --memory 1KiB", 2, "--memory: expected at least 90 MB for 12 × 128, found 1.02 kB; raise it"),
        (
            "fit-gamma --solver sklearn --memory 1KiB",
            2,
            "--memory: expected at least 24.6 kB for 12 × 128 in scikit-learn, found 1.02 kB; "
            "raise it, or use --solver lasso",
        ),
        ("fit-gamma --cv 40 --alphas 3", 2, "--cv: expected at most 6 folds of 12 rows, found 40"),
        (
            "fit-gamma --solver sgd --positive",
            2,
            "--positive and --negative: expected --solver lasso beside it, found --solver sgd",
        ),
        (
            "fit-gamma --target-nonzero 500",
            2,
            "nonzero γ: expected at most 12, found 500; use --l1-ratio below 1, whose support may exceed the rows",
        ),
        (
            f"{PRUNE} --criterion curvature --store momentum.zarr",
            5,
            "criterion curvature: expected a same-batch recording of plain SGD without weight decay, at learning "
            "rates that stay or held, and stride 1, found one with momentum 0.5; record with --momentum 0 --stride 1 "
            "--loss-change same-batch, or choose another",
        ),
        (
            f"{PRUNE} --criterion fisher --store momentum.zarr",
            5,
            "criterion fisher: expected the gradients of a plain-SGD recording, found one with momentum 0.5; "
            "record with --momentum 0 --stride 1, or choose another",
        ),
        (
            f"{PRUNE} --criterion magnitude --granularity filter",
            5,
            "granularity filter: expected a network with Conv layers, found none; use --granularity neuron",
        ),
        (
            "export --compact --checkpoint run/recorded.safetensors --output c.pt",
            3,
            "checkpoint: expected a filter or neuron with every weight pruned, found none; prune with apply-mask "
            "--granularity channel or filter; a compact network can't leave out single weights",
        ),
    ],
)
def test_errors_from_below_the_commands_name_flags(recorded, monkeypatch, capsys, command, code, line):
    monkeypatch.chdir(recorded)
    assert main([*shlex.split(command), "--quiet"]) == code
    assert capsys.readouterr().err == f"causalprune: {line}\n"


def test_results_name_flags(recorded, monkeypatch, capsys):
    monkeypatch.chdir(recorded)
    assert main(["evaluate", "--checkpoint", "run/recorded.safetensors", "--cost", "--quiet", "--json"]) == 0
    reason = json.loads(capsys.readouterr().out)["metrics"]["evaluation"]["cost"]["no_compact"]
    assert "prune with apply-mask --granularity channel or filter" in reason


def test_without_a_terminal_there_are_lines_and_no_bars(tmp_path, capsys):
    assert main([*TINY, "--epochs", "1", "--run", str(tmp_path)]) == 0
    lines = capsys.readouterr().err.splitlines()
    first, last = (line.split(maxsplit=1)[1] for line in lines)
    assert first.startswith("pretrain · 0 %")
    assert last.startswith("pretrain: done in ")


def test_log_json_is_an_object_a_line_and_so_is_the_error(tmp_path, capsys):
    assert main([*TINY, "--epochs", "1", "--run", str(tmp_path), "--log-json"]) == 0
    first, last = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["level"], first["task"], first["done"], first["total"]) == ("info", "pretrain", 0, 7)
    assert last["done"] == 7
    assert first["time"].endswith("+00:00")
    assert main([*TINY, "--epochs", "2", "--run", str(tmp_path), "--log-json"]) == 5
    (line,) = capsys.readouterr().err.splitlines()
    error = json.loads(line)
    assert (error["level"], error["exit_code"]) == ("error", 5)
    assert "--overwrite" in error["message"]


@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_an_error_is_a_plain_line_again_without_the_option(tmp_path, capsys, quiet):
    assert main(["posttrain", "--run", str(tmp_path), *quiet]) == 3
    assert capsys.readouterr().err.startswith("causalprune: ")


@pytest.mark.parametrize(("common", "lines"), [(True, 0), (False, 1)])
def test_of_an_error_that_all_processes_have_only_the_first_speaks(capsys, monkeypatch, common, lines):
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert end(DataError("rows"), 3, common=common) == 3
    assert capsys.readouterr().err.count("\n") == lines


LOUD = """
import os
import numpy as np
from torch import nn

print("imported")

class Loud(nn.Module):
    def __init__(self, input_shape, num_outputs):
        super().__init__()
        print("a network of", num_outputs)
        self.layer = nn.Linear(*input_shape, num_outputs)

    def forward(self, x):
        print(x.shape)
        return self.layer(x)

def data():
    print("reading")
    rng = np.random.default_rng(0)
    return {"x": rng.normal(size=(60, 4)), "y": np.arange(60) % 3}
"""


def test_what_code_of_the_user_prints_is_no_part_of_the_result(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "loud.py").write_text(LOUD)
    own = ["--dataset", "loud:data", "--model", "loud:Loud", "--epochs", "1"]
    for command in (["pretrain", *own], ["evaluate", "--checkpoint", "run/pretrained.safetensors", "--trust-code"]):
        assert main([*command, "--json"]) == 0
        said = capsys.readouterr()
        assert json.loads(said.out)["stage"] == command[0]
        assert all(text in said.err for text in ("reading", "a network of 3", "torch.Size"))
    sys.modules.pop("loud", None)
