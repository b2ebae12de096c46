"""On L = Σ c_k θ_k² setting θ_k to zero changes the loss by −c_k θ_k², so γ_k = −c_k predicts it exactly."""

import numpy as np
import pytest
import torch
from torch import nn

from causalprune.analysis.diagnosis.interventions import FEWEST, compare, zeroed_loss_changes
from causalprune.data.tasks.classification import Classification
from causalprune.data.tasks.regression import Regression
from causalprune.models.parameters import ParameterIndex

COEFFICIENTS = np.array([0.1, 0.5, 2.0, 1e-9, 3.0, 0.7, 1.1, 0.2, 5.0, 0.04])
SETS = [np.array([k]) for k in range(10)] + [np.array([0, 4, 9]), np.array([2, 5])]


def quadratic():
    """A linear layer whose squared error on diagonal inputs is Σ c_k θ_k²."""
    torch.manual_seed(0)
    model = nn.Linear(10, 1, bias=False)
    inputs = torch.diag(torch.from_numpy(np.sqrt(10 * COEFFICIENTS)))
    return model, [(inputs[:6], torch.zeros(6, 1)), (inputs[6:], torch.zeros(4, 1))]


def test_the_prediction_is_exact_on_a_quadratic_and_the_model_stays_as_it_is():
    model, samples = quadratic()
    before = model.weight.detach().clone()
    theta = before.double().numpy().ravel()
    seen = []
    actual = zeroed_loss_changes(
        model, ParameterIndex.from_model(model), Regression(), samples, SETS, notify=lambda: seen.append(1)
    )
    predicted = np.array([(-COEFFICIENTS * theta**2)[s].sum() for s in SETS])
    np.testing.assert_allclose(actual, predicted, rtol=1e-7, atol=1e-14)
    assert len(seen) == len(SETS)
    assert torch.equal(model.weight, before)
    assert model.weight.dtype == torch.float32
    found = compare(actual, {"fit": predicted, "reverse": -predicted})
    assert found["predictors"]["fit"]["spearman"] == pytest.approx(1)
    assert found["predictors"]["fit"]["pearson"] == pytest.approx(1)
    assert found["predictors"]["reverse"]["spearman"] == pytest.approx(-1)


def test_a_group_may_span_layers_and_dropout_is_off():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 2))
    index = ParameterIndex.from_model(model)
    samples = [(torch.randn(16, 3), torch.randint(2, (16,)))]
    everything = np.arange(index.total)
    (change,) = zeroed_loss_changes(model, index, Classification(), samples, [everything])
    assert model.training
    model.eval().double()
    x, y = samples[0][0].double(), samples[0][1]
    loss = nn.CrossEntropyLoss()
    expected = loss(model[3].bias.expand(16, 2), y) - loss(model(x), y)
    assert change == pytest.approx(expected.item(), rel=1e-10)


def test_too_few_or_constant_interventions_have_no_correlation():
    few = np.arange(FEWEST - 1.0)
    assert compare(few, {"fit": few})["predictors"]["fit"]["spearman"] is None
    many = np.arange(FEWEST * 1.0)
    assert compare(many, {"fit": np.zeros(FEWEST)})["predictors"]["fit"]["spearman"] is None
    assert compare(np.empty(0), {"fit": np.empty(0)})["mean_actual"] is None
