"""record on a GPU, whole and interrupted; the CPU goes the same way, so that the test itself is tried without one."""

import numpy as np
import pytest
import torch
from commands import call

from causalprune.base.errors import StorageError
from causalprune.commands._checkpoint_output import CheckpointOutput
from causalprune.models.checkpoint import load_checkpoint
from causalprune.trajectory import Store
from causalprune.trajectory.row_block import RowBlock

ROWS = 100


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    return request.param


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    run = tmp_path_factory.mktemp("pretrained")
    assert call("pretrain", "--run", run, "--epochs", "1", "--device", "cpu", "--quiet") == 0
    return run / "pretrained.safetensors"


def record(pretrained, run, device):
    options = ["--steps", ROWS, "--checkpoint-every", "30steps", "--deterministic", "--device", device]
    return call("record", "--run", run, "--checkpoint", pretrained, *options, "--quiet")


def recording(run):
    return Store.open(run / "trajectory.zarr").recording()


def test_rows_are_those_of_a_cpu_within_rounding(pretrained, tmp_path, device):
    for name in ("cpu", device):
        assert record(pretrained, tmp_path / name, name) == 0
    host, other = recording(tmp_path / "cpu"), recording(tmp_path / device)
    deltas, others = host.read_rows(0, ROWS), other.read_rows(0, ROWS)
    assert np.linalg.norm(deltas - others) < 1e-2 * np.linalg.norm(deltas)
    np.testing.assert_allclose(other.steps.loss_before, host.steps.loss_before, rtol=1e-3)
    np.testing.assert_allclose(other.steps.grad_norm, host.steps.grad_norm, rtol=1e-2)


def test_an_interrupted_recording_goes_on_to_the_same_bytes(pretrained, tmp_path, device, monkeypatch):
    whole, run = tmp_path / "whole", tmp_path / "interrupted"
    assert record(pretrained, whole, device) == 0

    def save(output, checkpoint, real=CheckpointOutput.save_progress):
        real(output, checkpoint)
        raise StorageError("disk", found="gone")

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointOutput, "save_progress", save)
        assert record(pretrained, run, device) == 6
    blocks, put_delta = [], RowBlock.put_delta

    def put(block, delta):
        blocks.append(block)
        put_delta(block, delta)

    monkeypatch.setattr(RowBlock, "put_delta", put)
    assert record(pretrained, run, device) == 0
    # It goes on from the saved 30 steps, in the middle of a shard.
    assert len(blocks) == ROWS - 30
    if device == "cuda":
        assert all(block._tensors is not None and block._tensors[0].is_pinned() for block in blocks)
    assert np.array_equal(recording(run).read_rows(0, ROWS), recording(whole).read_rows(0, ROWS))
    assert np.array_equal(recording(run).steps.to_matrix(), recording(whole).steps.to_matrix())
    ours, theirs = (load_checkpoint(path / "recorded.safetensors").weights for path in (run, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_any_number_of_compressing_threads_is_the_same_work(pretrained, tmp_path):
    """The same identity, and the same bytes of every shard."""
    stores = []
    for threads in (1, 4):
        run = tmp_path / f"{threads}"
        assert (
            call("record", "--run", run, "--checkpoint", pretrained, "--steps", 70, "--compress-threads", threads) == 0
        )
        stores.append(recording(run))
    assert stores[0].info == stores[1].info
    folders = [reader.layout.delta.path for reader in stores]
    shards = [{file.name: file.read_bytes() for file in folder.glob("c.*")} for folder in folders]
    assert shards[0] == shards[1]
    assert len(shards[0]) == 2
