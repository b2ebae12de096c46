import numpy as np
import pytest

from causalprune.analysis.report.phase import WIDTH_FACTOR, Drop, decades, find_drop, phase_shift, sparsities_to_add

SPARSITY = [0.5, 0.7, 0.8, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999]


def logistic(sparsity, position, scale, ceiling, floor):
    x = -np.log10(1 - np.asarray(sparsity))
    return floor + (ceiling - floor) / (1 + np.exp((x - position) / scale))


@pytest.mark.parametrize("position", [0.7, 1.2, 1.9])
@pytest.mark.parametrize("scale", [0.05, 0.2])
def test_a_logistic_is_recovered(position, scale):
    drop = find_drop(SPARSITY, logistic(SPARSITY, position, scale, 0.97, 0.1), ceiling=0.97, floor=0.1)
    assert drop.position == pytest.approx(position, abs=1e-4)
    assert drop.width == pytest.approx(WIDTH_FACTOR * scale, rel=1e-3)


def test_the_width_is_from_nine_tenths_to_one_tenth():
    x = np.linspace(0, 3, 3001)
    height = logistic(1 - 10**-x, 1.5, 0.13, 1, 0)
    measured = x[np.flatnonzero(height > 0.1)[-1]] - x[np.flatnonzero(height < 0.9)[0]]
    assert pytest.approx(measured, abs=3e-3) == WIDTH_FACTOR * 0.13


def test_the_order_of_the_samples_and_a_score_below_guessing_make_no_difference():
    score = logistic(SPARSITY, 1.2, 0.05, 0.9, 0)
    low = np.where(score < 1e-3, -5.0, score)
    order = np.random.default_rng(0).permutation(len(SPARSITY))
    one = find_drop(SPARSITY, score, ceiling=0.9, floor=0)
    other = find_drop(list(np.array(SPARSITY)[order]), list(low[order]), ceiling=0.9, floor=0)
    assert other.position == pytest.approx(one.position, abs=1e-3)


def test_a_step_between_two_samples_lies_between_them():
    drop = find_drop([0.5, 0.9, 0.99, 0.999], [1, 1, 0, 0], ceiling=1, floor=0)
    assert 1 <= drop.position <= 2
    assert drop.width < 1
    assert drop.inside == 0


def test_samples_far_apart():
    drop = find_drop([0, 0.999, 0.999999], [0.9, 0.9, 0.1], ceiling=0.9, floor=0.1)
    assert 3 < drop.position < 6


@pytest.mark.parametrize(
    ("score", "says"),
    [
        ([0.9, 0.9, 0.8], "beyond 99 %"),
        ([0.2, 0.1, 0.1], "below 50 %"),
        ([0.9, 0.1], "fewer than three"),
        ([0.9, 0.9, 0.9], "beyond 99 %"),
        ([0.1, 0.1, 0.1], "guessing"),
    ],
)
def test_a_drop_that_was_not_sampled_is_not_made_up(score, says):
    ceiling = 0.1 if "guessing" in says else 0.9
    assert says in find_drop([0.5, 0.9, 0.99][: len(score)], score, ceiling=ceiling, floor=0.1)


def test_the_spread_is_over_the_seeds():
    shift = phase_shift([Drop(1.0, 0.5, 3), Drop(1.2, 0.7, 2)])
    assert shift.sparsity == pytest.approx(1 - 10**-1.1)
    deviation = np.std([1.0, 1.2], ddof=1)
    assert decades([shift.low, shift.high]) == pytest.approx([1.1 - deviation, 1.1 + deviation])
    assert (shift.width_spread, shift.inside, shift.seeds) == (pytest.approx(np.std([0.5, 0.7], ddof=1)), 2, 2)
    assert (shift.curves, shift.undetermined) == (2, "")
    alone = phase_shift([Drop(1.0, 0.5, 3)])
    assert (alone.low, alone.high, alone.width_spread) == (None, None, None)


def test_a_range_of_sparsities_begins_at_none():
    """0.05 and 0.8 decades: one deviation below the mean lies 10^0.1 times all weights."""
    shift = phase_shift([Drop(0.05, 0.5, 3), Drop(0.8, 0.5, 3)])
    assert shift.low == 0.0
    assert shift.sparsity < shift.high < 0.9


def test_seeds_without_a_drop_leave_the_others():
    shift = phase_shift([Drop(1.0, 0.5, 3), "beyond 99 %", Drop(1.2, 0.7, 2)])
    whole = phase_shift([Drop(1.0, 0.5, 3), Drop(1.2, 0.7, 2)])
    assert (shift.sparsity, shift.low, shift.high, shift.width) == (whole.sparsity, whole.low, whole.high, whole.width)
    assert (shift.seeds, shift.curves, shift.undetermined) == (2, 3, "beyond 99 % in 1 of 3 seeds")
    assert phase_shift(["beyond 99 %", "beyond 99 %"]) == "beyond 99 %"
    assert phase_shift(["beyond 99 %", "below 50 %"]) == "beyond 99 % in 1 of 2 seeds, below 50 % in 1 of 2 seeds"


@pytest.mark.parametrize(
    ("sparsities", "reason", "expected"),
    [
        ([0.5, 0.8], "beyond 80 %", [0.9, 0.95, 0.975]),
        ([0.5, 0.8], "fewer than three sparsities", [0.9, 0.95, 0.975]),
        ([0.4, 0.8], "below 40 %", [0.1, 0.2, 0.3]),
        ([0.4, 0.8], "below 40 % in 1 of 2 seeds, beyond 80 % in 1 of 2 seeds", [0.1, 0.2, 0.3, 0.9, 0.95, 0.975]),
        ([0.0, 0.5], "below 0 %", []),
        ([0.5, 0.8], "no better than guessing", []),
    ],
)
def test_sparsities_that_would_show_a_drop(sparsities, reason, expected):
    assert sparsities_to_add(sparsities, reason) == pytest.approx(expected)
