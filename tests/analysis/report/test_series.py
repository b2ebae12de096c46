"""The phase shift of a table's rows, where classes are of different sizes; the overlap of masks."""

import numpy as np
import pytest

from causalprune.analysis.report.series import Series, jaccard, mean_jaccard


def rows(scores, guessing):
    return tuple(
        {
            "sparsity": s,
            "seed": 0,
            "criterion": "effect",
            "metric": "top1",
            "score": v,
            "dense": 0.95,
            "guessing": guessing,
        }
        for s, v in scores.items()
    )


def test_a_network_that_names_the_larger_class_has_lost_everything():
    """Its plateau isn't on the slope: half is lost between 90 and 95 %, in a step."""
    scores = {0.5: 0.95, 0.8: 0.95, 0.9: 0.9, 0.95: 0.62, 0.98: 0.62, 0.99: 0.62}
    fallen = Series("effect", rows(scores, 0.62)).phase_shift()
    assert 0.9 < fallen.sparsity < 0.95
    assert fallen.inside == 1
    mistaken = Series("effect", rows(scores, 0.5)).phase_shift()
    assert mistaken.inside == 4
    assert mistaken.width > 2 * fallen.width


def test_seeds_that_do_not_fall_are_told():
    good = rows({0.5: 0.95, 0.9: 0.94, 0.95: 0.93}, 0.1)
    assert Series("effect", good).phase_shift() == "beyond 95 %"


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
