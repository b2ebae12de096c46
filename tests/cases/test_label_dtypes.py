"""Integer labels of every dtype are labels; the mnist.npz of Keras has uint8."""

import numpy as np
import pytest


@pytest.mark.parametrize("dtype", ["i8", "u8", "?", "u1", "i1", "i2", "u2", "i4", "u4", ">i8"])
def test_integers_of_any_dtype_are_labels(causalprune, folder, dtype):
    rng, y = np.random.default_rng(0), np.arange(200) % 2
    np.savez(folder / "labels.npz", x=rng.normal(size=(200, 8)) + y[:, None], y=y.astype(dtype))
    result = causalprune("pretrain", "--dataset", "npz:labels.npz", "--epochs", "1", "--quiet")
    assert result.code == 0, result.error
