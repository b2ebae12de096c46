"""What `run --dry-run` predicts, beside what the same run then does."""

import json
import shutil
from contextlib import redirect_stdout
from io import StringIO

import pytest
from commands import call, call_json

from causalprune.base.paths import RunPaths, mask_path
from causalprune.trajectory import Store

RUN = ["run", "--dataset", "digits", "--model", "mlp", "--hidden", "100,50", "--iterations", "2", "--sparsity", "0.7"]
RUN += ["--pretrain-epochs", "2", "--train-epochs", "1", "--record-epochs", "1", "--posttrain-epochs", "2", "--repair"]
RUN += ["--set", "record.stride=2", "--set", "train.batch-size=100"]

DESCRIPTION = 2000
"""Bytes by which the description in a checkpoint may differ: floats and remarks have no fixed length."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run, and its prediction from before."""
    root = tmp_path_factory.mktemp("dry") / "run"
    printed = StringIO()
    with redirect_stdout(printed):
        assert call(*RUN, "--run", root, "--dry-run", "--json", "--quiet") == 0
    assert not root.exists()
    with redirect_stdout(StringIO()):
        assert call(*RUN, "--run", root, "--quiet") == 0
    return root, json.loads(printed.getvalue())["metrics"]


def size_of(network):
    """Bytes of a checkpoint, with the mask beside it."""
    return sum(file.stat().st_size for file in (network, mask_path(network)) if file.exists())


def stages(predicted, name):
    return [row for row in predicted["stages"] if row["stage"] == name]


def test_steps_rows_and_columns_are_those_of_the_run(run):
    root, predicted = run
    readers = [Store.open(part.store).recording() for part in RunPaths(root).iterations()]
    found = [(row["rows"], row["columns"]) for row in stages(predicted, "record")]
    assert found == [(reader.num_rows, reader.num_columns) for reader in readers]
    assert [row["steps"] for row in stages(predicted, "record")] == [2 * reader.num_rows for reader in readers]
    # 1293 training samples in minibatches of 64; of 100 before a recording.
    steps = {name: [row["steps"] for row in stages(predicted, name)] for name in ("pretrain", "train", "posttrain")}
    assert steps == {"pretrain": [2 * 21], "train": [13, 13], "posttrain": [2 * 21]}


def test_checkpoints_have_the_predicted_bytes_but_for_their_descriptions(run):
    root, predicted = run
    paths = RunPaths(root)
    for stage, files in {
        "pretrain": [paths.pretrained],
        "train": [part.trained for part in paths.iterations()],
        "apply-mask": [part.pruned for part in paths.iterations()],
        "repair": [part.repaired for part in paths.iterations()],
        "posttrain": [paths.final],
    }.items():
        for row, file in zip(stages(predicted, stage), files, strict=True):
            assert row["bytes"] == pytest.approx(size_of(file), abs=DESCRIPTION), file


def test_a_recording_has_the_predicted_bytes_within_a_third(run):
    root, predicted = run
    for number, part in enumerate(RunPaths(root).iterations()):
        files = sum(file.stat().st_size for file in part.store.rglob("*") if file.is_file())
        recorded, fitted = stages(predicted, "record")[number], stages(predicted, "fit-gamma")[number]
        assert recorded["bytes"] + fitted["bytes"] == pytest.approx(files + size_of(part.recorded), rel=1 / 3)
    everything = sum(file.stat().st_size for file in root.rglob("*") if file.suffix == ".safetensors")
    assert everything < predicted["total_bytes"] <= predicted["peak_bytes"]


def test_what_is_there_already_counts_and_nothing_is_written(run, capsys):
    root, predicted = run
    before = {file: file.stat().st_mtime_ns for file in root.rglob("*")}
    again = call_json(capsys, *RUN, "--run", root, "--dry-run")["metrics"]
    assert {file: file.stat().st_mtime_ns for file in root.rglob("*")} == before
    artifacts = [p for p in before if p.is_file() and (p.suffix == ".safetensors" or ".zarr" in str(p))]
    assert again["existing_bytes"] == sum(p.stat().st_size for p in artifacts)
    assert [{**row, "seconds": 0} for row in again["stages"]] == [{**row, "seconds": 0} for row in predicted["stages"]]


def test_another_configuration_is_refused_as_the_run_refuses_it(run, capsys):
    root, _ = run
    said = []
    for flags in (["--dry-run"], []):
        assert call(*RUN, "--seed", "1", "--run", root, "--quiet", *flags) == 5
        said.append(capsys.readouterr().err)
    assert said[0] == said[1]
    assert call(*RUN, "--seed", "1", "--run", root, "--dry-run", "--overwrite", "--quiet") == 0


def test_too_few_rows_are_refused_before_anything_is_trained(tmp_path, capsys):
    assert call(*RUN, "--set", "record.steps=2", "--run", tmp_path / "run", "--dry-run", "--quiet") == 3
    assert "expected at least 2 rows" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_small_disk_is_warned_of_in_a_table_that_cuts_no_number(tmp_path, capsys, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    monkeypatch.setenv("COLUMNS", "80")
    assert call(*RUN, "--run", tmp_path / "run", "--dry-run") == 0
    printed, said = capsys.readouterr()
    assert "the disk of" in said
    assert "has 1 kB free" in said
    lines = printed.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in printed
    recorded = [line.split() for line in lines if " record " in line]
    assert [line[2:5] for line in recorded] == [["20", "10", "11,900"], ["20", "10", "4,611"]]
