"""Every kind of training loop, against the same loop without a recorder, on a quadratic with known gradients."""

import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from causalprune.base.errors import UsageError
from causalprune.training.recorder import Recorder
from causalprune.trajectory import Store

LR, STEPS = 0.05, 6


class Quadratic(nn.Module):
    """½ Σ h (θ − x)², the minibatch's x averaged over its samples; θ are the weights of two layers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 3, bias=False), nn.Linear(3, 2, bias=False)
        self.scale = nn.Parameter(torch.ones(2))
        self.double()

    def forward(self, inputs):
        theta = torch.cat([self.first.weight.flatten(), self.second.weight.flatten(), self.scale])
        return 0.5 * (curvature() * (theta - inputs) ** 2).sum(1)


def curvature():
    return torch.linspace(1, 4, 20, dtype=torch.float64)


def minibatches(count=STEPS):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(8, 20, generator=generator, dtype=torch.float64) for _ in range(count)]


class Truth:
    """Takes the place of a recorder: notes weights, gradients and losses, and takes the step."""

    def __init__(self, model, optimizer):
        self.model, self.optimizer = model, optimizer
        self.rows = []

    def weights(self):
        return torch.cat([p.detach().flatten() for p in self.parameters()]).clone()

    def parameters(self):
        """The recorded ones first."""
        return self.model.first.weight, self.model.second.weight, self.model.scale

    def gradients(self):
        return torch.cat([p.grad.flatten() for p in self.parameters()]).clone()

    def step(self, loss=None, measure=None, *, scaler=None):
        with torch.no_grad():
            before, weights, rates = measure().item(), self.weights(), [g["lr"] for g in self.optimizer.param_groups]
        if scaler is None:
            self.optimizer.step()
        else:
            scaler.step(self.optimizer)
        with torch.no_grad():
            after = measure().item()
        self.rows.append(
            {
                "delta": (self.weights() - weights).numpy(),
                "gradient": self.gradients().numpy(),
                "loss_before": before,
                "loss_after": after,
                "lr": rates,
            }
        )

    def __getitem__(self, name):
        return np.array([row[name] for row in self.rows])


def one_group(model):
    return torch.optim.SGD(model.parameters(), lr=LR)


def two_groups(model):
    groups = [{"params": [model.first.weight, model.scale], "lr": LR}, {"params": [model.second.weight], "lr": LR / 8}]
    return torch.optim.SGD(groups)


def simple(model, optimizer, recorder, prepare=lambda: None, call=None):
    call = model if call is None else call
    for inputs in minibatches():
        loss = call(inputs).mean()
        optimizer.zero_grad()
        loss.backward()
        prepare()
        recorder.step(loss, lambda inputs=inputs: call(inputs).mean())


def scheduled(model, optimizer, recorder, schedule):
    for inputs in minibatches():
        loss = model(inputs).mean()
        optimizer.zero_grad()
        loss.backward()
        recorder.step(loss, lambda inputs=inputs: model(inputs).mean())
        schedule.step()


def warmed_up(model, optimizer, recorder):
    """From a rate of 0, as many schedules begin."""
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / STEPS)
    scheduled(model, optimizer, recorder, schedule)


def clipped(model, optimizer, recorder):
    simple(model, optimizer, recorder, lambda: nn.utils.clip_grad_norm_(model.parameters(), 0.5))


def accumulated(model, optimizer, recorder):
    """Three minibatches per step, whose whole loss only ``measure`` knows."""
    batches = minibatches(3 * STEPS)
    for first in range(0, len(batches), 3):
        part = batches[first : first + 3]
        optimizer.zero_grad()
        for inputs in part:
            (model(inputs).mean() / 3).backward()
        recorder.step(measure=lambda part=part: sum(model(inputs).mean() for inputs in part) / 3)


def scaled(model, optimizer, recorder):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for inputs in minibatches():
        loss = model(inputs).mean()
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        recorder.step(loss, lambda inputs=inputs: model(inputs).mean(), scaler=scaler)
        scaler.update()


def scaled_and_clipped(model, optimizer, recorder):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for inputs in minibatches():
        loss = model(inputs).mean()
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        recorder.step(loss, lambda inputs=inputs: model(inputs).mean(), scaler=scaler)
        scaler.update()


def called_in_a_closure(model, optimizer, recorder):
    """A closure as optimizers take one, called by the loop."""
    for inputs in minibatches():

        def closure(inputs=inputs):
            optimizer.zero_grad()
            loss = model(inputs).mean()
            loss.backward()
            return loss

        recorder.step(closure(), lambda inputs=inputs: model(inputs).mean())


def checkpointed(model, optimizer, recorder):
    simple(model, optimizer, recorder, call=lambda x: checkpoint(model, x, use_reentrant=False))


def checkpointed_reentrant(model, optimizer, recorder):
    simple(model, optimizer, recorder, call=lambda x: checkpoint(model, x.requires_grad_(), use_reentrant=True))


def compiled(model, optimizer, recorder):
    simple(model, optimizer, recorder, call=torch.compile(model, backend="eager"))


def data_parallel(model, optimizer, recorder):
    simple(model, optimizer, recorder, call=nn.DataParallel(model))


LOOPS = [
    simple,
    warmed_up,
    clipped,
    accumulated,
    scaled,
    scaled_and_clipped,
    called_in_a_closure,
    checkpointed,
    checkpointed_reentrant,
    compiled,
    data_parallel,
]


def both(path, loop, make, **options):
    """The recording of a loop, and the truth."""
    model = Quadratic()
    other = copy.deepcopy(model)
    optimizer = make(other)
    truth = Truth(other, optimizer)
    loop(other, optimizer, truth)
    optimizer = make(model)
    with Recorder(model, optimizer, path, codec="exact", **options) as recorder:
        loop(model, optimizer, recorder)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    return Store.open(path).recording(), truth


@pytest.mark.parametrize("make", [one_group, two_groups])
@pytest.mark.parametrize("loop", LOOPS)
def test_rows_are_what_the_loop_did_without_a_recorder(tmp_path, loop, make):
    reader, truth = both(tmp_path / "t.zarr", loop, make)
    assert reader.num_rows == STEPS
    delta = reader.read_rows(0, STEPS)
    assert np.array_equal(delta, truth["delta"][:, :18].astype(np.float32))
    assert reader.steps.loss_before.tolist() == truth["loss_before"].tolist()
    assert reader.steps.loss_after.tolist() == truth["loss_after"].tolist()
    # Of plain SGD the rows are the gradients, each column at the rate of its group and row.
    lr = reader.learning_rates.block(slice(None), slice(None)) * np.ones(18)
    assert np.array_equal(
        lr, np.repeat(truth["lr"], 18, axis=1) if make is one_group else truth["lr"][:, [0] * 12 + [1] * 6]
    )
    assert delta == pytest.approx(-lr * truth["gradient"][:, :18], rel=1e-6, abs=1e-15)
    assert reader.steps.lr.tolist() == truth["lr"][:, 0].tolist()


@pytest.mark.parametrize("loop", [simple, warmed_up, accumulated, scaled])
def test_the_loss_change_has_its_closed_form(tmp_path, loop):
    """ΔL = Σ g·Δθ + ½ Σ h Δθ² of a quadratic, over all parameters."""
    reader, truth = both(tmp_path / "t.zarr", loop, two_groups)
    delta, g = truth["delta"], truth["gradient"]
    change = (g * delta).sum(1) + 0.5 * (curvature().numpy() * delta**2).sum(1)
    assert reader.loss_change == pytest.approx(change, rel=1e-6, abs=1e-13)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_with_dropout_measures_both_losses_with_one_mask(tmp_path, reentrant):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 16), nn.Dropout(0.5), nn.Tanh(), nn.Linear(16, 3)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    with Recorder(model, optimizer, tmp_path / "t.zarr") as recorder:
        for inputs in minibatches(8):
            inputs.requires_grad_()

            def loss_of(inputs=inputs):
                return checkpoint(model, inputs, use_reentrant=reentrant).square().mean()

            optimizer.zero_grad()
            loss = loss_of()
            loss.backward()
            recorder.step(loss, loss_of)
    steps = Store.open(tmp_path / "t.zarr").recording().steps
    assert steps.loss_change == pytest.approx(-steps.lr * steps.grad_norm**2, rel=1e-2)


def test_an_optimizer_within_that_of_a_framework(tmp_path):
    class Accelerated:
        """Has an optimizer, and looks like one."""

        def __init__(self, optimizer):
            self.optimizer, self.waits = optimizer, False

        @property
        def param_groups(self):
            return self.optimizer.param_groups

        def zero_grad(self):
            self.optimizer.zero_grad()

        def step(self):
            if not self.waits:
                self.optimizer.step()

    model = Quadratic()
    optimizer = Accelerated(one_group(model))
    with Recorder(model, optimizer, tmp_path / "t.zarr", codec="exact") as recorder:
        simple(model, optimizer, recorder)
        optimizer.waits = True
        simple(model, optimizer, recorder)
        optimizer.waits = False
        model(minibatches()[0]).mean().backward()
        optimizer.step()
        with pytest.raises(UsageError, match=r"found a call of optimizer.step\(\)"):
            recorder.step(measure=lambda: model(minibatches()[0]).mean())
    reader = Store.open(tmp_path / "t.zarr").recording()
    assert (reader.info.optimizer, reader.num_rows) == ("sgd", STEPS)


def test_the_norms_of_groups_make_up_that_of_the_whole_gradient(tmp_path):
    reader, truth = both(tmp_path / "t.zarr", clipped, two_groups)
    steps = reader.steps
    assert steps["grad_norm.0"] ** 2 + steps["grad_norm.1"] ** 2 == pytest.approx(steps.grad_norm**2)
    assert steps["grad_norm.1"] == pytest.approx(np.linalg.norm(truth["gradient"][:, 12:18], axis=1))
    assert (steps.grad_norm <= 0.5 + 1e-6).all()
    assert [group.parameters for group in reader.info.groups] == [("first.weight",), ("second.weight",)]


def test_a_loop_in_which_something_else_calls_the_optimizer(tmp_path):
    class Halves:
        """What a framework does with begin_step and end_step."""

        def __init__(self, recorder, optimizer):
            self.recorder, self.optimizer = recorder, optimizer

        def step(self, loss, measure):
            self.recorder.begin_step(loss, measure)
            nn.utils.clip_grad_norm_(self.optimizer.param_groups[0]["params"], 0.5)
            self.optimizer.step()
            self.recorder.end_step()

    reader, _ = both(tmp_path / "t.zarr", clipped, one_group)
    model = Quadratic()
    optimizer = one_group(model)
    with Recorder(model, optimizer, tmp_path / "u.zarr", codec="exact") as recorder:
        simple(model, optimizer, Halves(recorder, optimizer))
    halves = Store.open(tmp_path / "u.zarr").recording()
    assert np.array_equal(halves.read_rows(0, STEPS), reader.read_rows(0, STEPS))
    assert np.array_equal(halves.steps.to_matrix(), reader.steps.to_matrix())


def test_a_step_that_was_begun_and_never_taken_counts_for_nothing(tmp_path):
    model = Quadratic()
    optimizer = one_group(model)
    with Recorder(model, optimizer, tmp_path / "t.zarr", codec="exact") as recorder:
        with pytest.raises(UsageError, match=r"expected Recorder.begin_step before"):
            recorder.end_step()
        for inputs in minibatches(3):
            loss = model(inputs).mean()
            optimizer.zero_grad()
            loss.backward()
            recorder.begin_step(2 * loss, lambda inputs=inputs: 2 * model(inputs).mean())
            recorder.begin_step(loss, lambda inputs=inputs: model(inputs).mean())
            optimizer.step()
            recorder.end_step()
    twice = Store.open(tmp_path / "t.zarr").recording()
    reader, _ = both(tmp_path / "u.zarr", simple, one_group)
    assert np.array_equal(twice.steps.to_matrix(), reader.steps.to_matrix()[:, :3])


@pytest.mark.parametrize("stride", [1, 2])
def test_a_step_that_the_scaler_skips_makes_no_row(tmp_path, stride):
    def loop(model, optimizer, recorder):
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        for number, inputs in enumerate(minibatches()):
            loss = model(inputs).mean()
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            if number in (0, 3):
                model.first.weight.grad[0, 0] = torch.inf
            recorder.step(loss, lambda inputs=inputs: model(inputs).mean(), scaler=scaler)
            scaler.update()

    reader, truth = both(tmp_path / "t.zarr", loop, one_group, stride=stride)
    taken = [1, 2, 4, 5]
    deltas = truth["delta"][taken, :18].reshape(len(taken) // stride, stride, -1).sum(1)
    assert reader.read_rows(0, reader.num_rows) == pytest.approx(deltas.astype(np.float32), rel=1e-5)
    assert reader.steps.loss_before.tolist() == truth["loss_before"][taken][::stride].tolist()
    assert np.isfinite(reader.steps.grad_norm).all()


@pytest.mark.parametrize("whole_loop", [False, True])
def test_bfloat16_autocast(tmp_path, whole_loop):
    """Where autocast is around the whole loop, it remembers rounded weights, as they were before the step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    data = [(torch.randn(64, 16), torch.randint(0, 4, (64,))) for _ in range(8)]

    def loss_of(batch):
        with torch.autocast("cpu", torch.bfloat16):
            return nn.functional.cross_entropy(model(batch[0]).float(), batch[1])

    changes = []
    with (
        torch.autocast("cpu", torch.bfloat16) if whole_loop else nullcontext(),
        Recorder(model, optimizer, tmp_path / "t.zarr") as recorder,
    ):
        for batch in data:
            loss = loss_of(batch)
            optimizer.zero_grad()
            loss.backward()
            before = copy.deepcopy(model)
            recorder.step(loss, lambda batch=batch: loss_of(batch))
            with torch.no_grad(), torch.autocast("cpu", enabled=False):
                pair = [nn.functional.cross_entropy(net(batch[0]).double(), batch[1]) for net in (before, model)]
            changes.append((pair[1] - pair[0]).item())
    reader = Store.open(tmp_path / "t.zarr").recording()
    assert (reader.loss_change < 0).all()
    assert np.corrcoef(reader.loss_change, changes)[0, 1] > 0.9


def test_losses_in_float32_of_a_network_that_trains_in_bfloat16(tmp_path):
    """By ``measure`` alone: both losses are its own, whatever the gradients were computed in."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    data = [(torch.randn(64, 16), torch.randint(0, 4, (64,))) for _ in range(8)]
    with Recorder(model, optimizer, tmp_path / "t.zarr") as recorder:
        for inputs, targets in data:
            with torch.autocast("cpu", torch.bfloat16):
                loss = nn.functional.cross_entropy(model(inputs).float(), targets)
            optimizer.zero_grad()
            loss.backward()
            recorder.step(measure=lambda x=inputs, y=targets: nn.functional.cross_entropy(model(x).double(), y))
    steps = Store.open(tmp_path / "t.zarr").recording().steps
    # Far below what bfloat16 resolves in a loss of 1.4.
    assert steps.loss_change == pytest.approx(-steps.lr * steps.grad_norm**2, rel=0.05)
