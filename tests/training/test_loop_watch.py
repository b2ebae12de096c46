"""What a loop does beside Recorder.step: noticed when it would make a row wrong, and let alone when it doesn't."""

import copy
import io

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from causalprune.base.errors import UsageError
from causalprune.training.recorder import Recorder
from causalprune.trajectory import Store

LR, BATCH = 0.05, 8


class Loop:
    """A user's loop over few minibatches; its parts can be put together wrongly."""

    def __init__(self, path, model=None, call=None, groups=1, **options):
        torch.manual_seed(0)
        self.model = model or nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
        self.call = call or self.model
        parameters = list(self.model.parameters())
        self.optimizer = torch.optim.SGD([{"params": parameters[n::groups]} for n in range(groups)], lr=LR)
        data = TensorDataset(torch.randn(64, 6), torch.randint(0, 3, (64,)))
        self.batches = list(DataLoader(data, batch_size=BATCH))
        self.recorder = Recorder(options.pop("wrapped", self.model), self.optimizer, path, max_rows=20, **options)
        self.path = path

    def loss(self, number=0):
        inputs, targets = self.batches[number]
        return functional.cross_entropy(self.call(inputs), targets)

    def backward(self, *numbers):
        """The mean loss of minibatches, and its gradient."""
        self.optimizer.zero_grad()
        total = 0.0
        for number in numbers or (0,):
            loss = self.loss(number) / max(1, len(numbers))
            loss.backward()
            total = total + loss.detach()
        return total

    def step(self, number=0):
        self.recorder.step(self.backward(number), lambda: self.loss(number))

    def finish(self):
        self.recorder.writer.finish()
        return Store.open(self.path).recording()


@pytest.fixture(params=[{}, {"groups": 3}, {"columns": "0"}], ids=str)
def loop(tmp_path, request):
    loop = Loop(tmp_path / "t.zarr", **request.param)
    yield loop
    loop.recorder.writer.close()


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_a_step_of_the_optimizer_before_that_of_the_recorder(loop, rows):
    for _ in range(rows):
        loop.step()
    loss = loop.backward()
    loop.optimizer.step()
    with pytest.raises(UsageError, match=r"found a call of optimizer.step\(\); leave it out, because Recorder.step"):
        loop.recorder.step(loss, loop.loss)
    assert loop.recorder.rows == rows


def test_a_step_of_the_optimizer_after_that_of_the_recorder(loop):
    loop.step()
    loop.optimizer.step()
    loss = loop.backward()
    with pytest.raises(UsageError, match=r"found a call of optimizer.step\(\)"):
        loop.recorder.step(loss, loop.loss)


def test_training_before_the_first_row_is_nobodys_business(loop):
    for number in range(3):
        loop.backward(number)
        loop.optimizer.step()
    before = loop.model[0].weight.detach().clone()
    loop.step(3)
    moved = loop.model[0].weight.detach() - before
    row = loop.finish().read_rows(0, 1)[0]
    np.testing.assert_allclose(row[:30], moved.numpy().ravel(), rtol=2**-10)


def clamp(model):
    for parameter in model.parameters():
        parameter.data.clamp_(-0.1, 0.1)


def load(model):
    model.load_state_dict({name: tensor * 0.9 for name, tensor in model.state_dict().items()})


def replace_data(model):
    model[2].weight.data = model[2].weight.data + 1


@pytest.mark.parametrize("change", [clamp, load, replace_data])
@pytest.mark.parametrize("stride", [1, 2])
def test_weights_that_change_between_steps(tmp_path, change, stride):
    loop = Loop(tmp_path / "t.zarr", stride=stride)
    for _ in range(stride):
        loop.step()
    change(loop.model)
    loss = loop.backward()
    with pytest.raises(UsageError, match=r"^weights: expected those after the last recorded step, found others"):
        loop.recorder.step(loss, loop.loss)
    loop.recorder.writer.close()


def test_weights_that_were_exchanged_for_a_while_are_the_same(loop):
    """As when an average of the weights is evaluated."""
    for number in range(3):
        loop.step(number)
        kept = copy.deepcopy(loop.model.state_dict())
        load(loop.model)
        with torch.no_grad():
            loop.loss()
        loop.model.load_state_dict(kept)
    assert loop.finish().num_rows == 3


def test_gradients_of_several_minibatches_and_the_loss_of_the_last_one(loop):
    loop.backward(0, 1, 2)
    with pytest.raises(UsageError, match="found 3 backward passes and a loss of 1 forward passes; pass the sum"):
        loop.recorder.step(loop.loss(2).detach(), lambda: loop.loss(2))


def test_gradients_of_several_minibatches_and_the_loss_of_all(loop):
    def mean():
        return sum(loop.loss(number) for number in (0, 1, 2)) / 3

    for _ in range(3):
        loop.recorder.step(loop.backward(0, 1, 2), mean)
    reader = loop.finish()
    expected = -reader.steps.lr * reader.steps.grad_norm**2
    np.testing.assert_allclose(reader.loss_change, expected, rtol=0.1)


def test_two_backward_passes_through_one_forward_pass(loop):
    inputs, targets = loop.batches[0]
    for _ in range(3):
        loop.optimizer.zero_grad()
        outputs = loop.model(inputs)
        first, second = functional.cross_entropy(outputs, targets), outputs.square().mean()
        first.backward(retain_graph=True)
        second.backward()

        def measure():
            outputs = loop.model(inputs)
            return functional.cross_entropy(outputs, targets) + outputs.square().mean()

        loop.recorder.step(first + second, measure)
    assert loop.recorder.rows == 3


def test_accumulated_gradients_and_a_next_batch(tmp_path):
    loop = Loop(tmp_path / "t.zarr", loss_change="next-batch")
    loss = loop.backward(0, 1)
    with pytest.raises(UsageError, match="found 2 backward passes"):
        loop.recorder.step(loss)
    loop.recorder.writer.close()


@pytest.mark.parametrize("reason", ["no backward", "frozen"])
def test_a_step_that_trains_no_weight_is_refused(tmp_path, reason):
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    if reason == "frozen":
        model[0].requires_grad_(False)
        model[2].requires_grad_(False)
    loop = Loop(tmp_path / "t.zarr", model)
    loss = loop.loss() if reason == "no backward" else loop.backward()
    with pytest.raises(UsageError, match=r"found 2 that are frozen, have no gradient or aren't given to the optimizer"):
        loop.recorder.step(loss, loop.loss)
    loop.recorder.writer.close()


def test_weights_that_no_step_trains_are_named(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.frozen, self.left_out, self.unused, self.late, self.head = [nn.Linear(6, 6) for _ in range(5)]
            self.frozen.requires_grad_(False)
            self.calls = 0

        def forward(self, x):
            x = self.left_out(self.frozen(x)).tanh()
            if self.calls > 2:
                x = self.late(x)
            return self.head(x)

    torch.manual_seed(0)
    model = Net()
    path = tmp_path / "t.zarr"
    trained = [p for name, p in model.named_parameters() if "left_out" not in name]
    recorder = Recorder(model, torch.optim.SGD(trained, lr=LR), path, max_rows=6, codec="exact")
    names = []
    for number in range(4):
        model.calls = number
        inputs, targets = torch.randn(8, 6), torch.randint(0, 3, (8,))
        model.zero_grad()
        loss = functional.cross_entropy(model(inputs), targets)
        loss.backward()
        recorder.step(loss, lambda x=inputs, y=targets: functional.cross_entropy(model(x), y))
        recorder.writer.flush()
        names.append(Store.open(path).recording().untrained)
    recorder.writer.finish()
    always = ("frozen.weight", "left_out.weight", "unused.weight")
    assert names == [(*always, "late.weight")] * 3 + [always]
    reader = Store.open(path).recording()
    assert reader.untrained == always
    for name in always:
        part = reader.columns_of(name)
        assert not reader.read_columns(part.start, part.stop).any()


def test_a_weight_whose_gradient_is_zero_is_trained(tmp_path):
    loop = Loop(tmp_path / "t.zarr")
    with torch.no_grad():
        loop.model[0].weight.zero_()
        loop.model[2].weight.zero_()
    loop.step()
    assert not loop.model[0].weight.grad.any()
    assert loop.finish().untrained == ()


@pytest.mark.parametrize("wrap", ["compile", "data parallel"])
def test_a_wrapped_network_is_watched_like_any(tmp_path, wrap):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Dropout(), nn.Linear(5, 3))
    wrapped = torch.compile(model, backend="eager") if wrap == "compile" else nn.DataParallel(model)
    loop = Loop(tmp_path / "t.zarr", model, call=wrapped, wrapped=wrapped)
    for number in range(3):
        loop.step(number)
    loop.backward(0, 1)
    with pytest.raises(UsageError, match="found 2 backward passes and a loss of 1"):
        loop.recorder.step(loop.loss(1).detach(), lambda: loop.loss(1))
    loop.recorder.writer.close()


def test_a_network_that_is_compiled_as_a_whole_graph_stays_so(tmp_path):
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    call = torch.compile(model, backend="eager", fullgraph=True)
    loop = Loop(tmp_path / "t.zarr", model, call=call)
    for number in range(3):
        loop.step(number)
    loop.recorder.writer.close()


def test_a_network_can_be_copied_and_saved_while_it_is_watched(loop):
    loop.step()
    for other in (copy.deepcopy(loop.model), pickled(loop.model)):
        other(loop.batches[0][0])
    loop.step(1)
    assert loop.recorder.rows == 2


def pickled(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def test_nothing_hangs_on_the_network_afterwards(tmp_path):
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    loop = Loop(tmp_path / "t.zarr", model)
    with loop.recorder:
        loop.step()
    other = Loop(tmp_path / "u.zarr", model)
    other.recorder.writer.close()
    del other
    assert not model._forward_pre_hooks
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())
    assert not loop.optimizer._optimizer_step_post_hooks
