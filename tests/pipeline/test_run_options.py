"""What of a run's options reaches its stages, and which fits it makes."""

import json
from dataclasses import asdict, replace

import pytest
from causalprune.locking import LockHolder
from causalprune_cli.main import main
from commands import call, call_json

from causalprune.config import RunConfig
from causalprune.plan import PipelinePlan
from causalprune.pruning.names import CRITERIA
from causalprune.store import TrajectoryStore

TINY_RUN = ["run", "--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4", "--iterations", "2"]
TINY_RUN += ["--sparsity", "0.5", "--pretrain-epochs", "1", "--train-epochs", "1", "--record-epochs", "1"]
TINY_RUN += ["--posttrain-epochs", "1"]


def test_what_all_stages_share_reaches_all_of_them():
    plan = PipelinePlan(RunConfig(break_lock=True, stop_signals="HUP"))
    configs = [plan.pretrain(), *plan.iteration(0), plan.posttrain(), plan.evaluate()]
    assert {(config.break_lock, config.stop_signals) for config in configs} == {(True, "HUP")}


@pytest.mark.parametrize("lock", ["trajectory.zarr/.fits-lock", "results/.fit-gamma.json.lock"])
def test_a_run_breaks_the_locks_of_a_fit(tmp_path, capsys, lock):
    run = tmp_path / "run"
    assert call(*TINY_RUN, "--run", run, "--quiet") == 0
    here = run / "iteration-001"
    stale = asdict(replace(LockHolder.current(), host="elsewhere"))
    for path in (here / "pruned.safetensors", run / "final.safetensors", here / "results/fit-gamma.json"):
        path.unlink()
    fits = here / "trajectory.zarr/recordings/000/fits/default"
    fits.rename(tmp_path / "fit")
    (here / lock).write_text(json.dumps(stale))
    assert call(*TINY_RUN, "--run", run, "--quiet") == 7
    assert "--break-lock" in capsys.readouterr().err
    assert call(*TINY_RUN, "--run", run, "--quiet", "--break-lock") == 0
    assert (here / "results/fit-gamma.json").exists()


@pytest.mark.parametrize("options", [["--criterion", "magnitude"], ["--set", "apply-mask.criterion=random"]])
def test_no_fit_is_made_for_a_criterion_that_reads_none(tmp_path, capsys, options):
    run = tmp_path / "run"
    # A fit that could not be made: no α of a path has so many nonzero γ.
    options = [*options, "--set", "fit-gamma.target-nonzero=1000000"]
    result = call_json(capsys, *TINY_RUN, *options, "--run", run)
    assert [line["r2"] for line in result["metrics"]["iterations"]] == [None, None]
    for number in range(2):
        store = TrajectoryStore.open(run / f"iteration-00{number}/trajectory.zarr")
        assert store.recording().fits == ()
    assert main([*TINY_RUN, *options, "--run", str(run), "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "nonzero γ" not in printed
    assert "50.00%" in printed


def test_the_criteria_that_read_a_fit():
    fitted = {c for c in CRITERIA if PipelinePlan(RunConfig(criterion=c)).iteration(0)[2] is not None}
    assert fitted == {"gamma", "effect", "curvature"}


def test_a_typo_in_the_options_of_a_fit_that_is_not_made_shows(capsys):
    assert call(*TINY_RUN, "--criterion", "magnitude", "--set", "fit-gamma.alphaa=1", "--quiet") == 2
    assert "alphaa" in capsys.readouterr().err
