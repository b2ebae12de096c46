"""Where images have their channels; and what a factory may return."""

import sys
import types

import numpy as np
import pytest
import torch

from causalprune.base.errors import DataError, UsageError
from causalprune.base.specs import DataSpec
from causalprune.data.datasets import load_data
from causalprune.data.sources.arrays import read_arrays

Y = np.arange(20) % 2


def read(x, y=Y, **options):
    return read_arrays({"x": x, "y": y}, "d", **options)


@pytest.mark.parametrize(
    ("shape", "channels"),
    [
        # One of the two axes is as short as channels are.
        ((3, 32, 32), "first"),
        ((32, 32, 3), "last"),
        ((32, 5, 1), "last"),
        ((4, 32, 5), "first"),
        ((64, 8, 2), "last"),
        # Feature maps and spectra: one reading is a square.
        ((64, 8, 8), "first"),
        ((64, 64, 10), "last"),
        ((10, 64, 64), "first"),
        # Neither: PyTorch's order.
        ((3, 4, 4), "first"),
        ((7, 8, 9), "first"),
        ((6, 6, 6), "first"),
    ],
)
def test_the_axis_of_the_channels_is_decided_by_the_rule_and_said(shape, channels):
    x = np.random.default_rng(0).integers(0, 256, (20, *shape), np.uint8)
    found = read(x)
    expected = x if channels == "first" else x.transpose(0, 3, 1, 2)
    assert np.array_equal(found.train.inputs, expected)
    (note,) = found.notes
    assert f"({channels})" in note
    assert "`channels=" in note


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int16])
def test_the_option_decides_otherwise_and_then_nothing_is_said(dtype):
    x = np.random.default_rng(0).integers(0, 256, (20, 3, 32, 32)).astype(dtype)
    found = read(x, channels="last")
    assert np.array_equal(found.train.inputs, x.transpose(0, 3, 1, 2))
    assert not found.notes
    assert np.array_equal(read(x.transpose(0, 2, 3, 1), channels="first").train.inputs, x.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("shape", [(20, 5), (20, 8, 8)])
def test_what_has_no_channels_has_no_axis_of_them(shape):
    with pytest.raises(UsageError, match="`channels`: expected auto"):
        read(np.ones(shape), channels="last")


def test_the_test_images_follow_the_training_images():
    x = np.zeros((20, 8, 8, 3), np.uint8)
    found = read_arrays({"x_train": x, "y_train": Y, "x_test": x[:4], "y_test": Y[:4]}, "d")
    assert found.test.inputs.shape == (4, 3, 8, 8)
    for other in (x[:4].astype(float), x[:4, :7], x[:4].transpose(0, 3, 1, 2)):
        with pytest.raises(DataError, match="expected x_test like x_train"):
            read_arrays({"x_train": x, "y_train": Y, "x_test": other, "y_test": Y[:4]}, "d")


@pytest.mark.parametrize("tested", [np.int8, np.float32, np.float64, np.uint64, bool])
def test_features_are_floats_whatever_they_come_as(tested):
    x = np.arange(40).reshape(20, 2) % 2
    found = read_arrays({"x_train": x + 0.5, "y_train": Y, "x_test": x.astype(tested), "y_test": Y}, "d")
    assert found.test.inputs.dtype == torch.float32
    assert found.test.inputs.tolist() == x.tolist()


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_validation_split_is_used_as_it_is(name, tmp_path):
    x = np.arange(60.0).reshape(30, 2)
    arrays = {f"x_{name}": x[:6], f"y_{name}": Y[:6], "x_train": x[6:20], "y_train": Y[6:]}
    found = read_arrays(arrays, "d")
    assert (found.test.inputs.tolist(), found.validation) == (x[:6].tolist(), None)
    assert f"x_{name} in d: is the test split" in found.notes
    np.savez(tmp_path / "d.npz", **arrays, x_test=x[20:], y_test=Y[:10])
    data = load_data(DataSpec(name=f"npz:{tmp_path}/d.npz"))
    assert [split.inputs.tolist() for split in (data.train, data.validation, data.test)] == [
        x[6:20].tolist(),
        x[:6].tolist(),
        x[20:].tolist(),
    ]
    assert "is the validation split" in data.notes[0]
    with pytest.raises(DataError, match="expected the arrays"):
        read_arrays({"x_train": x, f"x_{name}": x, f"y_{name}": Y}, "d")


def test_tensors_lists_and_objects():
    x = torch.randn(20, 2)
    expected = read(x.numpy()).fingerprint
    assert read(x.tolist(), Y.tolist()).fingerprint == expected
    assert read(x.requires_grad_(), torch.from_numpy(Y)).fingerprint == expected
    assert read(x.detach().numpy().astype(object), Y.astype(object)).fingerprint == expected
    assert read(x.bfloat16()).train.inputs.equal(x.bfloat16().float())
    assert read(x, np.array(["a", "b"], object)[Y]).class_names == ("a", "b")
    with pytest.raises(DataError, match="dtype object"):
        read(x, [None, *map(str, Y[1:])])


def test_a_factory_gets_the_options(monkeypatch):
    module = types.ModuleType("images_of_a_user")
    module.make = lambda: {"x": np.zeros((20, 3, 8, 8)), "y": Y}
    monkeypatch.setitem(sys.modules, "images_of_a_user", module)
    data = load_data(DataSpec(name="images_of_a_user:make", channels="last", task="regression"))
    assert (data.input_shape, data.task.name, data.notes) == ((8, 3, 8), "regression", ())
