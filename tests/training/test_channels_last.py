"""Images with the channels of a pixel side by side: the same values, in another order of memory."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from causalprune.base.errors import InterruptedStage
from causalprune.base.progress import SILENT
from causalprune.base.signals import StopRequest
from causalprune.base.specs import DataSpec
from causalprune.data.batches import Batches
from causalprune.data.datasets import load_data
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex
from causalprune.training.loop import TrainingSnapshot, train
from causalprune.training.options import TrainingOptions

CPU = torch.device("cpu")
SIDE, BATCH = 8, 10


@pytest.fixture(scope="module", params=[1, 3], ids=["one channel", "three channels"])
def data(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "d.npz"
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (70, request.param, SIDE, SIDE), dtype=np.uint8)
    labels = np.arange(70) % 3
    np.savez(path, x_train=images[:50], y_train=labels[:50], x_test=images[50:], y_test=labels[50:])
    return load_data(DataSpec(name=f"npz:{path}", validation_fraction=0.2, augment="crop-flip"))


def net(data):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(data.input_shape[0], 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 2),
        nn.Flatten(), nn.Linear(20, 3),
    )  # fmt: skip


class _StopAfter(StopRequest):
    """True once it was asked so often: once a step."""

    def __init__(self, steps):
        super().__init__()
        self.left = steps

    def __bool__(self):
        self.left -= 1
        return self.left <= 0


def trained(data, *, channels_last, stop_after=math.inf, resume=None):
    """The network after two epochs, or the snapshot that it was stopped with."""
    model, saved = net(data), []
    index = ParameterIndex.from_model(model)
    mask = Mask(index, torch.arange(index.total) % 3 > 0)

    def save(snapshot):
        parts = ({n: t.detach().clone() for n, t in part.items()} for part in (snapshot.weights, snapshot.extra))
        saved.append(TrainingSnapshot(*parts, dict(snapshot.position)))

    if resume is not None:
        model.load_state_dict(resume.weights)
    options = TrainingOptions(
        epochs=2, batch_size=BATCH, lr=0.01, checkpoint_every="never", channels_last=channels_last
    )
    stop = StopRequest() if math.isinf(stop_after) else _StopAfter(stop_after)
    try:
        train(
            model, data, options, mask=mask, device=CPU, seed=5, resume=resume, save=save, stop=stop,
            reporter=SILENT, description="train",
        )  # fmt: skip
    except InterruptedStage:
        return saved[-1]
    return model


def test_batches_have_the_same_values_and_other_strides(data):
    plain, other = (
        Batches(data, "train", batch_size=BATCH, device=CPU, seed=3, augment="crop-flip", channels_last=last)
        for last in (False, True)
    )
    channels = data.input_shape[0]
    for (inputs, targets), (same, same_targets) in zip(plain.epoch(1), other.epoch(1), strict=True):
        assert torch.equal(inputs, same)
        assert torch.equal(targets, same_targets)
        assert inputs.is_contiguous()
        assert same.stride() == (channels * SIDE * SIDE, 1, channels * SIDE, channels)


def test_features_stay_as_they_are(tmp_path):
    x, y = np.eye(20, 5), np.arange(20) % 2
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    data = load_data(DataSpec(name=f"npz:{tmp_path / 'd.npz'}"))
    batches = Batches(data, "train", batch_size=4, device=CPU, seed=3, channels_last=True)
    assert all(inputs.shape[1:] == (5,) for inputs, _ in batches.epoch(0))


def test_a_training_in_that_order_is_the_same_but_for_rounding(data):
    plain, other = (trained(data, channels_last=last).state_dict() for last in (False, True))
    for name, weights in plain.items():
        assert other[name].is_contiguous()
        torch.testing.assert_close(other[name], weights, rtol=1e-3, atol=1e-4)


def test_all_convolutions_see_that_order_in_training_and_in_validation(data, monkeypatch):
    seen, real = set(), nn.Conv2d.forward

    def forward(module, images):
        order = images.is_contiguous(memory_format=torch.channels_last)
        seen.add((module.in_channels, module.training, order, images.stride(1)))
        return real(module, images)

    monkeypatch.setattr(nn.Conv2d, "forward", forward)
    trained(data, channels_last=True)
    channels = data.input_shape[0]
    assert seen == {(c, mode, True, 1) for c in (channels, 4) for mode in (False, True)}


def test_a_resumed_training_ends_with_the_same_bits(data):
    whole = trained(data, channels_last=True).state_dict()
    snapshot = trained(data, channels_last=True, stop_after=6)
    assert all(tensor.is_contiguous() for tensor in (*snapshot.weights.values(), *snapshot.extra.values()))
    resumed = trained(data, channels_last=True, resume=snapshot).state_dict()
    assert {n: t.numpy().tobytes() for n, t in resumed.items()} == {n: t.numpy().tobytes() for n, t in whole.items()}
