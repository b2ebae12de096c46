"""Logs of stages that are killed: no step is missing, and none is there twice."""

import pytest
from stage_cases import artifacts

LOGGED = ("pretrain", "record", "posttrain")


def scalars(folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    return {tag: [(one.step, one.value) for one in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


@pytest.mark.parametrize("stage", LOGGED)
def test_a_log_is_the_same_however_often_its_stage_was_killed(runner, stages, tmp_path, stage):
    plain, _ = stages.expected(stage)
    whole, killed = (stages.copy(stage, tmp_path / name) for name in ("whole", "killed"))
    code, changes, error = runner(*stages.command(stage, whole), "--log", "csv")
    assert code == 0, error
    expected = artifacts(whole)
    logs = {name for name in expected if "logs/" in name}
    assert {name.rpartition("/")[2] for name in logs} >= {"steps.csv", "layers.csv"}
    # The log is all that is new.
    assert {name: content for name, content in expected.items() if name not in logs} == plain
    # Killed early, killed again later, and left alone.
    command = [*stages.command(stage, killed), "--log", "csv"]
    codes = [runner(*command, fault="SIGKILL", fail_at=round(share * len(changes)))[0] for share in (0.5, 0.3)]
    assert codes == [-9, -9]
    assert runner(*command)[0] == 0
    assert artifacts(killed) == expected


@pytest.mark.parametrize("number", [20, 30, 40])
def test_tensorboard_shows_each_step_once(runner, stages, tmp_path, number):
    pytest.importorskip("tensorboard")
    whole, killed = (stages.copy("pretrain", tmp_path / name) for name in ("whole", "killed"))
    assert runner(*stages.command("pretrain", whole), "--log", "tensorboard")[0] == 0
    command = [*stages.command("pretrain", killed), "--log", "tensorboard"]
    assert runner(*command, fault="SIGKILL", fail_at=number)[0] == -9
    assert runner(*command)[0] == 0
    assert scalars(killed / "logs/pretrained") == scalars(whole / "logs/pretrained")


def test_a_full_disk_ends_the_stage_and_the_log_goes_on_behind_it(runner, stages, tmp_path):
    whole, full = (stages.copy("pretrain", tmp_path / name) for name in ("whole", "full"))
    assert runner(*stages.command("pretrain", whole), "--log", "csv")[0] == 0
    command = [*stages.command("pretrain", full), "--log", "csv"]
    code, _, error = runner(*command, fault="ENOSPC", fail_at=30)
    assert code not in (0, -9)
    assert error.count("\n") == 1
    assert runner(*command)[0] == 0
    assert artifacts(full) == artifacts(whole)
