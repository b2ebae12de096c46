"""Who should write the recording of several processes: the first one all of it, or each process its own columns?

    torchrun --nproc-per-node 2 benchmarks/ranks.py [--network lenet] [--batch 64] [--rounds 5]

The baseline is the same DistributedDataParallel loop, including both losses, that records nothing. ``own`` is what
``record --columns-by-rank`` does: each process compresses and writes its own columns, into the same file.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from lines import put
from recording_loops import resnet18
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from causalprune.models.networks import LeNet
from causalprune.models.parameters import ParameterIndex
from causalprune.training.ranks import ColumnPartners
from causalprune.trajectory import RecordingInfo, RecordingWriter, Store

WAYS = ("nothing", "first", "own")
WRITERS = {"first": "the first one writes", "own": "each writes its columns"}


@dataclass(frozen=True)
class Network:
    """What is trained, on images of which shape, how many steps a round has (two shards or more), and its name."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    steps: int
    title: str


NETWORKS = {
    "lenet": Network(lambda: LeNet((1, 28, 28), 10), (1, 28, 28), 128, "a LeNet"),
    "resnet18": Network(resnet18, (3, 32, 32), 16, "a ResNet18"),
}


class Loop:
    """The training of one process."""

    def __init__(self, way: str, network: Network, batch: int, rows: int, directory: Path) -> None:
        torch.manual_seed(0)
        model = network.make()
        self.index = ParameterIndex.from_model(model)
        self.parameters = dict(model.named_parameters())
        self.model = DistributedDataParallel(model)
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
        self.criterion = nn.CrossEntropyLoss()
        torch.manual_seed(dist.get_rank())
        self.inputs, self.targets = torch.randn(batch, *network.shape), torch.randint(0, 10, (batch,))
        partners = ColumnPartners() if way == "own" else None
        self.writer: RecordingWriter | None = None
        if way != "nothing" and dist.get_rank() == 0:
            store = Store.create(directory / way, index=self.index, model={}, start_sha256="")
            info, active = RecordingInfo(lr=0.001, batch_size=batch, seed=0), np.ones(self.index.total, bool)
            self.writer = store.create_recording(info, active, max_rows=rows, partners=partners)
        dist.barrier()
        if partners is not None and dist.get_rank():
            self.writer = Store.open(directory / way).join_recording("000", partners)
        self.part = slice(0, 0) if self.writer is None else self.writer.columns
        self.before, self.after = self.index.flatten(self.parameters), torch.empty(self.index.total)

    def step(self) -> None:
        before = self.criterion(self.model(self.inputs), self.targets)
        self.optimizer.zero_grad()
        before.backward()
        self.optimizer.step()
        if self.writer is not None:
            self.index.flatten(self.parameters, out=self.after)
            row = torch.from_numpy(self.writer.row())
            torch.sub(self.after[self.part], self.before[self.part], out=row)
            self.before, self.after = self.after, self.before
        with torch.no_grad():
            after = self.criterion(self.model(self.inputs), self.targets).item()
        if self.writer is not None:
            self.writer.append(
                row, loss_before=before.item(), loss_after=after, lr=0.001, epoch=0, batch=0, grad_norm=1.0
            )

    def drain(self) -> None:
        if self.writer is not None:
            self.writer.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="lenet")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="of a round [two shards or more]")
    options = parser.parse_args()
    dist.init_process_group("gloo")
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // dist.get_world_size()))
    wall: dict[str, list[float]] = {way: [] for way in WAYS}
    network = NETWORKS[options.network]
    steps = options.steps or network.steps
    folder = [tempfile.mkdtemp() if dist.get_rank() == 0 else ""]
    dist.broadcast_object_list(folder)
    try:
        rows, directory = steps * (options.rounds + 1), Path(folder[0])
        loops = {way: Loop(way, network, options.batch, rows, directory) for way in WAYS}
        for number in range(options.rounds + 1):
            # The order rotates; the first round is a warm-up.
            for way in sorted(WAYS, key=lambda way: (WAYS.index(way) - number) % len(WAYS)):
                dist.barrier()
                started = time.perf_counter()
                for _ in range(steps):
                    loops[way].step()
                loops[way].drain()
                dist.barrier()
                if number:
                    wall[way].append((time.perf_counter() - started) / steps)
        for loop in loops.values():
            if loop.writer is not None:
                loop.writer.close()
    finally:
        dist.barrier()
        if dist.get_rank() == 0:
            shutil.rmtree(directory)
    if dist.get_rank() == 0:
        size = loops["nothing"].index.total
        print(
            f"\n{options.network} ({size / 1e6:.2f} M), {dist.get_world_size()} processes of {options.batch} samples "
            f"on {os.cpu_count()} cores; until all is stored; median of {options.rounds} rounds (range).\n"
        )
        print("| written by | ms/step | overhead |\n|---|---|---|")
        for way in WAYS:
            ratios = sorted(mine / base for mine, base in zip(wall[way], wall["nothing"], strict=True))
            print(
                f"| {way} | {1000 * statistics.median(wall[way]):.1f} | {100 * (statistics.median(ratios) - 1):+.1f} % "
                f"({100 * (ratios[0] - 1):+.0f} to {100 * (ratios[-1] - 1):+.0f}) |"
            )
            if way != "nothing":
                put(
                    f"two processes record {network.title}, {WRITERS[way]}",
                    f"{1000 * statistics.median(wall[way]):.1f} ms, {100 * (statistics.median(ratios) - 1):+.1f} %",
                    limit=f"{1000 * statistics.median(wall['nothing']):.1f} ms, nothing recorded",
                )
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
