"""The phase shift of a table's rows, where classes are of different sizes."""

from causalprune.analysis.report.series import Series


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
