"""Whole numbers (N, F) in an array: standardized, or such as a network looks up."""

import numpy as np
import pytest
import torch

from causalprune.base.compute.shapes import Tokens
from causalprune.base.errors import DataError, UsageError
from causalprune.base.specs import DataSpec
from causalprune.commands.pretrain import data_spec_of
from causalprune.config.pretrain import PretrainConfig
from causalprune.data.datasets import load_data

X = np.random.default_rng(0).integers(0, 20, (60, 5))
Y = np.arange(60) % 3


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def load(x, **spec):
        np.savez("arrays.npz", x=x, y=Y)
        return load_data(DataSpec(name="npz:arrays.npz", **spec))

    return load


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16, np.int32, np.int64, np.uint64])
def test_indices_stay_what_they_are(load, dtype):
    data = load(X.astype(dtype), integers="indices")
    assert (data.input_shape, data.normalization) == (Tokens((5,), 20), None)
    assert data.train.inputs.dtype == torch.int64
    assert load(X.astype(dtype)).fingerprint == load(X.astype(dtype), integers="quantities").fingerprint
    assert load(X.astype(dtype)).fingerprint == load(X.astype(np.float32)).fingerprint


@pytest.mark.parametrize(
    "x", [X.astype(np.uint8), X > 9, X / 2, np.repeat(X[:, :4].reshape(60, 1, 2, 2), 3, 1).astype(np.int64)]
)
def test_bytes_bools_floats_and_images_are_quantities(load, x):
    data = load(x, integers="indices")
    assert data.fingerprint == load(x).fingerprint
    assert data.normalization is not None


def test_a_network_of_ones_own_decides(load):
    def chosen(**options):
        return data_spec_of(PretrainConfig.of(**{"dataset": "npz:arrays.npz"} | options)).integers

    assert chosen(model="mine:net") == "indices"
    assert chosen(model="mine:net", integers="quantities") == "quantities"
    assert chosen(model="mine:net", dataset="mine:data") == "indices"
    for other in ({"model": "mlp"}, {}, {"model": "torchvision:resnet18"}):
        assert chosen(**other) == "auto"
    assert chosen(model="mine:net", dataset="digits") == chosen(model="mine:net", dataset="csv:t.csv") == "auto"


def test_what_cannot_be_looked_up_is_said_in_one_line(load):
    with pytest.raises(
        DataError, match=r"whole numbers from 0, .*; pass `integers=quantities` if they aren't looked up"
    ):
        load(X - 3, integers="indices")
    with pytest.raises(UsageError, match="`integers`: expected auto for digits, which isn't an array"):
        load_data(DataSpec(name="digits", integers="quantities"))
    with pytest.raises(UsageError, match="`integers`: expected one of auto, quantities, indices"):
        load(X, integers="both")
