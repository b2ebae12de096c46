import numpy as np
import pytest

from causalprune.analysis.report.series import jaccard, mean_jaccard


def mask(*kept, total=10):
    return np.isin(np.arange(total), kept)


def test_jaccard_counts():
    assert jaccard(mask(1, 2, 3), mask(2, 3, 4, 5)) == 2 / 5
    assert jaccard(mask(1), mask(2)) == 0
    assert jaccard(mask(), mask()) == 1


def test_it_agrees_with_scikit_learn_and_with_chance():
    from sklearn.metrics import jaccard_score

    random = np.random.default_rng(0)
    first, second = random.random((2, 200_000)) < 0.1
    assert jaccard(first, second) == pytest.approx(jaccard_score(first, second))
    assert jaccard(first, second) == pytest.approx(0.1 / 1.9, abs=0.003)


def test_the_mean_is_over_seeds():
    table = mean_jaccard([[mask(1), mask(1, 2)], [mask(1), mask(3)]])
    assert table.tolist() == [[1, 0.5], [0.5, 1]]
