import numpy as np
import pytest

from causalprune.analysis.diagnosis.agreement import agreement, stability


def ranking(columns=1000, nonzero=50, seed=0):
    """|γ| and dual correlations as a Lasso gives them: 1 where γ isn't 0."""
    rng = np.random.default_rng(seed)
    gamma, dual = np.zeros(columns), rng.uniform(0, 0.99, columns)
    chosen = rng.choice(columns, nonzero, replace=False)
    gamma[chosen], dual[chosen] = rng.uniform(0.1, 1, nonzero), 1.0
    return gamma, dual


def test_equal_fits_agree_wholly():
    found = agreement(ranking(), ranking())
    assert found["spearman_gamma"] == pytest.approx(1)
    assert found["spearman_dual"] == pytest.approx(1)
    assert [o["k"] for o in found["overlaps"]] == [50, 10, 100, 500]
    assert all(o["share"] == 1 and o["p_value"] < 1e-9 for o in found["overlaps"])


def test_independent_fits_agree_by_chance():
    pairs = [agreement(ranking(seed=s), ranking(seed=100 + s)) for s in range(200)]
    assert abs(np.mean([p["spearman_dual"] for p in pairs])) < 0.02
    for place, chance in enumerate([0.05, 0.01, 0.1, 0.5]):
        overlaps = [p["overlaps"][place] for p in pairs]
        assert overlaps[0]["chance"] == chance
        assert np.mean([o["share"] for o in overlaps]) == pytest.approx(chance, abs=0.01)
        assert np.mean([o["p_value"] <= 0.05 for o in overlaps]) <= 0.1


def test_no_nonzero_gamma_leaves_the_dual_ranking():
    zero = (np.zeros(100), np.linspace(0, 0.9, 100))
    found = agreement(zero, zero)
    assert found["spearman_gamma"] is None
    assert [o["name"] for o in found["overlaps"]] == ["top 1%", "top 10%", "top 50%"]


def test_stability_counts_columns():
    probability = np.float32([0, 0.05, 0.1, 0.5, 0.9, 1.0])
    found = stability(probability, np.array([0, 0, 0, 1.0, 1.0, 0]))
    assert found["thresholds"] == [0.1, 0.25, 0.5, 0.75, 0.9, 1.0]
    assert found["columns"] == [4, 3, 3, 2, 2, 1]
    assert found["selected"] == [2, 2, 2, 1, 1, 0]
    assert (found["nonzero"], found["ever"]) == (2, 5)
    assert found["mean_selected"] == pytest.approx(2.55)
