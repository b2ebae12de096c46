"""What fit-gamma says of resamples of the steps."""

import errno
import os
import signal
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from commands import call, call_json

from causalprune.base import files
from causalprune.base.files import Disk
from causalprune.base.progress import Bar, Reporter
from causalprune.base.signals import InterruptedStage
from causalprune.commands.record.command import record
from causalprune.config.record import RecordConfig
from causalprune.solver.recording.regression import Regression
from causalprune.trajectory import Store

TINY = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = tmp_path_factory.mktemp("fit") / "run"
    assert call("pretrain", *TINY, "--epochs", "1", "--run", run, "-q") == 0
    assert call("record", "--steps", "12", "--run", run, "-q") == 0
    return run


def test_resamples_are_told_in_words_and_numbers(run, capsys):
    fit = ["fit-gamma", "--bootstrap", "20", "--name", "stability", "--run", run]
    found = call_json(capsys, *fit)["metrics"]["selection"]
    # Counted anew from what is stored.
    arrays = Store.open(run / "trajectory.zarr").recording().read_fit("stability").arrays
    selected = arrays["selection_probability"][0][arrays["gamma"][0] != 0]
    assert found["nonzero"] == len(selected) > 0
    half, most = (int(np.sum(selected >= share - 1e-6)) for share in (0.5, 0.9))
    expected = f"of {len(selected)} selected, {half} are in at least half of 20 resamples of the steps, {most} in 90 %"
    assert found["finding"].startswith(expected)
    # So does the fit that is there already, for people.
    capsys.readouterr()
    assert call(*fit, "-q") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert found["finding"] in text
    thresholds = dict(zip(found["thresholds"], found["selected"], strict=True))
    assert (thresholds[0.5], thresholds[0.9]) == (half, most)
    assert "selection probability ≥ 0.1 ≥ 0.25 ≥ 0.5 ≥ 0.75 ≥ 0.9 ≥ 1" in text
    assert f"of {len(selected)} with γ ≠ 0 {' '.join(map(str, found['selected']))}" in text


class ReadOnly(Disk):
    """A disk on which nothing below a folder can be made; root may write anywhere else."""

    def __init__(self, folder):
        self.folder = folder

    def open(self, path, flags, mode=0o777):
        if Path(path).is_relative_to(self.folder) and flags & os.O_CREAT:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return os.open(path, flags, mode)


@pytest.mark.parametrize("place", ["results", "trajectory.zarr"])
def test_where_it_cannot_write_it_says_so_before_it_works(run, capsys, monkeypatch, place):
    def solve(*_):
        raise AssertionError("it has worked in vain")

    monkeypatch.setattr(Regression, "solve", solve)
    if place == "results":
        with files.use(ReadOnly(run / place)):
            assert call("fit-gamma", "--name", place, "--run", run, "-q") == 6
    else:
        # The library that locks opens files itself.
        def refuse(*_, **__):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        monkeypatch.setattr("causalprune.base.locks.KernelLock.acquire", refuse)
        assert call("fit-gamma", "--name", place, "--run", run, "-q") == 6
    error = capsys.readouterr().err
    assert "EROFS" in error
    assert place in error
    assert error.count("\n") == 1


def test_a_stop_with_nothing_saved_is_told_from_one_that_resumes(run, tmp_path, capsys, monkeypatch):
    """A job that is queued again on 75 comes to its end; on 76 it might never."""

    def stopped(*_):
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(30)

    whole = ["run", *TINY, "--iterations", "1", "--pretrain-epochs", "1", "--train-epochs", "0", "--record-epochs", "1"]
    whole += ["--posttrain-epochs", "0", "--run", tmp_path / "run", "-q"]
    with monkeypatch.context() as patched:
        patched.setattr(Regression, "solve", stopped)
        assert call("fit-gamma", "--name", "stopped", "--run", run, "-q") == 76
        (line,) = capsys.readouterr().err.splitlines()
        said = "stopped by SIGUSR1 with nothing saved since the start"
        assert line == f"causalprune: {said}; run the same command again to start over"
        # The stages before it were finished, but the second time they had been before.
        for code, saved in ((75, ", what was done before is saved"), (76, " with nothing saved since the start")):
            assert call(*whole) == code
            (line,) = capsys.readouterr().err.splitlines()
            assert f"stopped by SIGUSR1{saved} (prune 1/1 · fit-gamma); run the same command again" in line
    assert call(*whole) == 0


def test_without_resamples_there_is_nothing_to_tell(run, capsys):
    assert call_json(capsys, "fit-gamma", "--run", run)["metrics"]["selection"] is None
    assert call("fit-gamma", "--run", run, "-q") == 0
    assert "selection" not in capsys.readouterr().out


class Terminated(Reporter):
    """Ends a stage by SIGTERM at the sixth step."""

    @contextmanager
    def task(self, description, total):
        bar, steps = Bar(), []
        bar.advance = lambda count: steps.append(count) or (len(steps) == 6 and os.kill(os.getpid(), signal.SIGTERM))
        yield bar


def test_a_fit_of_an_unfinished_recording_is_not_taken_for_one_of_all_rows(tmp_path, capsys):
    run = tmp_path / "run"
    assert call("pretrain", *TINY, "--epochs", "1", "--run", run, "-q") == 0
    with pytest.raises(InterruptedStage):
        record(RecordConfig(run=run, steps=12), Terminated())
    (warning,) = call_json(capsys, "fit-gamma", "--run", run)["warnings"]
    rows = Store.open(run / "trajectory.zarr").recording().num_rows
    assert warning == f"recording 000 isn't finished: γ is of its first {rows} rows; fit again when it is"
    assert call("record", "--steps", "12", "--run", run, "-q") == 0
    capsys.readouterr()
    for command in (["apply-mask", "--sparsity", "0.5"], ["diagnose"]):
        assert call(*command, "--run", run) == 5
        said = capsys.readouterr().err
        assert "expected one of all 12 rows of recording 000, found one made before the last of them" in said
        assert said.strip().endswith("fit again with --overwrite")
    assert "fit default was made before the last rows" in str(call_json(capsys, "info", run / "trajectory.zarr"))
    assert call("fit-gamma", "--overwrite", "--run", run, "-q") == 0
    assert call("apply-mask", "--sparsity", "0.5", "--run", run, "-q") == 0
    assert "made before" not in str(call_json(capsys, "info", run / "trajectory.zarr"))
