"""Two processes that share minibatches record what one with the whole of each does; sharded weights are refused."""

import subprocess
import sys

import pytest
import shared_loop
import torch
from torch import nn

from causalprune.base.errors import UsageError
from causalprune.training.recorder import Recorder
from causalprune.trajectory import Store


def test_the_loss_is_the_mean_over_processes_and_one_of_them_writes(tmp_path):
    command = [sys.executable, shared_loop.__file__]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*command, str(rank), str(tmp_path)], **pipes) for rank in range(2)]
    said = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert said[0][0].count("nothing there yet") == 2
    assert said[1][0].count("expected the first process to begin") == 2
    model = shared_loop.network()
    # Each half of a minibatch is normalized by itself, as in two processes.
    shared_loop.train(
        tmp_path / "alone.zarr",
        model,
        lambda x: torch.cat([model(half) for half in x.chunk(2)]),
        shared_loop.minibatches(),
    )
    alone, shared = (Store.open(tmp_path / f"{what}.zarr").recording() for what in ("alone", "shared"))
    assert (shared.finished, shared.num_rows) == (True, 5)
    assert shared.read_rows(0, 5) == pytest.approx(alone.read_rows(0, 5), rel=1e-6, abs=1e-12)
    for name in ("loss_before", "loss_after", "grad_norm"):
        assert shared.steps[name] == pytest.approx(alone.steps[name], rel=1e-9)
    assert [entry.name for entry in shared.index] == ["0.weight", "3.weight"]
    # Of so few columns the first process has none to write.
    files = [
        {p.relative_to(path): p.read_bytes() for p in path.rglob("*") if p.is_file() and p.name != ".lock"}
        for path in (tmp_path / "by-rank.zarr", tmp_path / "shared.zarr")
    ]
    assert files[0] == files[1]


@pytest.fixture
def group(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("group")
def test_sharded_weights_are_refused(tmp_path):
    from torch.distributed.fsdp import fully_shard

    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3))
    mesh = torch.distributed.init_device_mesh("cpu", (1,))
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(UsageError, match=r"whose weights are whole in each process, found sharded ones \(DTensor\)"):
        Recorder(model, optimizer, tmp_path / "t.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["meeting"]
