"""Networks of several inputs through every stage: as the same network of one input, and as a loop written by hand."""

import numpy as np
import pytest
import torch
from commands import call, call_json
from torch import nn
from torch.nn import functional

from causalprune.base.paths import is_mask_path
from causalprune.base.specs import DataSpec
from causalprune.data.batches import Batches
from causalprune.data.datasets import load_data
from causalprune.models.checkpoint import load_checkpoint
from causalprune.trajectory import Store

FACTORIES = """
import numpy as np
import torch
from torch import nn

RNG = np.random.default_rng(0)
X = RNG.normal(3, 2, size=(120, 6)).astype(np.float32)
Y = (X @ RNG.normal(size=(6, 3))).argmax(1)
IDS = RNG.integers(0, 12, (120, 5))
MASK = (np.arange(5) < RNG.integers(2, 6, 120)[:, None]).astype(int)


def one():
    return {"x": X, "y": Y}


KINDS = np.stack([np.arange(120) % 3, np.arange(120) % 7], 1)


def known_categories():
    return {"x_train": {"x": X, "kinds": KINDS}, "y_train": Y, "x_test": {"x": X, "kinds": KINDS}, "y_test": Y}


def unseen(row):
    made = known_categories()
    made["x_test"] = {"x": X, "kinds": np.where(np.arange(120)[:, None] == 5, row, KINDS)}
    return made


def unseen_anywhere():
    return unseen([0, 7])


def unseen_in_its_column():
    return unseen([5, 0])


class Categories(nn.Module):
    def __init__(self, num_outputs):
        super().__init__()
        self.first, self.second = nn.Embedding(3, 2), nn.Embedding(7, 3)
        self.last = nn.Linear(11, num_outputs)

    def forward(self, x, kinds):
        return self.last(torch.cat([x, self.first(kinds[:, 0]), self.second(kinds[:, 1])], 1))


def by_position():
    return torch.utils.data.TensorDataset(*map(torch.from_numpy, (X[:, :2], X[:, 2:], Y)))


def by_name():
    rows = [{"left": torch.from_numpy(x[:2]), "right": torch.from_numpy(x[2:]), "labels": y} for x, y in zip(X, Y)]
    return torch.utils.data.DataLoader(rows, batch_size=16)


def texts():
    return {"x": {"input_ids": IDS, "attention_mask": MASK}, "y": (IDS * MASK).sum(1) % 3}


class One(nn.Module):
    def __init__(self, num_outputs):
        super().__init__()
        self.hidden, self.middle, self.last = nn.Linear(6, 12), nn.Linear(12, 8), nn.Linear(8, num_outputs)

    def forward(self, x):
        return self.last(self.middle(self.hidden(x).relu()).relu())


class Position(One):
    def __init__(self, input_shape, num_outputs, vocabulary):
        assert (input_shape, vocabulary) == (((2,), (4,)), (0, 0))
        super().__init__(num_outputs)

    def forward(self, left, right):
        return super().forward(torch.cat([left, right], 1)), left


class Output:
    def __init__(self, logits):
        self.logits = logits


class Name(One):
    def __init__(self, input_shape, num_outputs):
        assert input_shape == {"left": (2,), "right": (4,)}
        super().__init__(num_outputs)

    def forward(self, right, left):
        return Output(super().forward(torch.cat([left, right], 1)))


class Reader(nn.Module):
    def __init__(self, num_outputs, vocabulary):
        super().__init__()
        assert vocabulary == {"input_ids": 12, "attention_mask": 2}
        self.words, self.hidden = nn.Embedding(12, 8), nn.Linear(8, 10)
        self.norm, self.last = nn.BatchNorm1d(10), nn.Linear(10, num_outputs)

    def forward(self, input_ids, attention_mask):
        mask = attention_mask[..., None].to(self.words.weight.dtype)
        hidden = self.hidden((self.words(input_ids) * mask).sum(1) / mask.sum(1))
        return {"hidden": hidden, "logits": self.last(self.norm(hidden).relu())}
"""

TRUSTED = ("--trust-code", "--quiet")


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "inputs_of_mine.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stages(capsys, data, model, run):
    """The result of evaluate, after all other stages."""
    options = ["--dataset", f"inputs_of_mine:{data}", "--model", f"inputs_of_mine:{model}", "--run", run]
    quick = ["--iterations", "1", "--pretrain-epochs", "2", "--train-epochs", "1", "--record-epochs", "1"]
    quick += ["--posttrain-epochs", "1", "--sparsity", "0.6", "--repair", "--distill", "0.3", "--batch-size", "16"]
    quick += ["--set", "evaluate.hessian=1", "--set", "evaluate.noise=true", "--set", "record.codec=exact"]
    evaluation = call_json(capsys, "run", *options, *quick)["metrics"]["evaluation"]
    at = ("--run", run, *TRUSTED)
    start = ("--checkpoint", f"{run}/pretrained.safetensors")
    surgeon = ("--criterion", "surgeon", "--sparsity", "0.5", "--output", f"{run}/surgeon.safetensors")
    assert call("apply-mask", *surgeon, *start, *at) == 0
    held = ("--hold", "--layer-statistics", "--steps", "3", "--store", f"{run}/held.zarr")
    assert call("record", *held, "--output", f"{run}/held.safetensors", *start, *at) == 0
    assert call("export", "--format", "pt2", *at) == 0
    assert call("export", "--format", "onnx", *at) == 0
    return evaluation


def rows_of(path):
    reader = Store.open(path).recording()
    return reader.read_rows(0, reader.num_rows), reader.loss_change


@pytest.mark.parametrize(("data", "model"), [("by_position", "Position"), ("by_name", "Name")])
def test_every_number_is_that_of_the_same_network_of_one_input(here, capsys, data, model):
    plain, other = stages(capsys, "one", "One", "plain"), stages(capsys, data, model, "other")
    for name in ("loss", "top1", "layers", "hessian", "noise", "flops_theoretical", "sparsity_all"):
        assert other[name] == plain[name]
    checkpoints = [path for path in (here / "plain").rglob("*.safetensors") if not is_mask_path(path)]
    stores = list((here / "plain").rglob("*.zarr"))
    assert (len(checkpoints), len(stores)) == (8, 2)
    for path in checkpoints:
        ours, theirs = load_checkpoint(path), load_checkpoint(here / "other" / path.relative_to(here / "plain"))
        assert all(ours.weights[name].equal(theirs.weights[name]) for name in ours.weights)
    for path in stores:
        (deltas, changes), (others, other_changes) = (
            rows_of(path),
            rows_of(here / "other" / path.relative_to(here / "plain")),
        )
        np.testing.assert_array_equal(others, deltas)
        np.testing.assert_array_equal(other_changes, changes)


def network_by_hand(weights):
    namespace = {}
    exec(FACTORIES, namespace)
    model = namespace["Reader"](3, {"input_ids": 12, "attention_mask": 2})
    model.load_state_dict(weights)
    return model


def test_a_recording_is_that_of_a_loop_written_by_hand(here, capsys):
    options = ["--dataset", "inputs_of_mine:texts", "--model", "inputs_of_mine:Reader", "--batch-size", "16"]
    assert call("pretrain", *options, "--epochs", "2", "--quiet") == 0
    recording = ["--epochs", "1", "--batch-size", "16", "--lr", "0.05", "--codec", "exact", "--seed", "3"]
    assert call("record", *recording, *TRUSTED) == 0
    data = load_data(DataSpec(name="inputs_of_mine:texts"))
    ids, mask, labels = data.train.inputs["input_ids"], data.train.inputs["attention_mask"], data.train.targets
    model = network_by_hand(load_checkpoint(here / "run/pretrained.safetensors").weights).train()
    reader = Store.open(here / "run/trajectory.zarr").recording()
    order = Batches(data, "train", batch_size=16, device="cpu", seed=3).order(0)
    deltas, changes = [], []
    for at in torch.split(order, 16):

        def loss(at=at):
            return functional.cross_entropy(model(ids[at], attention_mask=mask[at])["logits"].double(), labels[at])

        before = loss()
        model.zero_grad()
        before.backward()
        old = [model.get_parameter(entry.name).detach().clone() for entry in reader.index]
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(parameter.grad, alpha=-0.05)
            # As before the step: the averages of batch normalization don't count in training mode.
            averages = {name: buffer.clone() for name, buffer in model.named_buffers()}
            changes.append((loss() - before).item())
            for name, buffer in model.named_buffers():
                buffer.copy_(averages[name])
        new = [model.get_parameter(entry.name).detach() for entry in reader.index]
        deltas.append(torch.cat([(b - a).flatten() for a, b in zip(old, new, strict=True)]).numpy())
    found, found_changes = rows_of(here / "run/trajectory.zarr")
    np.testing.assert_array_equal(found, np.stack(deltas))
    np.testing.assert_allclose(found_changes, changes, rtol=1e-9, atol=1e-12)
    evaluation = call_json(capsys, "evaluate", "--checkpoint", "run/recorded.safetensors", "--trust-code")
    test = data.test
    with torch.no_grad():
        logits = network_by_hand(load_checkpoint(here / "run/recorded.safetensors").weights).eval()(**test.inputs)[
            "logits"
        ]
    found = evaluation["metrics"]["evaluation"]
    assert found["top1"] == (logits.argmax(1) == test.targets).double().mean().item()
    assert found["loss"] == pytest.approx(nn.CrossEntropyLoss()(logits.double(), test.targets).item(), rel=1e-12)


@pytest.mark.parametrize(("data", "most"), [("unseen_anywhere", 7), ("unseen_in_its_column", 6)])
def test_a_category_that_only_the_test_split_has_is_found_before_anything_is_trained(here, capsys, data, most):
    """By a network whose tables were made for the categories of the training data, each column with its own."""
    assert call("pretrain", "--dataset", f"inputs_of_mine:{data}", *OWN) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"expected one that takes the whole numbers of the test split, up to {most}, found that it raises" in said
    assert "IndexError" in said
    assert not (here / "run/pretrained.safetensors").exists()
    # One column of larger numbers than the other is no reason to complain.
    assert call("pretrain", "--dataset", "inputs_of_mine:known_categories", *OWN) == 0


OWN = ["--model", "inputs_of_mine:Categories", "--epochs", "0", "--quiet"]


def test_what_cannot_go_together_is_said_in_one_line(here, capsys):
    wrong = {
        ("texts", "mlp"): "model mlp: expected one input, found 2 inputs (input_ids 5 tokens, attention_mask 5 tokens)",
        ("texts", ""): "pass --model=package.module:factory, a network of yours that takes them",
        ("texts", "inputs_of_mine:One"): "expected a network that takes 2 inputs (input_ids 5 tokens",
    }
    for (data, model), words in wrong.items():
        chosen = ["--model", model] if model else []
        assert call("pretrain", "--dataset", f"inputs_of_mine:{data}", *chosen, "--quiet") == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert words in said.replace("--model package", "--model=package"), said
