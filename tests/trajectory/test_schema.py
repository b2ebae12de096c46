import pytest

from causalprune.trajectory.schema import BlockShape


@pytest.mark.parametrize(
    ("columns", "rows", "expected"),
    # The study of the layout recommends 64, 4 and 2 rows for 648k, 10.5M and 25M parameters.
    [
        (648_000, 5000, (64, 8192)),
        (2_000_000, 5000, (32, 16384)),
        (4_000_000, 5000, (16, 16384)),
        (10_500_000, 5000, (4, 65536)),
        (25_000_000, 5000, (2, 65536)),
    ],
)
def test_the_rule_for_blocks(columns, rows, expected):
    shape = BlockShape.choose(columns, rows)
    assert (shape.rows, shape.width) == expected


def test_blocks_of_short_and_of_enormous_recordings():
    assert BlockShape.choose(1000, 5).rows == 8
    assert BlockShape.choose(1000, 1).rows == 1
    assert BlockShape.choose(2**33, 5).rows == 1
    assert BlockShape.choose(5, 100).width == 5
