"""ΔL is what the step did to the loss, whatever a network draws or remembers in a forward pass.

To first order ΔL is −η‖g‖², and the gradient's norm is autograd's. Noise between the two losses hides that.
"""

import copy
import random

import numpy as np
import pytest
import torch
from random_networks import DRAWING, NETWORKS, SWITCHED_OFF, build
from torch import nn
from torch.nn import functional

from causalprune.base.errors import UsageError
from causalprune.models.modes import disable_dropout
from causalprune.training.recorder import Recorder
from causalprune.trajectory import Store

LR = 1e-3


def minibatches(count, size=16):
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, 6, 8, generator=generator), torch.randint(0, 3, (size,), generator=generator))
        for _ in range(count)
    ]


def record(path, model, batches, *, call=None, lr=LR, stride=1, evaluate=None, says=False):
    """The loop of the recorder's docstring; ``evaluate`` does something between the steps.

    If it ``says`` so, the loop says where the first pass of a step begins.
    """
    optimizer, call = torch.optim.SGD(model.parameters(), lr=lr), call or model
    with Recorder(model, optimizer, path, max_rows=len(batches), codec="exact", stride=stride) as recorder:
        for inputs, targets in batches:
            if says:
                recorder.begin_pass()
            loss = functional.cross_entropy(call(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            recorder.step(loss, lambda x=inputs, y=targets: functional.cross_entropy(call(x), y))
            if evaluate is not None:
                evaluate(model)
    return Store.open(path).recording()


def follows_the_gradient(reader):
    expected = -reader.steps.lr * reader.steps.grad_norm**2
    return np.corrcoef(reader.loss_change, expected)[0, 1]


def state_of_all(model):
    """Every tensor of a network, and where the generators stand."""
    tensors = [tensor.numpy().tobytes() for tensor in model.state_dict().values()]
    return [*tensors, torch.get_rng_state().numpy().tobytes(), random.getstate(), repr(np.random.get_state())]  # noqa: NPY002


@pytest.mark.parametrize("name", NETWORKS)
def test_the_loss_falls_as_the_gradient_says_and_training_goes_on_as_without_a_recorder(tmp_path, name):
    batches = minibatches(12)
    model = build(name)
    assert follows_the_gradient(record(tmp_path / "t.zarr", model, batches)) > 0.999
    recorded = state_of_all(model)
    other = build(name)
    optimizer = torch.optim.SGD(other.parameters(), lr=LR)
    for inputs, targets in batches:
        loss = functional.cross_entropy(other(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert state_of_all(other) == recorded


@pytest.mark.parametrize("name", NETWORKS)
def test_a_loop_that_calls_something_else_than_the_model_is_measured_once_more(tmp_path, name):
    """As with ``functional_call``. The weights don't move, so a loss change above rounding is noise."""
    model = build(name)
    if name in DRAWING:
        with pytest.raises(UsageError, match=r"draws no random numbers, .* call that model, or Recorder.begin_pass"):
            record(tmp_path / "t.zarr", model, minibatches(4), call=model.forward, lr=1e-12)
        return
    reader = record(tmp_path / "t.zarr", model, minibatches(4), call=model.forward, lr=1e-12)
    assert np.abs(reader.loss_change).max() < 1e-6


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_loop_that_says_where_a_pass_begins_may_call_what_it_likes(tmp_path, name, stride):
    rows = []
    for number in range(2):
        model = build(name)
        options = {"call": model.forward, "says": True} if number else {}
        torch.manual_seed(3)
        rows.append(record(tmp_path / f"{number}.zarr", model, minibatches(8), stride=stride, **options))
    assert np.array_equal(rows[0].loss_change, rows[1].loss_change)
    assert np.array_equal(rows[0].read_rows(0, 8 // stride), rows[1].read_rows(0, 8 // stride))


@pytest.mark.parametrize("name", ["dropout function", "averages"])
def test_a_row_of_several_steps_is_measured_in_the_state_of_its_first(tmp_path, name):
    model = build(name)
    reader = record(tmp_path / "t.zarr", model, minibatches(6), stride=3)
    # On the minibatch of the first step, whose mask is drawn again three steps later.
    model = build(name)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    before, changes = 0.0, []
    for first in (0, 3):
        for number, (inputs, targets) in enumerate(minibatches(6)[first : first + 3]):
            if not number:
                begin, buffers = torch.get_rng_state(), [b.clone() for b in model.buffers()]
            loss = functional.cross_entropy(model(inputs), targets)
            before = before if number else loss.item()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        other, now = copy.deepcopy(model), torch.get_rng_state()
        for buffer, value in zip(other.buffers(), buffers, strict=True):
            buffer.copy_(value)
        torch.set_rng_state(begin)
        inputs, targets = minibatches(6)[first]
        changes.append(functional.cross_entropy(other(inputs), targets).item() - before)
        torch.set_rng_state(now)
    assert reader.loss_change.tolist() == changes


def accuracy_as_many_compute_it(model):
    """Without no_grad(), in evaluation mode."""
    model.eval()
    for inputs, _ in minibatches(2):
        model(inputs).argmax(1)
    model.train()


@pytest.mark.parametrize("name", ["dropout", "batch norm", "averages", "noise"])
def test_evaluating_between_the_steps_disturbs_nothing(tmp_path, name):
    reader = record(tmp_path / "t.zarr", build(name), minibatches(12), evaluate=accuracy_as_many_compute_it)
    assert follows_the_gradient(reader) > 0.999


class Unrepeatable(nn.Module):
    """Noise that depends on how often the network was called."""

    def __init__(self):
        super().__init__()
        self.layer, self.calls = nn.Linear(48, 3), 0

    def forward(self, x):
        self.calls += 1
        return self.layer(x.flatten(1)) * (1 + self.calls / 7)


def test_a_network_that_can_not_be_repeated_is_refused_before_the_first_step(tmp_path):
    torch.manual_seed(0)
    model = Unrepeatable()
    before = model.layer.weight.detach().clone()
    with pytest.raises(UsageError, match=r"^loss while recording: expected \d\S+ again when it is measured a second"):
        record(tmp_path / "t.zarr", model, minibatches(2))
    assert torch.equal(model.layer.weight, before)


@pytest.mark.parametrize("wrong", ["other minibatch", "scaled", "rounded"])
def test_a_measure_of_something_else_is_refused(tmp_path, wrong):
    model = build("dropout")
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    (inputs, targets), (other, labels) = minibatches(2)

    def measure():
        if wrong == "other minibatch":
            return functional.cross_entropy(model(other), labels)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=wrong == "rounded"):
            return functional.cross_entropy(model(inputs), targets) * (0.5 if wrong == "scaled" else 1)

    recorder = Recorder(model, optimizer, tmp_path / "t.zarr", max_rows=1)
    loss = functional.cross_entropy(model(inputs), targets)
    loss.backward()
    with pytest.raises(UsageError, match="measured a second time without a step"):
        recorder.step(loss, measure)
    recorder.writer.close()


def test_a_measure_that_stays_with_the_first_minibatch_is_refused_at_the_second(tmp_path):
    model = build("batch norm")
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    inputs, targets = minibatches(1)[0]
    recorder = Recorder(model, optimizer, tmp_path / "t.zarr")
    for row, (x, y) in enumerate(minibatches(2)):
        loss = functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        if row:
            with pytest.raises(UsageError, match=r"again when it is measured a second time without a step"):
                recorder.step(loss, lambda: functional.cross_entropy(model(inputs), targets))
        else:
            recorder.step(loss, lambda: functional.cross_entropy(model(inputs), targets))
    recorder.close()
    assert recorder.rows == 1


def test_a_measure_in_another_mode_is_refused(tmp_path):
    model = build("batch norm")
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    ((inputs, targets),) = minibatches(1)
    recorder = Recorder(model, optimizer, tmp_path / "t.zarr", max_rows=1)
    loss = functional.cross_entropy(model(inputs), targets)
    loss.backward()
    with pytest.raises(UsageError, match=r"^measure: .* another mode; call neither train\(\) nor eval\(\) in it$"):
        recorder.step(loss, lambda: functional.cross_entropy(model.eval()(inputs), targets))
    recorder.writer.close()
    assert model.training


@pytest.mark.parametrize("name", sorted(DRAWING))
def test_two_minibatches_can_not_share_what_a_network_draws(tmp_path, name):
    def two_steps(path):
        recorder = Recorder(model, optimizer, path, max_rows=2, loss_change="next-batch")
        for inputs, targets in minibatches(2):
            loss = functional.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            recorder.step(loss)
        recorder.writer.close()

    model = build(name)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    with pytest.raises(UsageError, match=r"^network: expected one that draws no random numbers, .* next-batch"):
        two_steps(tmp_path / "a.zarr")
    disable_dropout(model)
    if name in SWITCHED_OFF:
        two_steps(tmp_path / "b.zarr")


@pytest.mark.parametrize("name", sorted(SWITCHED_OFF))
def test_without_dropout_a_network_computes_as_in_evaluation(name):
    model, ((inputs, _),) = build(name), minibatches(1)
    disable_dropout(model)
    assert model.training
    outputs = model(inputs)
    torch.testing.assert_close(outputs, model(inputs), rtol=0, atol=0)
    torch.testing.assert_close(outputs, model.eval()(inputs))


def test_the_last_row_of_a_next_batch_recording_leaves_no_trace(tmp_path):
    model, batches = build("batch norm"), minibatches(3)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    with Recorder(model, optimizer, tmp_path / "t.zarr", max_rows=2, loss_change="next-batch") as recorder:
        for inputs, targets in batches[:2]:
            loss = functional.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            recorder.step(loss)
        before = state_of_all(model)
        inputs, targets = batches[2]
        recorder.complete(lambda: functional.cross_entropy(model(inputs), targets))
    assert state_of_all(model) == before
    after = functional.cross_entropy(model(inputs), targets).item()
    assert Store.open(tmp_path / "t.zarr").recording().steps.loss_after[1] == after


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["dropout", "lstm", "encoder layer", "noise", "batch norm", "spectral norm"])
def test_on_a_gpu(tmp_path, name):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    from causalprune.base.compute.precision import full_precision

    model = build(name).cuda()
    with full_precision():
        reader = record(tmp_path / "t.zarr", model, [(x.cuda(), y.cuda()) for x, y in minibatches(12)])
    assert follows_the_gradient(reader) > 0.999
