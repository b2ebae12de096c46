"""A minibatch of one sample meets batch normalization: refused, or merged, unless an image has pixels enough."""

import numpy as np
import pytest

NETWORK = """
from torch import nn

def net(input_shape, num_outputs):
    return nn.Sequential(nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, num_outputs))
"""


@pytest.fixture
def data(folder):
    y = np.arange(200) % 4
    np.savez(folder / "rows.npz", x=np.random.default_rng(0).normal(size=(200, 20)) + y[:, None], y=y)
    (folder / "normalized.py").write_text(NETWORK)
    return ["--dataset", "npz:rows.npz", "--model", "normalized:net", "--epochs", "1"]


@pytest.mark.parametrize("size", [11, 12, 13])
def test_any_batch_size_trains_and_records(causalprune, data, size):
    for command in (["pretrain", *data], ["record", "--epochs", "1"]):
        result = causalprune(*command, "--batch-size", size, "--trust-code", "-q")
        assert result.code == 0, result.error
    assert causalprune("info", "run/trajectory.zarr", "--json").json["details"]["recordings"][0]["rows"] == 144 // size


def test_a_batch_of_one_is_refused_by_its_name(causalprune, data):
    assert causalprune("pretrain", *data, "--batch-size", 1, "-q").refuses("--batch-size: expected at least 2")
    assert causalprune("pretrain", *data, "-q").code == 0
    recorded = causalprune("record", "--batch-size", 1, "--trust-code", "-q")
    assert recorded.refuses("--batch-size: expected at least 2")


IMAGES = """
from torch import nn

def wide(input_shape, num_outputs):
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, num_outputs))

def narrow(input_shape, num_outputs):
    return nn.Sequential(nn.Conv2d(1, 4, 8), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4, num_outputs))

class Branched(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.body, self.norm, self.last = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, outputs)

    def forward(self, inputs):
        found = self.body(inputs)
        return self.last(self.norm(found.mean((2, 3), True) if self.training else found).mean((2, 3)))

def branched(input_shape, num_outputs):
    return Branched(num_outputs)
"""


@pytest.fixture
def images(folder):
    (folder / "images.py").write_text(IMAGES)
    y = np.arange(60) % 2
    x = np.random.default_rng(0).normal(size=(60, 8, 8)) + y[:, None, None]
    np.savez(folder / "images.npz", x=x.astype(np.float32), y=y)
    return ["--dataset", "npz:images.npz", "--epochs", "1", "--batch-size", 1]


def test_one_image_with_several_pixels_is_a_batch(causalprune, images):
    trained = causalprune("pretrain", *images, "--model", "images:wide", "--lr", 0.01, "--json", "-q")
    assert trained.metrics["best_epoch"] == 1
    recorded = causalprune("record", "--epochs", 1, "--batch-size", 1, "--trust-code", "--json", "-q")
    assert recorded.metrics["rows"] == 43


@pytest.mark.parametrize("network", ["narrow", "branched"])
def test_one_image_with_one_pixel_is_none(causalprune, images, network):
    result = causalprune("pretrain", *images, "--model", f"images:{network}", "-q")
    # A network that is another one in training is noticed by its first step.
    assert result.refuses("--batch-size: expected " + ("at least 2" if network == "narrow" else "more than one value"))
