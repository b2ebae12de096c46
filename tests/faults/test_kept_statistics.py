"""A recording that was asked for statistics of its layers is never finished without them, nor with half of them."""

import pytest
from stage_cases import artifacts, leftovers, require_whole

from causalprune.trajectory import Store

FAULTS = ("SIGKILL", "ENOSPC", "SIGTERM")


@pytest.mark.parametrize("every", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_a_fault_at_any_change_while_they_are_written(runner, stages, tmp_path, every):
    def command(run):
        return (*stages.command("record", run), "--layer-statistics", "--samples", "40")

    whole = stages.copy("record", tmp_path / "whole")
    code, changes, error = runner(*command(whole))
    assert (code, error) == (0, "")
    expected = artifacts(whole)
    assert any("layer_statistics" in name for name in expected)
    _, without = stages.expected("record")
    # They are written between the rows and the checkpoint: from where the changes differ, as many as there are more.
    first = next(number for number, pair in enumerate(zip(changes, without, strict=False)) if len(set(pair)) > 1)
    tried = range(max(1, first - 2), first + len(changes) - len(without) + 6)
    assert len(tried) > 25
    for position, number in enumerate(tried[::every]):
        fault = FAULTS[position % 3]
        run = stages.copy("record", tmp_path / f"{number}")
        code, _, _ = runner(*command(run), fault=fault, fail_at=number)
        require_whole(run)
        if (run / "trajectory.zarr").exists():
            reader = Store.open(run / "trajectory.zarr").recording()
            assert not reader.finished or reader.read_layer_statistics() is not None
        code, _, error = runner(*command(run))
        assert (code, error) == (0, ""), (fault, number)
        assert artifacts(run) == expected, (fault, number)
        assert leftovers(run) == [], (fault, number)
