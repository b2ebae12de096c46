"""What a recorder can't record is refused in one line that says what to do, and no committed row is lost."""

import copy
import logging

import numpy as np
import pytest
import torch
from faulty_disk import FaultyDisk
from torch import nn

from causalprune.base import files
from causalprune.base.errors import StorageError, UsageError
from causalprune.pruning.criteria import load_criterion
from causalprune.pruning.names import CRITERIA
from causalprune.training.recorder import Recorder
from causalprune.trajectory import Store


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def sgd(model, lr=0.05, **options):
    return torch.optim.SGD(model.parameters(), lr=lr, **options)


def groups(model):
    return torch.optim.SGD([{"params": part.parameters(), "lr": lr} for part, lr in ((model[0], 0.1), (model[2], 0.2))])


def take(recorder, model, optimizer, seed=0):
    inputs = torch.randn(8, 6, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    loss = model(inputs).square().mean()
    loss.backward()
    recorder.step(loss, lambda: model(inputs).square().mean())


def test_an_optimizer_that_needs_a_closure(tmp_path):
    model = network()
    with pytest.raises(
        UsageError, match=r"optimizer: expected one whose step\(\) needs no closure, found LBFGS; record"
    ):
        Recorder(model, torch.optim.LBFGS(model.parameters()), tmp_path / "t.zarr")
    assert list(tmp_path.iterdir()) == []


def test_an_optimizer_of_another_model(tmp_path):
    model, other = network(), network()
    with pytest.raises(UsageError, match="expected one that trains the model that is recorded, found none of its 2"):
        Recorder(model, sgd(other), tmp_path / "t.zarr")


def test_an_optimizer_without_a_learning_rate(tmp_path):
    model = network()
    optimizer = sgd(model)
    optimizer.param_groups[0]["lr"] = None
    with pytest.raises(UsageError, match="a learning rate `lr` in each parameter group, found none"):
        Recorder(model, optimizer, tmp_path / "t.zarr")


def test_a_model_that_another_recorder_has(tmp_path):
    model = network()
    optimizer = sgd(model)
    first = Recorder(model, optimizer, tmp_path / "t.zarr")
    with pytest.raises(UsageError, match=r"model: expected one that no other recorder has, .*; close that one first"):
        Recorder(nn.Sequential(model, nn.Identity()), optimizer, tmp_path / "u.zarr")
    twin = copy.deepcopy(model)
    Recorder(twin, sgd(twin), tmp_path / "u.zarr").writer.close()
    take(first, model, optimizer)
    first.close()
    Recorder(model, optimizer, tmp_path / "v.zarr").writer.close()
    # One that nobody has any longer records nothing.
    lost = Recorder(model, optimizer, tmp_path / "w.zarr")
    lost.writer.abort()
    del lost
    Recorder(model, optimizer, tmp_path / "x.zarr").writer.close()


@pytest.mark.parametrize(
    ("loss", "found"),
    [
        (torch.ones(8), r"torch.float32 of shape \(8,\)"),
        (torch.ones(8, 3), r"torch.float32 of shape \(8, 3\)"),
        (torch.ones(()) * 1j, "torch.complex64"),
        ((torch.ones(()), 2), "tuple"),
        ("0.5", "str"),
    ],
)
@pytest.mark.parametrize("place", ["loss", "measure"])
def test_a_loss_that_is_no_scalar(tmp_path, loss, found, place):
    model = network()
    optimizer = sgd(model)
    with Recorder(model, optimizer, tmp_path / "t.zarr") as recorder:
        take(recorder, model, optimizer)
        inputs = torch.ones(2, 6)
        own = model(inputs).square().mean()
        own.backward()
        given = {"loss": loss} if place == "loss" else {}
        with pytest.raises(UsageError, match=f"expected a real scalar, the loss of the whole step, found {found}"):
            recorder.step(**given, measure=lambda: own if place == "loss" else loss)
    assert Store.open(tmp_path / "t.zarr").recording().num_rows == 1


@pytest.mark.parametrize("loss", [0.25, torch.full((1, 1), 0.25)])
def test_a_loss_that_is_a_number_or_has_one_element_is_a_scalar(tmp_path, loss):
    model = network()
    optimizer = sgd(model)
    with Recorder(model, optimizer, tmp_path / "t.zarr") as recorder:
        model(torch.ones(2, 6)).mean().backward()
        recorder.step(loss, lambda: loss)
    assert Store.open(tmp_path / "t.zarr").recording().steps.loss_before.tolist() == [0.25]


@pytest.mark.parametrize("change", ["add a group", "momentum", "weight decay"])
def test_groups_that_change_while_they_are_recorded(tmp_path, change):
    model = network()
    optimizer = groups(model)
    with Recorder(model, optimizer, tmp_path / "t.zarr") as recorder:
        take(recorder, model, optimizer)
        if change == "add a group":
            optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))]})
        else:
            optimizer.param_groups[1][change.replace(" ", "_")] = 0.5
        with pytest.raises(
            UsageError, match=r"expected the 2 parameter groups of the beginning.*go on in a new recording"
        ):
            take(recorder, model, optimizer)
    assert Store.open(tmp_path / "t.zarr").recording().num_rows == 1


def test_momentum_that_cycles_is_the_same_kind_of_step(tmp_path):
    model = network()
    optimizer = sgd(model, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=10)
    with Recorder(model, optimizer, tmp_path / "t.zarr") as recorder:
        for seed in range(6):
            take(recorder, model, optimizer, seed)
            schedule.step()
    assert len(np.unique(Store.open(tmp_path / "t.zarr").recording().steps.lr)) == 6


def test_what_at_least_one_recorded_group_has_is_said_of_the_recording(tmp_path):
    model = network()
    settings = [
        {"params": [model[0].weight], "lr": 0.1, "momentum": 0.5},
        {"params": [model[2].weight], "lr": 0.2, "weight_decay": 0.01},
        {"params": [model[0].bias, model[2].bias], "lr": 0.3, "nesterov": True, "momentum": 0.9},
    ]
    with Recorder(model, torch.optim.SGD(settings), tmp_path / "t.zarr") as recorder:
        take(recorder, model, recorder._optimizer)
    info = Store.open(tmp_path / "t.zarr").recording().info
    assert (info.lr, info.momentum, info.extra) == (0.1, 0.5, {"weight_decay": 0.01})
    assert info.update_rule.against_gradients() == "momentum 0.5, weight decay 0.01"
    assert [(group.lr, group.momentum) for group in info.groups] == [(0.1, 0.5), (0.2, 0.0), (0.3, 0.9)]


def test_a_pattern_of_columns_that_matches_nothing(tmp_path):
    model = network()
    with pytest.raises(UsageError, match=r"columns: expected a pattern that matches one of 0, 2, found 'head'"):
        Recorder(model, sgd(model), tmp_path / "t.zarr", columns=["0", "head"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("columns", ["2", "2.*", ["2.weight"], ("*2*", "2")])
def test_columns_are_layers_weights_or_patterns(tmp_path, columns):
    model, other = network(), network()
    rows = []
    for net, options in ((model, {"columns": columns}), (other, {})):
        path = tmp_path / f"{len(rows)}.zarr"
        optimizer = sgd(net)
        with Recorder(net, optimizer, path, codec="exact", **options) as recorder:
            for seed in range(3):
                take(recorder, net, optimizer, seed)
        reader = Store.open(path).recording()
        part = reader.columns_of("2.weight")
        rows.append(reader.read_columns(part.start, part.stop))
    assert np.array_equal(*rows)
    reader = Store.open(tmp_path / "0.zarr").recording()
    assert (reader.num_columns, reader.info.left_out, reader.untrained) == (15, ("0.weight",), ())
    # What isn't recorded is trained as ever.
    assert torch.equal(model[0].weight, other[0].weight)


def test_a_recording_of_groups_and_columns_goes_on_where_it_was_left(tmp_path):
    whole, path = tmp_path / "whole.zarr", tmp_path / "t.zarr"
    for store, stops in ((whole, [6]), (path, [2, 6])):
        model = network()
        optimizer = groups(model)
        done = 0
        for stop in stops:
            place = Store.open(path).resume_recording("000", rows=done) if done else store
            options = {} if done else {"columns": "0", "codec": "exact", "max_rows": 6}
            recorder = Recorder(model, optimizer, place, **options)
            for seed in range(done, stop):
                take(recorder, model, optimizer, seed)
            recorder.writer.finish() if stop == 6 else recorder.writer.close()
            done = stop
    one, two = (Store.open(place).recording() for place in (whole, path))
    assert np.array_equal(one.read_rows(0, 6), two.read_rows(0, 6))
    assert np.array_equal(one.steps.to_matrix(), two.steps.to_matrix())
    model = network()
    with (
        Store.open(path).resume_recording("000", rows=6) as writer,
        pytest.raises(UsageError, match="expected the 2 parameter groups of the recording that goes on, found 1"),
    ):
        Recorder(model, sgd(model), writer)


def test_a_disk_that_fills_loses_no_committed_row(tmp_path):
    def loop(path):
        model = network()
        optimizer = groups(model)
        rows = []
        with Recorder(model, optimizer, path, codec="exact", max_rows=2) as recorder:
            for seed in range(8):
                before = model[0].weight.detach().clone()
                take(recorder, model, optimizer, seed)
                rows.append((model[0].weight.detach() - before).flatten().numpy())
                recorder.writer.flush()
        return np.stack(rows)

    disk = FaultyDisk()
    with files.use(disk):
        truth = loop(tmp_path / "counted.zarr")
    seen = set()
    for number in range(len(disk.changes) // 3, len(disk.changes), 7):
        path = tmp_path / f"{number}.zarr"
        with files.use(FaultyDisk("ENOSPC", number, full=True)), pytest.raises(StorageError, match="no space left"):
            loop(path)
        store = Store.open(path)
        reader = store.recording()
        assert store.verify() == []
        assert np.array_equal(reader.read_rows(0, reader.num_rows)[:, :30], truth[: reader.num_rows])
        assert len(reader.steps["lr.1"]) == reader.num_rows
        seen.add(reader.num_rows)
    assert len(seen) > 2


@pytest.mark.parametrize("measure", [None, torch.tensor(1.0)])
def test_a_loss_in_place_of_what_computes_it_is_refused(tmp_path, measure):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = Recorder(model, optimizer, tmp_path / "t.zarr")
    loss = model(torch.randn(2, 6)).square().mean()
    loss.backward()
    with pytest.raises(UsageError, match=r"expected `measure`, a function such as lambda: criterion.*, found"):
        recorder.step(loss, measure)
    recorder.writer.close()


def test_another_optimizer_is_recorded_with_a_word_about_what_stays_valid(tmp_path, caplog):
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with caplog.at_level(logging.WARNING), Recorder(model, optimizer, tmp_path / "t.zarr", codec="exact") as recorder:
        before = model[0].weight.detach().clone()
        take(recorder, model, optimizer)
    (message,) = [record.getMessage() for record in caplog.records]
    assert "optimizer adam, not plain SGD: γ has no causal reading there" in message
    assert message.endswith("criteria that read neither γ nor recorded gradients, such as magnitude, stay valid")
    reader = Store.open(tmp_path / "t.zarr").recording()
    moved = (model[0].weight.detach() - before).flatten().numpy()
    assert np.array_equal(reader.read_rows(0, 1)[0, :30], moved)
    # As the message says: every other criterion reads γ, or is refused.
    for name in CRITERIA:
        criterion = load_criterion(name)
        reads_gamma = bool(criterion.needs & {"gamma", "dual_correlation"})
        refused = criterion.unmet(reader.info.update_rule) is not None
        assert criterion.reads_recording == (reads_gamma or refused), name
    assert not load_criterion("magnitude").reads_recording
    # Of SGD there is nothing to say.
    caplog.clear()
    Recorder(model, sgd(model), tmp_path / "u.zarr").writer.close()
    assert not caplog.records
