"""A last minibatch of one sample meets batch normalization: 144 training samples in batches of 11 or 13."""

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
