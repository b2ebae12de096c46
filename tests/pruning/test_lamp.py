"""``lamp`` against its definition, written out weight by weight."""

import numpy as np
import pytest

from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterEntry, ParameterIndex
from causalprune.pruning.criteria import load_criterion
from causalprune.pruning.criterion import CriterionInputs
from causalprune.pruning.lamp import lamp_scores
from causalprune.pruning.selection import select

INDEX = ParameterIndex((ParameterEntry("first", (4, 5), 0), ParameterEntry("second", (30,), 20)))


def definition(weights):
    """Lee et al., section 2: number the weights so that |W[u]| ≤ |W[v]| for u < v; W[u]²/Σ_{v ≥ u} W[v]²."""
    order = sorted(range(len(weights)), key=lambda position: abs(weights[position]))
    scores = [0.0] * len(weights)
    for u, position in enumerate(order):
        rest = sum(weights[order[v]] ** 2 for v in range(u, len(order)))
        scores[position] = weights[position] ** 2 / rest if rest else 0.0
    return scores


def score(theta, keep=None):
    mask = Mask.all(INDEX) if keep is None else Mask.from_numpy(INDEX, keep)
    return load_criterion("lamp").score(CriterionInputs(theta=theta, mask=mask))


@pytest.mark.parametrize("kept", [1.0, 0.6])
def test_the_scores_are_those_of_the_definition(kept):
    rng = np.random.default_rng(0)
    theta, keep = rng.normal(size=50).astype(np.float32), rng.random(50) < kept
    found = score(theta, keep).primary
    for part in (slice(0, 20), slice(20, 50)):
        weights = theta[part][keep[part]].astype(float)
        np.testing.assert_allclose(found[part][keep[part]], definition(weights.tolist()), rtol=1e-12)
    assert not found[~keep].any()


def test_equal_weights_and_zeros():
    values = [0.0, 2.0, -1.0, 1.0, 2.0, 0.0]
    np.testing.assert_allclose(lamp_scores(np.square(values)), definition(values), rtol=1e-15)
    assert lamp_scores(np.zeros(3)).tolist() == [0, 0, 0]
    assert lamp_scores(np.zeros(0)).tolist() == []


def test_no_scale_of_a_layer_matters_and_none_is_emptied():
    """The second layer's weights are a millionth: magnitude would empty it, LAMP prunes the same weights as before."""
    rng = np.random.default_rng(1)
    theta = rng.normal(size=50)
    small = np.where(np.arange(50) < 20, theta, theta * 2.0**-20)
    masks = [select(score(t), Mask.all(INDEX), sparsity=0.9) for t in (theta, small)]
    assert np.array_equal(masks[0].mask.numpy(), masks[1].mask.numpy())
    assert masks[0].guarded == ()
    magnitude = load_criterion("magnitude").score(CriterionInputs(theta=small))
    assert select(magnitude, Mask.all(INDEX), sparsity=0.9).guarded == ("second",)


@pytest.mark.parametrize("sparsity", [0.3, 0.8, 0.95])
def test_it_is_magnitude_with_its_own_shares_of_the_layers(sparsity):
    theta = np.random.default_rng(2).normal(size=50) * np.where(np.arange(50) < 20, 1, 0.1)
    mask = Mask.all(INDEX)
    magnitude = load_criterion("magnitude").score(CriterionInputs(theta=theta))
    shares = select(magnitude, mask, sparsity=sparsity, scope="lamp", theta=theta).mask.numpy()
    assert np.array_equal(select(score(theta), mask, sparsity=sparsity).mask.numpy(), shares)
