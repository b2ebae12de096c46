"""Files that earlier versions wrote are read, and give the numbers that they gave then."""

import copy
import json
import shutil
from pathlib import Path

import attention
import numpy as np
import pytest
import readings
import torch

import causalprune as cp
from causalprune.base.errors import UsageError
from causalprune.trajectory import Store

EXPECTED = json.loads(readings.EXPECTED.read_text())
PLACES = {"rel": 1e-5, "abs": 1e-7}
"""Measurements on data: float32 sums on another processor."""


@pytest.fixture
def earlier(tmp_path, monkeypatch):
    """A copy of the files, and in it."""
    shutil.copytree(readings.HERE / "files", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


def assert_contains(found, expected, where=""):
    """All that was said then is said now; there may be more."""
    if isinstance(expected, dict):
        assert isinstance(found, dict), where
        assert expected.keys() <= found.keys(), where
        for key, value in expected.items():
            assert_contains(found[key], value, f"{where}.{key}")
    elif isinstance(expected, list):
        assert isinstance(found, list), where
        assert len(found) == len(expected), where
        for number, value in enumerate(expected):
            assert_contains(found[number], value, f"{where}.{number}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, **PLACES), where
    else:
        assert found == expected, where


@pytest.mark.parametrize("path", sorted(EXPECTED["info"]))
def test_info_says_what_it_said(earlier, path):
    expected = copy.deepcopy(EXPECTED["info"][path])
    for line in expected["details"].get("artefacts", []):  # codespell:ignore artefacts
        if "rows" in line:
            # Then without the files beside the rows' own.
            line.pop("bytes")
    assert_contains(readings.info(path), expected)


@pytest.mark.parametrize("checkpoint", readings.CHECKPOINTS)
def test_evaluate_measures_what_it_measured(earlier, checkpoint):
    expected = copy.deepcopy(EXPECTED["evaluate"][checkpoint])
    # With two classes it was the top-1; now there is none of five classes or fewer.
    for metrics in (expected, expected["reference"]):
        metrics.pop("top5")
    assert_contains(readings.evaluation(checkpoint), expected)


@pytest.mark.parametrize("store", readings.STORES)
def test_store_verify_finds_everything_whole(earlier, store):
    assert_contains(readings.verified(store), EXPECTED["store verify"][store])


@pytest.mark.parametrize("way", sorted(readings.MASKS))
def test_apply_mask_makes_the_same_mask_to_the_byte(earlier, way):
    found, expected = readings.mask(way), EXPECTED["apply-mask"][way]
    assert_contains(found, expected)
    assert found["sha256"] == expected["sha256"]


def test_the_mask_in_the_earlier_checkpoint_is_the_one_that_its_command_makes(earlier):
    assert readings.mask_digest("run/pruned.safetensors") == EXPECTED["apply-mask"]["effect"]["sha256"]


@pytest.mark.parametrize("way", sorted(readings.FITS))
def test_fit_gamma_finds_the_same_gamma(earlier, way):
    found, expected = readings.gamma(way), EXPECTED["fit-gamma"][way]
    assert found["columns"] == expected["columns"]
    largest = max(map(abs, expected["values"]))
    # Two fits within the same certified gap need not be the same to the last digit.
    assert found["values"] == pytest.approx(expected["values"], rel=1e-9, abs=2e-6 * largest)
    assert_contains(found["evidence"], expected["evidence"])


def test_a_recording_of_version_1_is_continued(earlier):
    """Its shard has no table of checksums until a fuller one takes its place; there may be more rows than then."""
    store = Store.open(Path("run/trajectory.zarr"))
    reader = store.recording()
    before, digest = reader.read_rows(0, 21), reader.digest
    store.resume_recording("000", rows=21).finish()
    assert store.recording().digest == digest
    log = store.path / "recordings/000/delta/commits.log"
    assert b"chunks_crc32c" not in log.read_bytes()
    more = 1e-3 * np.random.default_rng(0).standard_normal((40, reader.num_columns)).astype(np.float32)
    scalars = {"loss_before": 1.0, "loss_after": 0.5, "lr": 0.1, "epoch": 0, "batch": 0, "grad_norm": 1.0}
    with store.resume_recording("000", rows=21) as writer:
        old = store.recording()
        for row in more:
            writer.append(row, **scalars)
            if writer.rows_appended == 25:
                writer.flush()
                assert np.array_equal(old.read_rows(0, 21), before)
                assert store.verify() == []
        writer.finish()
    assert b"chunks_crc32c" in log.read_bytes()
    assert store.verify() == []
    expected = np.concatenate([before, more])
    assert np.array_equal(store.recording().read_rows(0, 61), expected)
    assert np.array_equal(store.zarr()["recordings/000/delta"][:], expected)


def test_a_sweep_is_reported_as_it_was(earlier):
    pytest.importorskip("matplotlib")
    found, expected = readings.report(), dict(EXPECTED["report"])
    # There are more pictures now.
    assert set(expected.pop("pictures")) <= set(found["pictures"])
    assert_contains(found, expected)


@pytest.fixture
def attending(earlier):
    model = attention.network()
    model.load_state_dict(torch.load("attention/weights.pt"))
    return model


def test_a_recording_without_the_packed_projection_prunes_what_it_has(attending, caplog):
    expected = cp.Mask.load("attention/mask.safetensors")
    before = attending[0].self_attn.in_proj_weight.clone()
    mask = cp.prune(attending, "attention/trajectory.zarr", sparsity=0.6)
    assert mask.index == expected.index
    assert torch.equal(mask.keep, expected.keep)
    assert torch.equal(attending[0].self_attn.in_proj_weight, before)
    said = "attention/trajectory.zarr is of an earlier version and doesn't list them: 0.self_attn.in_proj_weight"
    assert said in caplog.text


def test_the_packed_projection_can_be_named_where_no_recording_is_read(attending):
    where = {"store": "attention/trajectory.zarr", "sparsity": 0.5, "prune": "*.in_proj_weight"}
    with pytest.raises(UsageError, match=r"`prune`: expected parameters that attention/trajectory.zarr has recorded"):
        cp.prune(attending, **where)
    mask = cp.prune(attending, **where, criterion="magnitude")
    assert [entry.kind for entry in mask.index] == ["attention", "layer", "layer", "layer", "layer"]
    assert mask.sparsity == 0.5


def test_an_earlier_mask_is_held_and_recorded_as_it_is(attending, tmp_path):
    mask = cp.Mask.load("attention/mask.safetensors")
    mask.apply_(attending)
    optimizer = torch.optim.SGD(attending.parameters(), lr=0.1)
    with cp.Recorder(attending, optimizer, tmp_path / "new.zarr", mask=mask) as recorder:
        for _ in range(3):
            loss = attending(torch.ones(2, 3, 4)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            recorder.step(loss, lambda: attending(torch.ones(2, 3, 4)).square().mean())
    assert Store.open(tmp_path / "new.zarr").index == mask.index
    assert (attending[2].weight[~mask.tensors()["2.weight"]] == 0).all()
