"""Schedules: the authors' published sequence, and the properties that name each."""

import itertools
import math

import pytest

from causalprune.base.errors import UsageError
from causalprune.pruning.names import SPARSITY_SCHEDULES
from causalprune.pruning.schedule import target_sparsity


def test_the_authors_cubic_sequence() -> None:
    # Printed by them with four digits, cut off; here from exact integers.
    published = [0.0947, 0.1832]
    sequence = [target_sparsity("cubic", i, 30, 0.98) for i in range(1, 31)]
    assert [math.floor(s * 1e4) / 1e4 for s in sequence[:2]] == published
    for i, value in enumerate(sequence, start=1):
        assert value == pytest.approx(98 * (30**3 - (30 - i) ** 3) / (100 * 30**3), rel=1e-14)


def test_geometric_removes_the_same_share_each_time() -> None:
    kept = [1.0] + [1 - target_sparsity("geometric", i, 7, 0.95) for i in range(1, 8)]
    shares = [after / before for before, after in itertools.pairwise(kept)]
    assert shares == pytest.approx([0.05 ** (1 / 7)] * 7)


@pytest.mark.parametrize("schedule", SPARSITY_SCHEDULES)
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.3, 0.9, 0.98, 0.995])
def test_every_schedule_rises_and_ends_exactly_at_the_target(schedule: str, sparsity: float) -> None:
    for n in (1, 2, 3, 10, 30):
        sequence = [target_sparsity(schedule, i, n, sparsity) for i in range(1, n + 1)]
        assert sequence == sorted(sequence)
        assert sequence[-1] == sparsity
        assert all(0 <= value <= sparsity for value in sequence)


def test_one_shot_is_there_at_once() -> None:
    assert target_sparsity("one-shot", 1, 5, 0.9) == 0.9


@pytest.mark.parametrize(
    ("schedule", "i", "n", "sparsity"),
    [
        ("linear", 1, 1, 0.5),
        ("cubic", 0, 1, 0.5),
        ("cubic", 3, 2, 0.5),
        ("cubic", 1, 0, 0.5),
        ("cubic", 1, 1, 1.0),
        ("cubic", 1, 1, -0.1),
        ("cubic", 1, 1, math.nan),
    ],
)
def test_bad_input(schedule: str, i: int, n: int, sparsity: float) -> None:
    with pytest.raises(UsageError):
        target_sparsity(schedule, i, n, sparsity)
