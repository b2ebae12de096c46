"""The commands on a store in object storage do what they do on a disk, to the byte."""

import json
import shutil

import numpy as np
import pytest
from causalprune_cli.main import main
from objects import copy_up, local_tree, tree

from causalprune.trajectory import Store

RECORD = ["--steps", "40", "--batch-size", "64", "--lr", "0.05"]


def call(*args):
    return main([*map(str, args), "--quiet"])


def call_json(capsys, *args):
    capsys.readouterr()
    code = call(*args, "--json")
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out)


def refuse(capsys, code, *args):
    """The one line that a command ends with."""
    capsys.readouterr()
    assert call(*args) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.fixture(scope="module")
def local_once(pretrained):
    local = shutil.copytree(pretrained, pretrained.with_name("local"))
    for stage in (["record", *RECORD], ["fit-gamma"], ["apply-mask", "--sparsity", "0.5"]):
        assert call(*stage, "--run", local) == 0
    return local


@pytest.fixture
def local(local_once, run):
    """The same pipeline on a disk, in a run directory of its own."""
    return shutil.copytree(local_once, run.with_name("local"))


def test_a_pipeline_over_object_storage(run, local, s3, capsys, monkeypatch):
    url = f"{s3}/some folder/t.zarr"
    at = ["--run", run, "--store", url]
    result = call_json(capsys, "record", *RECORD, *at)
    assert result["outputs"]["store"] == url
    assert call_json(capsys, "fit-gamma", *at)["outputs"]["store"] == url
    call_json(capsys, "apply-mask", "--sparsity", "0.5", *at)
    assert tree(url) == local_tree(local / "trajectory.zarr")
    for name in ("recorded.safetensors", "pruned.safetensors"):
        assert (run / name).read_bytes() == (local / name).read_bytes()
    assert not (run / "trajectory.zarr").exists()
    assert {p.name for p in run.parent.iterdir()} == {"run", "local"}

    info = call_json(capsys, "info", url, "--verify", "--rows", "0:3", "--param", "layers.0.weight")
    here = call_json(capsys, "info", local / "trajectory.zarr", "--rows", "0:3", "--param", "layers.0.weight")
    assert info["details"] == here["details"]
    assert info["healthy"] is True
    assert call_json(capsys, "store", "verify", url)["metrics"]["rows"] == 40
    # And again there is nothing to do, whichever way the address is given.
    assert call_json(capsys, "record", *RECORD, *at)["already_done"]
    monkeypatch.setenv("CAUSALPRUNE_STORE", url)
    assert call_json(capsys, "fit-gamma", "--run", run)["already_done"]
    monkeypatch.delenv("CAUSALPRUNE_STORE")
    (run / "options.toml").write_text(f'store = "{url}"\n')
    assert call_json(capsys, "fit-gamma", "--run", run, "--config", run / "options.toml")["already_done"]


def test_a_store_copied_up_is_a_store(run, local, s3, capsys):
    url = copy_up(local / "trajectory.zarr", f"{s3}/t.zarr")
    assert call_json(capsys, "store", "verify", url)["metrics"]["rows"] == 40
    assert call_json(capsys, "fit-gamma", "--store", url, "--run", local)["already_done"]
    for store in (url, local / "trajectory.zarr"):
        call_json(capsys, "fit-gamma", "--store", store, "--run", local, "--name", "other", "--alpha-ratio", "0.3")
    assert tree(url) == local_tree(local / "trajectory.zarr")


def test_other_commands(run, local, s3, capsys, tmp_path):
    url = copy_up(local / "trajectory.zarr", f"{s3}/t.zarr")
    exported = [tmp_path / "remote.npz", tmp_path / "local.npz"]
    for store, output in zip((url, local / "trajectory.zarr"), exported, strict=True):
        call_json(capsys, "store", "export", store, "--output", output, "--rows", "3:9")
    assert exported[0].read_bytes() == exported[1].read_bytes()
    merged = [tmp_path / "a.zarr", tmp_path / "b.zarr"]
    call_json(capsys, "store", "merge", url, url, "--output", merged[0])
    call_json(capsys, "store", "merge", local / "trajectory.zarr", url, "--output", merged[1])
    assert local_tree(merged[0]) == local_tree(merged[1])
    call_json(capsys, "diagnose", "--run", local, "--store", url, "--placebo", "1", "--interventions", "5")
    # Beside that of the run directory's own store.
    assert len(list((local / "results").glob("diagnose.default@t.zarr-*.json"))) == 1

    before = tree(url)
    assert "copy it there" in refuse(capsys, 2, "store", "compact", url, "--codec", "small")
    assert "--output" in refuse(capsys, 2, "store", "merge", url, url, "--output", f"{s3}/merged.zarr")
    assert tree(url) == before
    call_json(capsys, "store", "compact", url, "--drop", "000")
    assert list(tree(url)) == ["recordings/zarr.json", "zarr.json"]


def test_overwriting_and_other_configurations(run, s3, capsys):
    url = f"{s3}/t.zarr"
    at = ["--run", run, "--store", url]
    call_json(capsys, "record", *RECORD, *at)
    expected = tree(url)
    assert "--overwrite" in refuse(capsys, 5, "record", *RECORD, *at, "--seed", "1", "--output", run / "x.safetensors")
    assert tree(url) == expected
    call_json(capsys, "record", *RECORD, *at, "--seed", "1", "--overwrite")
    assert tree(url) != expected
    call_json(capsys, "record", *RECORD, *at, "--overwrite")
    assert tree(url) == expected
    call_json(capsys, "fit-gamma", *at)
    fitted = tree(url)
    call_json(capsys, "fit-gamma", *at, "--alpha-ratio", "0.5", "--overwrite")
    assert tree(url) != fitted
    call_json(capsys, "fit-gamma", *at, "--overwrite")
    assert tree(url) == fitted


def test_a_dry_run_asks_nobody(run, monkeypatch, capsys):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://127.0.0.1:1")
    result = call_json(capsys, "record", *RECORD, "--run", run, "--store", "s3://nowhere/t.zarr", "--dry-run")
    assert result["metrics"]["rows"] == 40


def test_plain_zarr_opens_it(run, s3, capsys):
    zarr = pytest.importorskip("zarr")
    from obstore.store import S3Store

    url = f"{s3}/t.zarr"
    call_json(capsys, "record", *RECORD, "--run", run, "--store", url)
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    plain = zarr.storage.ObjectStore(
        S3Store(bucket, prefix=prefix, client_options={"allow_http": True}), read_only=True
    )
    recording = zarr.open_group(plain, mode="r")["recordings/000"]
    reader = Store.open(url).recording()
    assert np.array_equal(recording["delta"][:], reader.read_rows(0, 40))
    assert np.array_equal(recording["steps"][0], reader.steps.loss_before)


def test_a_store_that_nobody_named_is_not_looked_for(run, s3, capsys, monkeypatch):
    """The run directory's own files speak of the address; that is no leave to go there."""
    call_json(capsys, "record", *RECORD, "--run", run, "--store", f"{s3}/t.zarr")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert f"{run / 'trajectory.zarr'}" in refuse(capsys, 3, "fit-gamma", "--run", run)
    assert call_json(capsys, "info", run)["kind"] == "run"
