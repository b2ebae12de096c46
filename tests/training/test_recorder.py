"""The recorder against an independent copy of the same loop, which keeps every weight after every step."""

import copy
import doctest
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from causalprune.base.errors import DataError, MismatchError, UsageError
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex
from causalprune.training.recorder import Recorder
from causalprune.trajectory import RecordingWriter, Store

LR, STEPS, BATCH = 0.05, 6, 8


def conv_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 5), nn.ReLU(), nn.Linear(5, 3)
    )


def minibatches(count=STEPS):
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(BATCH, 1, 6, 6, generator=generator), torch.randint(0, 3, (BATCH,), generator=generator))
        for _ in range(count)
    ]


def sgd(model, **options):
    return torch.optim.SGD(model.parameters(), **{"lr": LR, **options})


def record(path, model, optimizer, batches, *, codec="exact", **options):
    """The loop of the recorder's docstring, as a user writes it."""
    with Recorder(
        model, optimizer, path, max_rows=len(batches), codec=codec, batch_size=BATCH, seed=7, **options
    ) as recorder:
        for number, (inputs, targets) in enumerate(batches):
            loss = functional.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            recorder.step(
                loss, lambda x=inputs, y=targets: functional.cross_entropy(model(x), y), epoch=2, batch=number
            )
    return Store.open(path).recording()


def flat_weights(model):
    """(P,) weights of the Linear and Conv layers in module order, without the package's own flattening."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    return torch.cat([layer.weight.detach().reshape(-1) for layer in layers]).numpy().copy()


def flat_gradients(model):
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    return torch.cat([layer.weight.grad.reshape(-1) for layer in layers]).numpy().copy()


def plain_loop(model, optimizer, batches, keep=None):
    """The same training without a recorder.

    Returns:
        Weights before the first and after each step, gradients, and each step's loss.
    """
    weights, gradients, losses = [flat_weights(model)], [], []
    for inputs, targets in batches:
        loss = functional.cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if keep is not None:
            with torch.no_grad():
                position = 0
                for layer in (m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)):
                    size = layer.weight.numel()
                    layer.weight[~keep[position : position + size].view_as(layer.weight)] = 0.0
                    position += size
        weights.append(flat_weights(model))
        gradients.append(flat_gradients(model))
        losses.append(loss.item())
    return np.stack(weights), np.stack(gradients), np.array(losses)


def all_rows(reader):
    return reader.read_rows(0, reader.num_rows)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}], ids=str)
def test_deltas_are_the_differences_of_the_weights_bit_for_bit(tmp_path, options):
    model, batches = conv_net(), minibatches()
    other = copy.deepcopy(model)
    weights, _, losses = plain_loop(other, sgd(other, **options), batches)
    reader = record(tmp_path / "t.zarr", model, sgd(model, **options), batches)
    assert all_rows(reader).tobytes() == (weights[1:] - weights[:-1]).tobytes()
    assert reader.steps.loss_before.tolist() == losses.tolist()
    assert reader.steps.epoch.tolist() == [2] * STEPS
    assert reader.steps.batch.tolist() == list(range(STEPS))
    assert reader.steps.lr.tolist() == [LR] * STEPS
    assert reader.finished
    # Recording changes nothing about the training: BatchNorm's averages and its count of batches included.
    for (name, mine), theirs in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), name
    assert model.state_dict()["1.num_batches_tracked"].item() == STEPS


def test_plain_sgd_steps_are_minus_lr_times_the_gradient(tmp_path):
    model, batches = conv_net(), minibatches()
    other = copy.deepcopy(model)
    weights, gradients, _ = plain_loop(other, sgd(other), batches)
    reader = record(tmp_path / "t.zarr", model, sgd(model), batches)
    # θ − ηg is rounded to θ's precision, so the difference is off by at most an ulp of the weight, plus that of ηg.
    ulp = np.spacing(np.abs(weights).max(axis=0))
    assert (np.abs(all_rows(reader) + LR * gradients) <= 2 * ulp).all()


def test_the_example_of_the_docstring_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (example,) = doctest.DocTestFinder(recurse=False).find(Recorder, "Recorder", globs={})
    assert doctest.DocTestRunner().run(example) == doctest.TestResults(failed=0, attempted=8)


def test_gradient_norm_is_over_all_parameters(tmp_path):
    model, batches = conv_net(), minibatches(1)
    other = copy.deepcopy(model)
    plain_loop(other, sgd(other), batches)
    expected = math.sqrt(sum(float((p.grad.double() ** 2).sum()) for p in other.parameters()))
    assert record(tmp_path / "t.zarr", model, sgd(model), batches).steps.grad_norm[0] == pytest.approx(expected, 1e-6)


def test_pruned_parameters_are_not_stored_and_stay_positive_zero(tmp_path):
    model, batches = conv_net(), minibatches()
    index = ParameterIndex.from_model(model)
    keep = torch.rand(index.total, generator=torch.Generator().manual_seed(3)) < 0.4
    Mask(index, keep).apply_(model)
    other = copy.deepcopy(model)
    options = {"momentum": 0.9, "weight_decay": 0.01}
    weights, _, _ = plain_loop(other, sgd(other, **options), batches, keep)
    reader = record(tmp_path / "t.zarr", model, sgd(model, **options), batches, mask=Mask(index, keep))
    assert reader.num_columns == int(keep.sum())
    assert np.array_equal(reader.active, keep.numpy())
    assert all_rows(reader).tobytes() == (weights[1:] - weights[:-1])[:, keep.numpy()].tobytes()
    assert not flat_weights(model).view(np.int32)[~keep.numpy()].any()


def test_the_mask_is_held_from_the_start(tmp_path):
    # A user's model that still has its pruned weights: the first delta must not hold their fall to zero.
    model, batches = conv_net(), minibatches(1)
    index = ParameterIndex.from_model(model)
    keep = torch.arange(index.total) % 2 == 0
    masked = copy.deepcopy(model)
    Mask(index, keep).apply_(masked)
    path = tmp_path / "a.zarr", tmp_path / "b.zarr"
    rows = [
        all_rows(record(p, m, sgd(m), batches, mask=Mask(index, keep)))
        for p, m in zip(path, (model, masked), strict=True)
    ]
    assert rows[0].tobytes() == rows[1].tobytes()


def test_loss_change_on_the_same_batch_is_that_of_a_second_forward_pass(tmp_path):
    model, batches = conv_net(), minibatches()
    other = copy.deepcopy(model)
    optimizer, after = sgd(other), []
    for inputs, targets in batches:
        plain_loop(other, optimizer, [(inputs, targets)])
        # A copy in training mode normalizes by the statistics of the batch, and may spoil its own averages.
        with torch.no_grad():
            after.append(functional.cross_entropy(copy.deepcopy(other)(inputs), targets).item())
    reader = record(tmp_path / "t.zarr", model, sgd(model), batches)
    assert reader.steps.loss_after.tolist() == after
    assert reader.loss_change.tolist() == [b - a for a, b in zip(reader.steps.loss_before, after, strict=True)]


def test_loss_change_to_the_next_batch_is_the_difference_of_successive_losses(tmp_path):
    model, batches = conv_net(), minibatches()
    other = copy.deepcopy(model)
    weights, _, losses = plain_loop(other, sgd(other), batches)
    reader = record(tmp_path / "t.zarr", model, sgd(model), batches, loss_change="next-batch")
    # The last step has no next batch.
    assert reader.num_rows == STEPS - 1
    assert reader.loss_change.tolist() == np.diff(losses).tolist()
    assert all_rows(reader).tobytes() == np.diff(weights, axis=0)[:-1].tobytes()


@pytest.mark.parametrize("stride", [2, 3, 4])
def test_a_row_of_a_stride_is_the_movement_over_its_steps(tmp_path, stride):
    model, batches = conv_net(), minibatches()
    other = copy.deepcopy(model)
    weights, _, losses = plain_loop(other, sgd(other, momentum=0.9), batches)
    reader = record(tmp_path / "t.zarr", model, sgd(model, momentum=0.9), batches, stride=stride)
    rows = STEPS // stride
    assert (reader.num_rows, reader.info.stride) == (rows, stride)
    ends = weights[: rows * stride + 1 : stride]
    assert all_rows(reader).tobytes() == np.diff(ends, axis=0).tobytes()
    np.testing.assert_allclose(
        all_rows(reader).astype(np.float64),
        np.diff(weights.astype(np.float64), axis=0)[: rows * stride].reshape(rows, stride, -1).sum(axis=1),
        rtol=1e-6,
        atol=1e-9,
    )
    assert reader.steps.loss_before.tolist() == losses[: rows * stride : stride].tolist()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_deltas_of_other_float_types_are_the_differences_of_the_weights(tmp_path, dtype):
    torch.manual_seed(0)
    model, batches = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).to(dtype), minibatches(3)
    optimizer, weights = sgd(model, lr=1e-8 if dtype == torch.float64 else LR), [model[1].weight.detach().clone()]
    with Recorder(model, optimizer, tmp_path / "t.zarr", max_rows=3, codec="exact") as recorder:
        for inputs, targets in batches:
            loss = functional.cross_entropy(model(inputs.to(dtype)).float(), targets)
            optimizer.zero_grad()
            loss.backward()
            recorder.step(loss, lambda x=inputs, y=targets: functional.cross_entropy(model(x.to(dtype)).float(), y))
            weights.append(model[1].weight.detach().clone())
    moved = torch.stack(weights).double().diff(dim=0).flatten(1)
    # A step of 1e-8 would be lost in the rounding of the weights to float32, a difference isn't.
    assert np.array_equal(all_rows(Store.open(tmp_path / "t.zarr").recording()), moved.float().numpy())
    assert moved.any()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_recording(tmp_path, bad):
    model, path = conv_net(), tmp_path / "t.zarr"
    good, (inputs, targets) = minibatches(2)
    with pytest.raises(DataError, match=r"^loss while recording: expected a finite number, found (nan|inf)"):
        record(path, model, sgd(model), [good, (inputs * bad, targets)])
    # The row before is sound, and the recording says that it isn't complete.
    reader = Store.open(path).recording()
    assert not reader.finished
    assert Store.open(path).verify() == []


def test_a_loss_that_is_not_finite_after_the_step_ends_the_recording(tmp_path):
    model = conv_net()
    optimizer, ((inputs, targets),) = sgd(model), minibatches(1)
    recorder = Recorder(model, optimizer, tmp_path / "t.zarr", max_rows=1)
    loss = functional.cross_entropy(model(inputs), targets)
    loss.backward()
    with pytest.raises(DataError, match="loss while recording"), recorder:
        recorder.step(loss, lambda: torch.tensor(math.nan))
    assert recorder.rows == 0
    assert model[1].track_running_stats


def test_what_the_fit_needs_to_know_about_the_optimizer_is_recorded(tmp_path):
    model = conv_net()
    info = record(tmp_path / "t.zarr", model, sgd(model, momentum=0.9), minibatches(2)).info
    assert (info.optimizer, info.lr, info.momentum) == ("sgd", LR, 0.9)
    assert (info.loss_change, info.batch_size, info.seed) == ("same-batch", BATCH, 7)


def test_the_learning_rate_of_each_step_is_recorded(tmp_path):
    model = conv_net()
    optimizer = sgd(model)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    with Recorder(model, optimizer, tmp_path / "t.zarr", max_rows=3) as recorder:
        for inputs, targets in minibatches(3):
            loss = functional.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            recorder.step(loss, lambda loss=loss: loss.detach())
            schedule.step()
    assert Store.open(tmp_path / "t.zarr").recording().steps.lr.tolist() == [LR, LR / 2, LR / 4]


def step(recorder, model, optimizer, batch):
    inputs, targets = batch
    loss = functional.cross_entropy(model(inputs), targets)
    optimizer.zero_grad()
    loss.backward()
    recorder.step(loss, lambda: functional.cross_entropy(model(inputs), targets))


@pytest.mark.parametrize(("steps", "options"), [(66, {}), (9, {"max_rows": 2})])
def test_more_steps_than_expected_lose_no_row(tmp_path, steps, options):
    model, batches = conv_net(), minibatches(steps)
    other = copy.deepcopy(model)
    weights, _, losses = plain_loop(other, sgd(other), batches)
    optimizer = sgd(model)
    recorder = Recorder(model, optimizer, tmp_path / "t.zarr", codec="exact", **options)
    for batch in batches:
        step(recorder, model, optimizer, batch)
    recorder.close()
    recorder.close()
    store = Store.open(tmp_path / "t.zarr")
    reader = store.recording()
    assert reader.finished
    assert all_rows(reader).tobytes() == (weights[1:] - weights[:-1]).tobytes()
    assert reader.steps.loss_before.tolist() == losses.tolist()
    assert store.verify() == []
    assert store.writer is None


def test_a_constructor_that_fails_leaves_nothing_and_touches_nothing(tmp_path, monkeypatch):
    model = conv_net()
    index = ParameterIndex.from_model(model)
    other = ParameterIndex.from_model(nn.Sequential(nn.Linear(index.total, 1)))
    none = Mask(index, torch.zeros(index.total, dtype=torch.bool))
    before = flat_weights(model)
    for options, error in (
        ({"codec": "zip"}, UsageError),
        ({"max_rows": -1}, UsageError),
        ({"stride": 0}, UsageError),
        ({"mask": Mask.all(other)}, MismatchError),
        ({"mask": none}, DataError),
    ):
        with pytest.raises(error):
            Recorder(model, sgd(model), tmp_path / "t.zarr", **options)
        assert list(tmp_path.iterdir()) == []
    # No memory for the blocks, when the store is there already.
    monkeypatch.setattr(RecordingWriter, "__init__", lambda *_, **__: np.empty(2**58))
    half = Mask(index, torch.arange(index.total) % 2 == 0)
    with pytest.raises(MemoryError):
        Recorder(model, sgd(model), tmp_path / "t.zarr", mask=half)
    assert list(tmp_path.iterdir()) == []
    assert flat_weights(model).tobytes() == before.tobytes()


def test_a_notebook_cell_can_run_twice(tmp_path):
    """Also when the first run ended in the middle, and its recorder is still open."""
    batches, path = minibatches(3), tmp_path / "t.zarr"
    kept = []
    for rows in (2, 3):
        model = conv_net()
        optimizer = sgd(model)
        recorder = Recorder(model, optimizer, path, codec="exact", overwrite=True)
        for batch in batches[:rows]:
            step(recorder, model, optimizer, batch)
        kept.append(recorder)
    with pytest.raises(UsageError, match=r"nothing there yet.*overwrite=True"):
        Recorder(model, optimizer, path)
    with pytest.raises(ValueError, match="closed"):
        step(kept[0], model, optimizer, batches[0])
    recorder.close()
    assert Store.open(path).recording().num_rows == 3
    # A finished one, too; but nothing that isn't a store, and nothing for the sake of options that can't be.
    with pytest.raises(UsageError, match="codec"):
        Recorder(model, optimizer, path, codec="zip", overwrite=True)
    assert Store.open(path).recording().num_rows == 3
    Recorder(model, optimizer, path, overwrite=True).writer.close()
    assert Store.open(path).recording().num_rows == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis").write_text("years")
    with pytest.raises(DataError, match="a trajectory store to replace"):
        Recorder(model, optimizer, tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine/thesis").read_text() == "years"


def test_a_row_that_waits_for_its_loss_survives_a_restart(tmp_path):
    model, batches = conv_net(), minibatches(3)
    other = copy.deepcopy(model)
    weights, _, losses = plain_loop(other, sgd(other), batches)
    optimizer, path = sgd(model), tmp_path / "t.zarr"

    def step(recorder, number):
        inputs, targets = batches[number]
        loss = functional.cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        recorder.step(loss, batch=number)

    first = Recorder(model, optimizer, path, max_rows=3, loss_change="next-batch", codec="exact")
    step(first, 0)
    tensors, state = first.pending()
    step(first, 1)
    assert (first.rows, state["batch"]) == (1, 0)
    first.writer.close()
    # Another recorder takes over the row of step 0 and gets its loss from step 1.
    restored = copy.deepcopy(conv_net())
    second = Recorder(restored, sgd(restored), tmp_path / "u.zarr", max_rows=3, loss_change="next-batch", codec="exact")
    second.restore_pending(tensors, state)
    assert second.pending()[1] == state
    second.complete(losses[1])
    second.writer.finish()
    second.writer.close()
    reader = Store.open(tmp_path / "u.zarr").recording()
    assert all_rows(reader).tobytes() == (weights[1:2] - weights[:1]).tobytes()
    assert reader.loss_change.tolist() == [losses[1] - losses[0]]
