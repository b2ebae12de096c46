"""Each task from one's own factories, by the command line: all stages, and files that read back as the same."""

import numpy as np
import pytest
from commands import call, call_json

FACTORIES = """
import numpy as np
import torch
from torch import nn

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 6))
WAY = RNG.normal(size=(6, 3))


def classes():
    return {"x": X, "y": (X @ WAY).argmax(1)}


def quantities():
    return {"x": X, "y": X @ WAY * [1, 10, 100]}


def labels():
    return {"x": X, "y": (X @ WAY > 0).astype(int), "class_names": ["red", "green", "blue"]}


def pictures():
    images = np.random.default_rng(1).integers(0, 256, (60, 8, 8, 3))
    masks = images.argmax(3)
    masks[:, 0] = -1
    return {"x": images, "y": masks}


def texts():
    # Each token is followed by the one after it, or by the one after that.
    steps = np.random.default_rng(1).integers(1, 3, (80, 13))
    text = steps.cumsum(1) % 11
    return {"x": text[:, :-1], "y": text[:, 1:]}


class Linear(nn.Module):
    def __init__(self, input_shape, num_outputs):
        super().__init__()
        self.hidden, self.last = nn.Linear(input_shape[0], 12), nn.Linear(12, num_outputs)

    def forward(self, x):
        return self.last(self.hidden(x).relu())


class Pixels(nn.Module):
    def __init__(self, num_outputs):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, num_outputs, 1)

    def forward(self, x):
        return self.last(self.first(x).relu())


class Named(Linear):
    def forward(self, x):
        hidden = self.hidden(x)
        return {"hidden": hidden, "logits": self.last(hidden.relu())}


class Tuple(Linear):
    def forward(self, x):
        return super().forward(x), x


def samples():
    return torch.utils.data.TensorDataset(torch.tensor(X, dtype=torch.float32), torch.tensor((X @ WAY).argmax(1)))


class Recurrent(nn.Module):
    def __init__(self, vocabulary, num_outputs):
        super().__init__()
        self.tokens, self.up = nn.Embedding(vocabulary, 16), nn.Linear(16, 16)
        self.last = nn.Linear(16, num_outputs)

    def forward(self, x):
        return self.last(self.up(self.tokens(x)).relu())
"""

CASES = {
    "classification": ("classes", "Linear", "auto", "accuracy"),
    "regression": ("quantities", "Linear", "auto", "R²"),
    "multi-label": ("labels", "Linear", "multi-label", "F1"),
    "segmentation": ("pictures", "Pixels", "auto", "mean IoU"),
    "next-token": ("texts", "Recurrent", "next-token", "perplexity"),
}
QUICK = ["--iterations", "1", "--pretrain-epochs", "4", "--train-epochs", "1", "--record-epochs", "2"]
QUICK += ["--posttrain-epochs", "1", "--sparsity", "0.6", "--repair", "--distill", "0.3", "--batch-size", "16"]
QUICK += ["--set", "evaluate.hessian=1", "--set", "evaluate.noise=true", "--set", "evaluate.cost=true"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "tasks_of_mine.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("task", CASES)
def test_every_stage_knows_the_task(here, capsys, task):
    data, model, said, label = CASES[task]
    options = ["--dataset", f"tasks_of_mine:{data}", "--model", f"tasks_of_mine:{model}", "--task", said]
    evaluation = call_json(capsys, "run", *options, *QUICK)["metrics"]["evaluation"]
    assert evaluation["task"] == task
    assert evaluation["reference"]["task"] == task
    assert evaluation["loss"] > 0
    trusted = ["--trust-code", "--quiet"]
    surgeon = [
        "apply-mask",
        "--criterion",
        "surgeon",
        "--sparsity",
        "0.5",
        "--checkpoint",
        "run/pretrained.safetensors",
    ]
    assert call(*surgeon, "--output", "surgeon.safetensors", *trusted) == 0
    assert call("export", "--format", "pt2", *trusted) == 0
    assert call("info", "run") == 0
    capsys.readouterr()
    assert call("run", *options, *QUICK, "--quiet") == 0
    assert label in capsys.readouterr().out


@pytest.mark.parametrize("model", ["Named", "Tuple"])
def test_outputs_that_are_more_than_a_tensor_give_the_same_results(here, capsys, model):
    """The same weights in a network that puts out the tensor alone: every number is the same."""
    found = []
    for name in ("Linear", model):
        options = ["--dataset", "tasks_of_mine:samples", "--model", f"tasks_of_mine:{name}", "--run", name]
        found.append(call_json(capsys, "run", *options, *QUICK[:-2])["metrics"]["evaluation"])
        trusted = ["--trust-code", "--quiet", "--run", name]
        assert call("export", "--format", "pt2", *trusted) == 0
        surgeon = ["--criterion", "surgeon", "--sparsity", "0.5", "--output", f"{name}.safetensors"]
        assert call("apply-mask", *surgeon, "--checkpoint", f"{name}/pretrained.safetensors", *trusted) == 0
    plain, other = found
    numbers = ("loss", "top1", "reference", "layers", "hessian", "noise", "flops_theoretical")
    for name in numbers:
        assert other[name] == plain[name] or name == "reference"
    assert other["reference"]["loss"] == plain["reference"]["loss"]


@pytest.mark.parametrize("task", ["multi-label", "segmentation", "next-token"])
def test_a_sweep_and_its_report_name_the_score(here, capsys, task):
    data, model, said, label = CASES[task]
    options = ["--dataset", f"tasks_of_mine:{data}", "--model", f"tasks_of_mine:{model}", "--task", said]
    options += ["--sparsity", "0.3,0.6,0.9", "--criterion", "magnitude", "--seeds", "1"]
    options += ["--set", "pretrain.epochs=6", "--set", "pretrain.batch_size=8", "--trust-code"]
    assert call("sweep", *options, "--quiet") == 0
    assert label in capsys.readouterr().out
    assert call("report", "--quiet") == 0
    page = next(here.rglob("index.html")).read_text()
    assert f"{label[0].upper()}{label[1:]} against percent pruned" in page


def test_what_a_task_cannot_read_is_said_in_one_line(here, capsys):
    np.savez("rows.npz", x=np.zeros((20, 3)), y=np.tile([0, 1, 1], (20, 1)))
    np.savez("masks.npz", x=np.zeros((20, 3)), y=np.zeros((20, 2, 2), int))
    np.savez("text.npz", x=np.full((20, 3), 0.5), y=np.zeros((20, 3), int))
    wrong = {
        ("rows.npz", "auto"): "pass --task=multi-label for rows of 0 and 1",
        ("masks.npz", "auto"): "(N, H, W) beside images of that size",
        ("text.npz", "next-token"): "expected tokens: whole numbers from 0",
        ("rows.npz", "multi-lable"): "did you mean 'multi-label'",
    }
    for (file, task), words in wrong.items():
        assert call("pretrain", "--dataset", f"npz:{file}", "--task", task, "--quiet") in (2, 3)
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert words in said.replace("--task multi", "--task=multi"), said
