"""What ``run --discard-stores`` never removes, and what it says when something that it needs is gone."""

import json
import shutil

import pytest
from causalprune_cli.main import main

from causalprune.models.checkpoint import load_checkpoint
from causalprune.trajectory import Store

TINY = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4", "--iterations", "1", "--sparsity", "0.5"]
SHORT = ["--pretrain-epochs", "1", "--train-epochs", "0", "--record-epochs", "1", "--posttrain-epochs", "0"]
RUN = ["run", *TINY, *SHORT, "--batch-size", "128"]


@pytest.fixture(scope="module")
def _made(tmp_path_factory):
    run = tmp_path_factory.mktemp("run") / "run"
    assert main([*RUN, "--run", str(run), "--quiet"]) == 0
    return run


@pytest.fixture
def run(_made, tmp_path):
    return shutil.copytree(_made, tmp_path / "run")


def call(run, *more):
    return main([*RUN, "--run", str(run), *map(str, more)])


def stage(run, *command):
    assert main([*command, "--run", str(run / "iteration-000"), "--quiet"]) == 0


def test_a_finished_run_discards_its_store_when_asked(run, capsys):
    network = (run / "final.safetensors").read_bytes()
    assert call(run) == 0
    assert "1 trajectory store kept" in capsys.readouterr().out
    assert call(run, "--discard-stores", "--quiet") == 0
    assert "1 trajectory store discarded" in capsys.readouterr().out
    assert not (run / "iteration-000/trajectory.zarr").exists()
    assert (run / "final.safetensors").read_bytes() == network
    assert call(run, "--json", "--quiet") == 0
    assert json.loads(capsys.readouterr().out)["already_done"] is True
    assert main(["info", str(run)]) == 0


@pytest.mark.parametrize("what", ["fit", "recording", "link", "elsewhere"])
def test_a_store_with_anything_that_the_run_did_not_make_is_kept(run, tmp_path, capsys, what):
    store, more = run / "iteration-000/trajectory.zarr", []
    if what == "fit":
        stage(run, "fit-gamma", "--name", "mine", "--alpha-ratio", "0.5")
    elif what == "recording":
        # As a loop of one's own would record into the same store.
        reader = Store.open(store).recording()
        with Store.open(store).create_recording(reader.info, reader.active, max_rows=1) as writer:
            writer.row()[:] = 0
            writer.append(writer.row(), loss_before=1.0, loss_after=0.5, lr=0.1, epoch=0, batch=0, grad_norm=1.0)
    elif what == "link":
        store.rename(tmp_path / "shared.zarr")
        store.symlink_to(tmp_path / "shared.zarr")
    else:
        more = ["--set", f"record.store={tmp_path / 'shared.zarr'}", "--set", f"fit-gamma.store={tmp_path}/shared.zarr"]
        more += ["--set", f"apply-mask.store={tmp_path / 'shared.zarr'}", "--overwrite"]
    capsys.readouterr()
    # Another recording is more than a run can go on from.
    assert call(run, *more, "--discard-stores") == (5 if what == "recording" else 0)
    assert ("nothing finished or fitted" if what == "recording" else "kept") in capsys.readouterr().err
    kept = store if what in ("fit", "recording") else tmp_path / "shared.zarr"
    assert Store.open(kept).recordings
    assert not (run / "iteration-000/discarded.json").exists()


def test_a_store_that_somebody_made_where_one_was_discarded_stays(run):
    assert call(run, "--discard-stores", "--quiet") == 0
    trained = str(run / "iteration-000/trained.safetensors")
    stage(run, "record", "--checkpoint", trained, "--steps", "2", "--output", str(run / "other.safetensors"))
    assert call(run, "--discard-stores", "--quiet") == 0
    assert Store.open(run / "iteration-000/trajectory.zarr").recording().num_rows == 2


def test_a_mask_that_is_gone_is_said_and_made_again(run, capsys):
    assert call(run, "--discard-stores", "--quiet") == 0
    pruned = run / "iteration-000/pruned.safetensors"
    before = pruned.read_bytes()
    pruned.unlink()
    capsys.readouterr()
    assert call(run) == 0
    said = capsys.readouterr().err
    assert "trajectory.zarr was discarded, and pruned.safetensors" in said
    assert "recorded again" in said
    assert pruned.read_bytes() == before
    assert Store.open(run / "iteration-000/trajectory.zarr").verify() == []
    assert load_checkpoint(run / "final.safetensors").mask is not None


def test_an_iteration_that_is_recorded_again_is_work(run, capsys):
    assert call(run, "--repair", "--overwrite", "--discard-stores", "--quiet") == 0
    # The mask is there, and will be the same.
    (run / "iteration-000/repaired.safetensors").unlink()
    capsys.readouterr()
    assert call(run, "--repair", "--json") == 0
    captured = capsys.readouterr()
    assert "recorded again" in captured.err
    assert json.loads(captured.out)["already_done"] is False


def test_a_prediction_counts_one_store_at_a_time(tmp_path, capsys):
    """With equal stores in all iterations, the peak of N iterations is that of one and N − 1 times what stays."""
    peaks = {}
    for discard in (False, True):
        for iterations in ("1", "3"):
            more = ["--discard-stores"] if discard else []
            assert call(tmp_path / "run", *more, "--iterations", iterations, "--dry-run", "--json", "--quiet") == 0
            peaks[discard, iterations] = json.loads(capsys.readouterr().out)["metrics"]
    kept, gone = (peaks[discard, "3"] for discard in (False, True))
    assert gone["peak_bytes"] < kept["peak_bytes"]
    assert gone["total_bytes"] < kept["total_bytes"]
    stores = kept["total_bytes"] - gone["total_bytes"]
    one = peaks[False, "1"]["total_bytes"] - peaks[True, "1"]["total_bytes"]
    # The second and third recording have fewer columns.
    assert one < stores < 3 * one
    assert not (tmp_path / "run").exists()
