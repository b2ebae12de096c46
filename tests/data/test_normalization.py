"""Standardized in float64 and rounded after, where rounding before would show; in float32 elsewhere."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from causalprune.base.errors import DataError
from causalprune.data.normalization import stored, training_statistics

RNG = np.random.default_rng(0)
NORMAL = RNG.normal(size=(300, 1))


def standardized(values):
    """The truth: in extended precision."""
    values = values.astype(np.longdouble)
    return ((values - values.mean(0)) / values.std(0)).astype(np.float64)


@pytest.mark.parametrize(
    "values",
    [
        NORMAL,
        NORMAL + 100,
        NORMAL + 1.7e9,
        np.rint(30 * NORMAL).astype(np.int64) + 1_700_000_000,
        np.rint(3e10 * NORMAL).astype(np.int64) + 1_700_000_000 * 10**9,
        NORMAL * 1e-60,
        1e-9 * NORMAL + 0.1,
        1e30 * NORMAL + 1e33,
        np.c_[NORMAL, NORMAL + 1.7e9, 1e-20 * NORMAL],
        NORMAL.astype(np.float32) + np.float32(5e4),
    ],
)
def test_values_are_standardized_in_the_precision_that_they_come_in(values):
    tensor = stored(values, "x")
    found = training_statistics(tensor)(tensor)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), standardized(values), rtol=2e-5, atol=2e-5)


@given(offset=st.floats(-1e12, 1e12), scale=st.floats(1e-6, 1e6), seed=st.integers(0, 9))
def test_any_offset_and_scale(offset, scale, seed):
    values = np.random.default_rng(seed).normal(size=(40, 1)) * scale + offset
    # What float64 itself keeps of the values.
    kept = np.spacing(abs(offset) + scale) / scale
    assume(kept < 0.1)
    tensor = stored(values, "x")
    found = training_statistics(tensor)(tensor).double().numpy()
    np.testing.assert_allclose(found, standardized(values), rtol=0, atol=3e-5 + 2 * kept)


@pytest.mark.parametrize(
    "values", [NORMAL, 60 * NORMAL + 100, np.full((300, 1), 0.1), np.arange(600.0).reshape(300, 2)]
)
def test_float32_stays_where_it_is_enough(values):
    tensor = stored(values, "x")
    assert (tensor.dtype, training_statistics(tensor).mean.dtype) == (torch.float32, torch.float32)


@pytest.mark.parametrize("value", [0.1, 1e30, 1.7e9 + 0.3])
def test_a_constant_feature_becomes_zero(value):
    values = np.c_[np.full(300, value), NORMAL + 1.7e9]
    tensor = stored(values, "x")
    assert training_statistics(tensor)(tensor)[:, 0].abs().max() == 0


def test_each_channel_of_an_image_is_looked_at():
    images = RNG.normal(size=(20, 3, 4, 4))
    images[:, 2] += 1e9
    tensor = stored(images, "x")
    found = training_statistics(tensor)(tensor).double()
    assert tensor.dtype == torch.float64
    torch.testing.assert_close(found.std((0, 2, 3), correction=0), torch.ones(3).double(), rtol=1e-5, atol=0)


def test_the_training_data_decides_for_the_test_data():
    assert stored(NORMAL + 1.7e9, "x", torch.float32).dtype == torch.float32
    assert stored(NORMAL, "x", torch.float64).dtype == torch.float64


@pytest.mark.parametrize(("value", "words"), [(np.nan, "1 NaN and 0"), (np.inf, "0 NaN and 1"), (1e39, "0 NaN and 1")])
def test_what_float32_cannot_hold_is_refused(value, words):
    values = NORMAL.copy()
    values[7] = value
    with pytest.raises(DataError, match=f"x in d: .*{words}.*sample 7"):
        stored(values, "x in d")
