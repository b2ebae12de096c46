"""A regression of several quantities against scikit-learn's metrics."""

import numpy as np
import pytest
import torch
from sklearn import metrics as reference
from torch import nn

from causalprune.base.errors import DataError
from causalprune.data.tasks.regression import Regression


def quantities():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(50, 3)) * [1, 10, 1000] + [5, -3, 1e4]
    return truth, truth + rng.normal(size=(50, 3)) * [0.5, 9, 2000]


def test_metrics_are_those_of_scikit_learn_in_original_units():
    truth, said = quantities()
    task = Regression().fitted(torch.from_numpy(truth), "d")
    standardize = task.target_normalization
    pairs = [standardize(torch.from_numpy(each)) for each in (said, truth)]
    found = task.metrics(nn.Identity(), list(zip(*(each.split(20) for each in pairs), strict=True)))
    assert found["r2"] == pytest.approx(reference.r2_score(truth, said), rel=1e-4)
    assert found["per_output"] == pytest.approx(reference.r2_score(truth, said, multioutput="raw_values"), rel=1e-4)
    assert found["mse"] == pytest.approx(reference.mean_squared_error(truth, said), rel=1e-4)
    assert found["mae"] == pytest.approx(reference.mean_absolute_error(truth, said), rel=1e-4)
    scales = truth.std(0)
    assert found["loss"] == pytest.approx(np.mean(((said - truth) / scales) ** 2), rel=1e-4)
    torch.testing.assert_close(task.loss(nn.Identity(), tuple(pairs)).item(), found["loss"], rtol=1e-5, atol=0)


def test_an_output_that_never_varies_is_named():
    targets = torch.randn(20, 3)
    targets[:, 1] = 4
    with pytest.raises(DataError, match="output 1: expected values that vary, found only 4"):
        Regression().fitted(targets, "d")
