"""The training loop: resumes bit for bit, holds the mask, chooses the epoch on validation alone."""

import copy
import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from stop_after import StopAfter
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from causalprune.base.errors import CorruptError, DataError, InterruptedStage
from causalprune.base.signals import StopRequest
from causalprune.base.specs import DataSpec
from causalprune.data.batches import Batches
from causalprune.data.datasets import load_data
from causalprune.data.splits import Split
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex
from causalprune.training import loop as loop_module
from causalprune.training.distillation import Distillation
from causalprune.training.loop import TrainingSnapshot, train
from causalprune.training.names import LR_SCHEDULES, OPTIMIZERS
from causalprune.training.optimizers import build_optimizer, restore_optimizer
from causalprune.training.options import TrainingOptions

CPU = torch.device("cpu")
FEATURES, BATCH = 6, 10


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three noisy classes in six dimensions, 43 of them to train on: the last batch of an epoch isn't full."""
    path = tmp_path_factory.mktemp("data") / "d.npz"
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 3
    inputs = rng.normal(size=(80, FEATURES)).astype(np.float32) + 0.7 * np.eye(3, FEATURES, dtype=np.float32)[labels]
    np.savez(path, x_train=inputs[:60], y_train=labels[:60], x_test=inputs[60:], y_test=labels[60:])
    return load_data(DataSpec(name=f"npz:{path}", validation_fraction=0.25))


def net(dropout=0.2):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3))


def two_thirds():
    """A mask of the network that keeps two weights of three."""
    return Mask(ParameterIndex.from_model(net()), torch.arange(FEATURES * 8 + 8 * 3) % 3 > 0)


def dense():
    """Another network of the same shape, as it was before it was pruned."""
    torch.manual_seed(8)
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3))


def options(**changes):
    return TrainingOptions(**{"epochs": 3, "batch_size": BATCH, "checkpoint_every": "1steps", **changes})


class _Saved(list):
    """Snapshots as a file gives them back: tensors copied, the position through JSON."""

    def __call__(self, snapshot):
        copies = [{n: t.detach().clone() for n, t in part.items()} for part in (snapshot.weights, snapshot.extra)]
        self.append(TrainingSnapshot(*copies, json.loads(json.dumps(snapshot.position))))


def run(model, data, opts, *, mask=None, resume=None, stop_after=math.inf, seed=5, distillation=None):
    saved, stop = _Saved(), StopRequest()
    try:
        outcome = train(
            model,
            data,
            opts,
            mask=mask or Mask.all(ParameterIndex.from_model(model)),
            device=CPU,
            seed=seed,
            distillation=distillation,
            resume=resume,
            save=saved,
            stop=stop,
            reporter=StopAfter(stop, stop_after),
            description="train",
        )
    except InterruptedStage:
        return None, saved
    return outcome, saved


def bits(tensors):
    return {name: (t.dtype, t.shape, t.contiguous().numpy().tobytes()) for name, t in tensors.items()}


def stop_and_resume(data, opts, steps, mask=None, distillation=None):
    """What a training that is stopped after ``steps`` steps and resumed in a new process ends with."""
    interrupted, saved = run(net(), data, opts, stop_after=steps, mask=mask, distillation=distillation)
    assert interrupted is None
    model = net()
    model.load_state_dict(saved[-1].weights)
    # Another global random state than that of the first process.
    torch.manual_seed(999)
    outcome, later = run(model, data, opts, resume=saved[-1], mask=mask, distillation=distillation)
    return model, outcome, later


STEPS_PER_EPOCH = 5


@pytest.mark.parametrize("lr_schedule", LR_SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_training_resumed_in_mid_epoch_ends_with_the_same_bits(data, optimizer, lr_schedule):
    opts = options(optimizer=optimizer, lr_schedule=lr_schedule, lr=0.03, weight_decay=1e-3)
    whole = net()
    expected, snapshots = run(whole, data, opts)
    model, outcome, later = stop_and_resume(data, opts, STEPS_PER_EPOCH + 3)
    assert bits(model.state_dict()) == bits(whole.state_dict())
    assert outcome == expected
    # Not only the best epoch: the last weights, momenta, schedule and history, too.
    assert bits(later[-1].weights) == bits(snapshots[-1].weights)
    assert bits(later[-1].extra) == bits(snapshots[-1].extra)
    assert later[-1].position == snapshots[-1].position


@pytest.mark.parametrize("steps", [1, STEPS_PER_EPOCH, STEPS_PER_EPOCH + 1, 3 * STEPS_PER_EPOCH])
def test_a_training_can_be_stopped_at_any_step(data, steps):
    opts = options(label_smoothing=0.1, warmup=0.5, clip_norm=0.3)
    mask = two_thirds()
    distillation = Distillation(dense(), 0.4)
    whole = net()
    expected, snapshots = run(whole, data, opts, mask=mask, distillation=distillation)
    model, outcome, later = stop_and_resume(data, opts, steps, mask, distillation)
    assert bits(model.state_dict()) == bits(whole.state_dict())
    assert outcome == expected
    if later:
        assert bits(later[-1].extra) == bits(snapshots[-1].extra)


def test_other_global_randomness_and_saving_change_nothing(data):
    first, second = net(), net()
    run(first, data, options())
    torch.manual_seed(12345)
    before = torch.get_rng_state()
    run(second, data, options(checkpoint_every="never"))
    assert bits(first.state_dict()) == bits(second.state_dict())
    assert torch.equal(torch.get_rng_state(), before)
    third = net()
    run(third, data, options(), seed=6)
    assert bits(third.state_dict()) != bits(first.state_dict())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_pruned_weights_are_positive_zero_after_every_step(data, optimizer):
    model = net()
    index = ParameterIndex.from_model(model)
    keep = torch.rand(index.total, generator=torch.Generator().manual_seed(2)) < 0.5
    opts = options(optimizer=optimizer, weight_decay=0.1, momentum=0.9)
    _, saved = run(model, data, opts, mask=Mask(index, keep))
    states = [model.state_dict(), *(s.weights for s in saved)]
    for state in states:
        flat = torch.cat([state["0.weight"].reshape(-1), state["4.weight"].reshape(-1)])
        assert not flat[~keep].numpy().view(np.int32).any()
        assert flat[keep].all()
    # Momentum alone would move them: it isn't zero for pruned weights.
    name = "momentum_buffer" if optimizer == "sgd" else "exp_avg"
    assert saved[-1].extra[f"optimizer/0.weight/{name}"].reshape(-1)[~keep[: FEATURES * 8]].any()


def score(weights, split, data):
    """Accuracy and minus the mean cross-entropy of a snapshot, computed without the package's evaluation."""
    model = net()
    model.load_state_dict(weights)
    model.eval()
    inputs = (split.inputs.double() - data.train.inputs.double().mean(0)) / data.train.inputs.double().std(
        0, correction=0
    )
    with torch.no_grad():
        outputs = model(inputs.float())
    accuracy = (outputs.argmax(1) == split.targets).double().mean().item()
    return accuracy, -functional.cross_entropy(outputs, split.targets).item()


@pytest.mark.parametrize("shift", [0, 1], ids=["honest-validation", "adverse-validation"])
def test_the_best_epoch_is_the_one_that_validates_best(data, shift):
    # With shifted labels the validation score falls while the training loss falls: training can't be the judge.
    # A test split of NaN raises as soon as anything looks at it.
    validation = Split(data.validation.inputs, (data.validation.targets + shift) % 3)
    test = Split(data.test.inputs * math.nan, data.test.targets)
    changed = dataclasses.replace(data, validation=validation, test=test)
    model = net(dropout=0.0)
    opts = options(epochs=6, checkpoint_every=f"{STEPS_PER_EPOCH}steps", lr=0.02)
    outcome, saved = run(model, changed, opts)
    assert len(saved) == 6
    scores = [score(s.weights, validation, changed) for s in saved]
    best = max(range(6), key=lambda epoch: scores[epoch])
    assert outcome["best_epoch"] == best + 1
    assert bits(model.state_dict()) == bits(saved[best].weights)
    assert outcome["validation"]["top1"] == scores[best][0]
    assert [h["validation"] for h in outcome["history"]] == [accuracy for accuracy, _ in scores]
    losses = [h["train_loss"] for h in outcome["history"]]
    assert losses[-1] < losses[0]
    if shift:
        assert outcome["best_epoch"] < 6


class Reads(TorchDispatchMode):
    """Counts how often a value of a tensor is brought to the program, for which a GPU would be waited for."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        names = ("_local_scalar_dense", "equal", "nonzero", "bincount", "index")
        name = function.overloadpacket.__name__
        # An index of bools asks how many are True.
        masked = name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])
        self.count += name in names and (name != "index" or masked)
        return function(*args, **(kwargs or {}))


def test_what_a_training_reads_does_not_depend_on_the_number_of_minibatches(data):
    counts = []
    for batch_size in (BATCH, 2 * BATCH, 4 * BATCH):
        with Reads() as reads:
            run(net(), data, options(optimizer="sgd", batch_size=batch_size, clip_norm=1.0, checkpoint_every="never"))
        counts.append(reads.count)
    assert len(set(counts)) == 1
    assert counts[0] > 0


def test_the_validation_of_the_best_epoch_is_not_measured_again(data, monkeypatch):
    """But after an interruption, because a saved state doesn't have it; the numbers are the same."""
    measured, real = [], loop_module.evaluate_model

    def evaluate_model(*args, **options):
        measured.append(real(*args, **options))
        return measured[-1]

    monkeypatch.setattr(loop_module, "evaluate_model", evaluate_model)
    model = net()
    outcome, _ = run(model, data, options(epochs=4))
    assert len(measured) == 4
    assert outcome["validation"] == measured[outcome["best_epoch"] - 1]
    assert outcome["validation"] == real(model, data, "validation", batch_size=512, device=CPU)
    measured.clear()
    _, resumed, _ = stop_and_resume(data, options(epochs=4), 4 * STEPS_PER_EPOCH - 1)
    assert resumed["validation"] == outcome["validation"]
    assert len(measured) == 4 + (outcome["best_epoch"] < 4)


def test_patience_ends_a_training_that_validates_no_better(data):
    validation = Split(data.validation.inputs, (data.validation.targets + 1) % 3)
    changed = dataclasses.replace(data, validation=validation)
    outcome, _ = run(net(0.0), changed, options(epochs=40, patience=2, lr=0.1))
    assert len(outcome["history"]) == outcome["best_epoch"] + 2 < 40


def test_no_epochs_leave_the_weights_and_still_measure_them(data):
    model = net()
    before = bits(model.state_dict())
    outcome, saved = run(model, data, options(epochs=0))
    assert bits(model.state_dict()) == before
    assert (outcome["best_epoch"], outcome["history"], saved) == (0, [], [])
    assert outcome["validation"]["top1"] == score(model.state_dict(), data.validation, data)[0]


@pytest.mark.parametrize("checkpoint_every", ["never", "1steps"])
def test_a_training_loss_that_is_not_finite_ends_the_training(data, checkpoint_every):
    with pytest.raises(DataError, match=r"^training loss: expected a finite number, found (nan|inf); lower `lr`"):
        run(net(), data, options(lr=1e18, checkpoint_every=checkpoint_every, nesterov=False))


def test_one_step_of_plain_sgd_is_the_textbook_one(data):
    model = net(0.0)
    reference = copy.deepcopy(model)
    opts = options(epochs=1, batch_size=1000, lr=0.1, momentum=0.0, weight_decay=0.01, lr_schedule="constant")
    run(model, data, opts)
    inputs = (data.train.inputs - data.train.inputs.mean(0)) / data.train.inputs.std(0, correction=0)
    functional.cross_entropy(reference(inputs), data.train.targets).backward()
    for mine, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        expected = theirs - 0.1 * (theirs.grad + 0.01 * theirs)
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-6)


def test_learning_rates_follow_their_closed_forms(data):
    total = 3 * STEPS_PER_EPOCH

    def rates(lr_schedule, **changes):
        opts = options(lr_schedule=lr_schedule, lr=0.08, **changes)
        # A snapshot holds the rate of the step after it.
        return [s.position["optimizer"]["lr"][0] for s in run(net(), data, opts)[1]]

    steps = np.arange(1, total + 1)
    np.testing.assert_allclose(rates("cosine"), 0.04 * (1 + np.cos(np.pi * steps / total)), atol=1e-12)
    np.testing.assert_array_equal(rates("constant"), np.full(total, 0.08))
    # round(0.4·15) = 6 and round(0.8·15) = 12.
    expected = 0.08 * 0.5 ** ((steps >= 6).astype(int) + (steps >= 12))
    np.testing.assert_allclose(rates("step", lr_decay=0.5, decay_at="0.4,0.8"), expected, rtol=1e-12)
    cycle = rates("one-cycle")
    peak = int(np.argmax(cycle))
    assert max(cycle) <= 0.08 * (1 + 1e-12)
    assert 0 < peak < total - 1
    assert (np.diff(cycle[: peak + 1]) > 0).all()
    assert (np.diff(cycle[peak:]) < 0).all()


def test_optimizer_state_of_another_model_is_refused():
    model = net()
    optimizer = build_optimizer(model, options())
    with pytest.raises(CorruptError, match=r"^optimizer/conv\.weight/momentum_buffer: "):
        restore_optimizer(model, optimizer, {"optimizer/conv.weight/momentum_buffer": torch.zeros(1)})


def by_hand(data, factors, *, mask, clip=None, teacher=None, weight=0.0):
    """The network after a training with torch's own means: SGD on a cosine, its rate in each step times a factor."""
    model = net(0.0)
    keep = {name: keep for name, keep in mask.tensors().items() if not keep.all()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=len(factors))
    batches = Batches(data, "train", batch_size=BATCH, device=CPU, seed=5)
    if teacher is not None:
        teacher.eval()

    def prune(tensors):
        for name, kept in keep.items():
            tensors[name].copy_(torch.where(kept, tensors[name], 0.0))

    prune(model.state_dict())
    pairs = [pair for epoch in range(3) for pair in batches.epoch(epoch)]
    for (inputs, targets), factor in zip(pairs, factors, strict=True):
        outputs = model(inputs)
        loss = functional.cross_entropy(outputs, targets)
        if teacher is not None:
            with torch.no_grad():
                wanted = functional.log_softmax(teacher(inputs) / 2, 1)
            distance = nn.KLDivLoss(reduction="batchmean", log_target=True)(
                functional.log_softmax(outputs / 2, 1), wanted
            )
            loss = (1 - weight) * loss + weight * (4 * distance)
        optimizer.zero_grad()
        loss.backward()
        if clip is not None:
            prune({name: p.grad for name, p in model.named_parameters()})
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        rate = optimizer.param_groups[0]["lr"]
        optimizer.param_groups[0]["lr"] = factor * rate
        optimizer.step()
        optimizer.param_groups[0]["lr"] = rate
        schedule.step()
        prune(model.state_dict())
    return bits(model.state_dict())


STEADY = [1.0] * 3 * STEPS_PER_EPOCH
RISING = [0.2, 0.4, 0.6, 0.8, *[1.0] * 11]
"""A third of 15 steps: the fifth is the first at the whole rate."""


def last_weights(data, opts, **more):
    return bits(run(net(0.0), data, options(lr=0.1, **opts), **more)[1][-1].weights)


def test_warmup_clipping_and_distillation_do_what_a_loop_written_with_torch_does(data):
    mask, everything = two_thirds(), Mask.all(ParameterIndex.from_model(net()))
    assert last_weights(data, {}, mask=mask) == by_hand(data, STEADY, mask=mask)
    assert last_weights(data, {"warmup": 1 / 3}, mask=mask) == by_hand(data, RISING, mask=mask)
    for held in (mask, everything):
        assert last_weights(data, {"clip_norm": 0.3}, mask=held) == by_hand(data, STEADY, mask=held, clip=0.3)
    teacher = dense()
    before = bits(teacher.state_dict())
    found = last_weights(data, {}, mask=mask, distillation=Distillation(teacher, 0.3))
    assert found == by_hand(data, STEADY, mask=mask, teacher=dense(), weight=0.3)
    assert bits(teacher.state_dict()) == before
    assert all(p.grad is None for p in teacher.parameters())
    found = last_weights(data, {"warmup": 1 / 3, "clip_norm": 0.3}, mask=mask, distillation=Distillation(teacher, 0.3))
    assert found == by_hand(data, RISING, mask=mask, clip=0.3, teacher=dense(), weight=0.3)


def test_what_is_off_changes_no_bit(data):
    """Neither a limit that no gradient reaches nor a distillation of weight 0."""
    whole = last_weights(data, {})
    assert last_weights(data, {"clip_norm": 1e9}) == whole
    assert last_weights(data, {}, distillation=Distillation(dense(), 0.0)) == whole
    assert last_weights(data, {"clip_norm": 0.3}) != whole


@pytest.mark.parametrize("lr_schedule", LR_SCHEDULES)
def test_warmup_multiplies_the_rate_of_every_schedule(data, lr_schedule, monkeypatch):
    used = []
    step = torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self: (used.append(self.param_groups[0]["lr"]), step(self)))
    for warmup in (0.0, 1 / 3):
        run(net(), data, options(lr_schedule=lr_schedule, warmup=warmup))
    plain, warmed = np.array(used).reshape(2, -1)
    np.testing.assert_array_equal(warmed, plain * RISING)
