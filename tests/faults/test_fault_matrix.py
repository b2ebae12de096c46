"""Any one write, rename or sync of any stage fails: nothing is damaged, and the same command ends with the same bytes.

Each at every change, and not only at some: ``-m slow``. Both print a table of how many cases were tried.
"""

import shutil

import pytest
from faulty_disk import FAULTS, STOPS
from stage_cases import STAGE_OPTIONS, artifacts, leftovers, require_whole

STAGES = list(STAGE_OPTIONS)


def require_survival(runner, stages, stage, fault, number, run):
    """Let change ``number`` of a stage fail; check what is left, and what the same command makes of it."""
    expected, changes = stages.expected(stage)
    stages.copy(stage, run)
    code, _, error = runner(*stages.command(stage, run), fault=fault, fail_at=number)
    case = f"{fault} at change {number} of {stage}, {changes[number - 1]}"
    if fault == "SIGKILL":
        assert code == -9, case
    elif fault in STOPS:
        # The result may just have been there.
        ends = [(130, 1)] if fault == "SIGINT" else [(75, 1), (76, 1)]
        assert (code, error.count("\n")) in (*ends, (0, 0)), f"{case}: {error}"
        assert code == 0 or f"stopped by {fault}" in error, f"{case}: {error}"
    else:
        # Cleaning up may fail without harm; everything else is the one error for the one disk.
        assert (code, error.count("\n")) in ((6, 1), (0, 0)), f"{case}: {error}"
        assert code == 0 or "run the same command again" in error, f"{case}: {error}"
    require_whole(run)
    code, _, error = runner(*stages.command(stage, run))
    assert (code, error) == (0, ""), f"{case}: {error}"
    assert artifacts(run) == expected, case
    assert leftovers(run) == [], case
    shutil.rmtree(run)


@pytest.mark.parametrize("stage", STAGES)
def test_no_change_is_made_past_the_faulty_disk(runner, stages, stage, tmp_path):
    run = stages.copy(stage, tmp_path / "run")
    code, past_it, error = runner(*stages.command(stage, run), watch=str(tmp_path))
    assert (code, error) == (0, "")
    assert past_it == []


@pytest.mark.parametrize("fault", ["EACCES", "EROFS", "EDQUOT"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_directory_that_may_not_be_written(runner, stages, stage, fault, tmp_path):
    """As for a user without permission; for root there is no such directory."""
    run = stages.copy(stage, tmp_path / "run")
    before = artifacts(run)
    code, _, error = runner(*stages.command(stage, run), fault=fault, fail_at=1)
    assert (code, error.count("\n")) == (6, 1)
    assert fault in error
    assert artifacts(run) == before


@pytest.mark.parametrize("stage", STAGES)
def test_some_changes_of_a_stage_fail(runner, stages, stage, tmp_path, record_property):
    _, changes = stages.expected(stage)
    for position, fault in enumerate(FAULTS):
        numbers = range(1 + 2 * position, len(changes) + 1, max(1, len(changes) // 5))
        record_property("cases", (stage, fault, len(numbers), len(changes)))
        for number in numbers:
            require_survival(runner, stages, stage, fault, number, tmp_path / "run")


@pytest.mark.parametrize("stage", STAGES)
def test_a_signal_at_some_changes_of_a_stage(runner, stages, stage, tmp_path):
    _, changes = stages.expected(stage)
    for position, stop in enumerate(STOPS, start=1):
        require_survival(runner, stages, stage, stop, max(1, position * len(changes) // 4), tmp_path / "run")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("stage", STAGES)
def test_a_signal_at_every_change_of_a_stage(runner, stages, stage, tmp_path):
    _, changes = stages.expected(stage)
    for number in range(1, len(changes) + 1):
        require_survival(runner, stages, stage, STOPS[number % len(STOPS)], number, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("stage", STAGES)
def test_every_change_of_a_stage_fails(runner, stages, stage, fault, tmp_path, record_property):
    _, changes = stages.expected(stage)
    record_property("cases", (stage, fault, len(changes), len(changes)))
    for number in range(1, len(changes) + 1):
        require_survival(runner, stages, stage, fault, number, tmp_path / "run")
