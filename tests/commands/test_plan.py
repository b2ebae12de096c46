"""What of a run's options reaches its stages, and which fits it makes."""

import pytest
from causalprune_cli.main import main
from commands import call, call_json

from causalprune.base.json_files import sha256_file
from causalprune.commands._plan import PipelinePlan
from causalprune.config.run import RunConfig
from causalprune.models.checkpoint import read_checkpoint_info
from causalprune.pruning.names import CRITERIA
from causalprune.trajectory import Store

TINY_RUN = ["run", "--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4", "--iterations", "2"]
TINY_RUN += ["--sparsity", "0.5", "--pretrain-epochs", "1", "--train-epochs", "1", "--record-epochs", "1"]
TINY_RUN += ["--posttrain-epochs", "1"]


def test_what_all_stages_share_reaches_all_of_them():
    plan = PipelinePlan(RunConfig(overwrite=True, stop_signals="HUP", repair=True))
    first = plan.iteration(0)
    configs = [plan.pretrain(), first.train, first.record, first.fit, first.mask, first.repair, plan.posttrain()]
    configs.append(plan.evaluate())
    assert {(config.overwrite, config.stop_signals) for config in configs} == {(True, "HUP")}


@pytest.mark.parametrize("command", [["info"], ["store", "verify"]])
@pytest.mark.parametrize("option", ["--overwrite", "--break-lock"])
def test_what_only_reads_has_nothing_to_overwrite_and_no_lock_to_break(capsys, command, option):
    assert call(*command, option) == 2
    assert option in capsys.readouterr().err


@pytest.mark.parametrize("command", ["pretrain", "apply-mask", "evaluate", "export", "report", "run", "store merge"])
def test_where_the_kernel_knows_who_is_dead_there_is_no_lock_to_break(capsys, command):
    assert call(*command.split(), "--break-lock") == 2
    assert "--break-lock" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--criterion", "obd"], ["--criterion", "fisher"]])
def test_no_fit_is_made_for_a_criterion_that_reads_none(tmp_path, capsys, options):
    run = tmp_path / "run"
    # A fit that could not be made: no α of a path has so many nonzero γ.
    options = [*options, "--set", "fit-gamma.target-nonzero=1000000"]
    result = call_json(capsys, *TINY_RUN, *options, "--run", run)
    assert [line["r2"] for line in result["metrics"]["iterations"]] == [None, None]
    for number in range(2):
        store = Store.open(run / f"iteration-00{number}/trajectory.zarr")
        assert store.recording().fits == ()
    assert main([*TINY_RUN, *options, "--run", str(run), "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "nonzero γ" not in printed
    assert "50.00%" in printed


def test_the_criteria_that_read_a_fit():
    fitted = {c for c in CRITERIA if PipelinePlan(RunConfig(criterion=c)).iteration(0).fit is not None}
    assert fitted == {"gamma", "effect", "curvature"}


WITHOUT_RECORDING = ("magnitude", "random", "surgeon", "rank-sum", "wanda", "lamp")


def test_the_criteria_that_read_no_recording():
    recorded = {c for c in CRITERIA if PipelinePlan(RunConfig(criterion=c)).iteration(0).records}
    assert recorded == set(CRITERIA) - set(WITHOUT_RECORDING)


@pytest.mark.parametrize("criterion", WITHOUT_RECORDING[2:])
def test_nothing_is_recorded_for_a_criterion_that_reads_no_recording(tmp_path, capsys, criterion):
    run = tmp_path / "run"
    options = ["--criterion", criterion, "--repair", "--train-epochs", "0", "--run", run]
    result = call_json(capsys, *TINY_RUN, *options)
    assert [line["rows"] for line in result["metrics"]["iterations"]] == [None, None]
    assert not list(run.glob("*/trajectory.zarr"))
    headers = {n: read_checkpoint_info(run / f"iteration-00{n}/repaired.safetensors") for n in range(2)}
    dense = read_checkpoint_info(run / "pretrained.safetensors")
    for info in headers.values():
        assert info.inputs["dense"] == sha256_file(run / "pretrained.safetensors")
    # The second mask is of the network that the first repair left.
    trained = read_checkpoint_info(run / "iteration-001/trained.safetensors")
    assert trained.inputs["checkpoint"] == sha256_file(run / "iteration-000/repaired.safetensors")
    assert headers[1].sparsity > headers[0].sparsity > dense.sparsity == 0
    assert main([*map(str, TINY_RUN), *map(str, options), "--quiet"]) == 0
    assert "stored" not in capsys.readouterr().out


def test_a_trained_network_is_repaired_towards_itself():
    for criterion, epochs, dense in (("effect", 1, "recorded"), ("magnitude", 1, "trained"), ("magnitude", 0, None)):
        config = RunConfig(criterion=criterion, train_epochs=epochs, repair=True, run="r")
        repair = PipelinePlan(config).iteration(1).repair
        expected = f"r/iteration-001/{dense}.safetensors" if dense else "r/pretrained.safetensors"
        assert str(repair.dense) == expected


@pytest.mark.parametrize(
    ("criterion", "train", "posttrain", "ridges"),
    [
        ("surgeon", 0, 0, (0.001, 0.001)),
        ("surgeon", 0, 1, (0.001, 1.0)),
        ("magnitude", 1, 0, (1.0, 0.001)),
        # What is recorded is trained on, too.
        ("effect", 0, 0, (1.0, 0.001)),
    ],
)
def test_a_repair_that_training_follows_keeps_weights_small(criterion, train, posttrain, ridges):
    options = {"criterion": criterion, "train_epochs": train, "posttrain_epochs": posttrain, "iterations": 2}
    plan = PipelinePlan(RunConfig(repair=True, **options))
    assert tuple(plan.iteration(number).repair.ridge for number in range(2)) == ridges
    said = PipelinePlan(RunConfig(repair=True, set=("repair.ridge=0.5",), **options))
    assert {said.iteration(number).repair.ridge for number in range(2)} == {0.5}


def test_a_typo_in_the_options_of_a_fit_that_is_not_made_shows(capsys):
    assert call(*TINY_RUN, "--criterion", "magnitude", "--set", "fit-gamma.alphaa=1", "--quiet") == 2
    assert "alphaa" in capsys.readouterr().err
