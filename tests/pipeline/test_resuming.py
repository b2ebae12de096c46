"""The same commands give the same bytes, whether or not they were stopped or killed on the way."""

import random
import signal
import time

import pytest
from commands import QUICK, QUICK_RUN, artefact_hashes, call, finish, start

from causalprune.models.checkpoint import load_checkpoint

SMALL = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "8"]
RUN = [*QUICK_RUN, *SMALL, "--batch-size", "32", "--checkpoint-every", "7steps"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two iterations that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert call(*RUN, "--run", run, "--quiet") == 0
    return run


def test_masks_only_grow_over_the_iterations(whole):
    first, second = (load_checkpoint(whole / f"iteration-00{i}/pruned.safetensors").mask for i in (0, 1))
    assert first.num_kept > second.num_kept
    assert not (second.keep & ~first.keep).any()


def test_the_same_commands_give_the_same_bytes(tmp_path):
    runs = [tmp_path / name for name in ("one", "two")]
    for run in runs:
        for stage, options in QUICK.items():
            data = SMALL if stage == "pretrain" else []
            assert call(stage, *options, *data, "--run", run, "--quiet") == 0
    hashes = artefact_hashes(runs[0])
    assert len(hashes) > 10
    assert artefact_hashes(runs[1]) == hashes


def test_a_stopped_stage_resumes_to_the_same_bytes(tmp_path):
    command = ["pretrain", *SMALL, "--epochs", "300", "--checkpoint-every", "never"]
    stage = start(*command, cwd=tmp_path)
    while stage.poll() is None and "pretrain ·" not in stage.stderr.readline():
        pass
    stage.send_signal(signal.SIGUSR1)
    ended, error = finish(stage)
    if ended != 0:
        assert ended == 75, error
        assert error.strip().splitlines()[-1].endswith("run the same command again to resume")
    for run in (tmp_path / "run", tmp_path / "quiet"):
        assert call(*command, "--run", run, "--quiet") == 0
    resumed = (tmp_path / "run/pretrained.safetensors").read_bytes()
    assert resumed == (tmp_path / "quiet/pretrained.safetensors").read_bytes()


def test_a_killed_run_started_again_ends_with_the_same_bytes(whole, tmp_path):
    moments = random.Random(7)
    deaths = 0
    for _ in range(2):
        run = start(*RUN, cwd=tmp_path)
        # Most of the time goes into importing PyTorch.
        run.stderr.readline()
        time.sleep(moments.uniform(0, 1))
        deaths += run.poll() is None
        run.kill()
        run.communicate()
    assert deaths
    assert call(*RUN, "--run", tmp_path / "run", "--quiet") == 0
    assert artefact_hashes(tmp_path / "run") == artefact_hashes(whole)
