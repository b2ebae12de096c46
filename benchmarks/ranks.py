"""Who should write the recording of several processes: the first one all of it, or each process its own columns?

    torchrun --nproc-per-node 2 benchmarks/ranks.py [--batch 64] [--rounds 5]

The baseline is the same DistributedDataParallel loop, including both losses, that records nothing. ``own`` writes one
store per process, each with its share of the columns; a reader would have to combine them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from causalprune.models.networks import LeNet
from causalprune.models.parameters import ParameterIndex
from causalprune.trajectory import RecordingInfo, RecordingWriter, Store

WAYS = ("nothing", "first", "own")
STEPS = 128
"""Steps per round: two shards of the LeNet."""


def columns(way: str, total: int) -> slice:
    """What this process writes."""
    rank, world = dist.get_rank(), dist.get_world_size()
    if way == "own":
        return slice(rank * total // world, (rank + 1) * total // world)
    return slice(0, total if way == "first" and rank == 0 else 0)


class Loop:
    """The training of one process."""

    def __init__(self, way: str, batch: int, rows: int, directory: Path) -> None:
        torch.manual_seed(0)
        model = LeNet((1, 28, 28), 10)
        self.index = ParameterIndex.from_model(model)
        self.parameters = dict(model.named_parameters())
        self.model = DistributedDataParallel(model)
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
        self.criterion = nn.CrossEntropyLoss()
        torch.manual_seed(dist.get_rank())
        self.inputs, self.targets = torch.randn(batch, 1, 28, 28), torch.randint(0, 10, (batch,))
        self.part = columns(way, self.index.total)
        self.writer: RecordingWriter | None = None
        if self.part.stop > self.part.start:
            active = np.zeros(self.index.total, bool)
            active[self.part] = True
            store = Store.create(directory / way, index=self.index, model={}, start_sha256="")
            self.writer = store.create_recording(
                RecordingInfo(lr=0.001, batch_size=batch, seed=0), active, max_rows=rows
            )
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
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    dist.init_process_group("gloo")
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // dist.get_world_size()))
    wall: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as directory:
        loops = {way: Loop(way, options.batch, STEPS * (options.rounds + 1), Path(directory)) for way in WAYS}
        for number in range(options.rounds + 1):
            # The order rotates; the first round is a warm-up.
            for way in sorted(WAYS, key=lambda way: (WAYS.index(way) - number) % len(WAYS)):
                dist.barrier()
                started = time.perf_counter()
                for _ in range(STEPS):
                    loops[way].step()
                loops[way].drain()
                dist.barrier()
                if number:
                    wall[way].append((time.perf_counter() - started) / STEPS)
        for loop in loops.values():
            if loop.writer is not None:
                loop.writer.close()
    if dist.get_rank() == 0:
        size = loops["nothing"].index.total
        print(
            f"\nLeNet ({size / 1e6:.2f} M), {dist.get_world_size()} processes of {options.batch} samples on "
            f"{os.cpu_count()} cores; until all is stored; median of {options.rounds} rounds (range).\n"
        )
        print("| written by | ms/step | overhead |\n|---|---|---|")
        for way in WAYS:
            ratios = sorted(mine / base for mine, base in zip(wall[way], wall["nothing"], strict=True))
            print(
                f"| {way} | {1000 * statistics.median(wall[way]):.1f} | {100 * (statistics.median(ratios) - 1):+.1f} % "
                f"({100 * (ratios[0] - 1):+.0f} to {100 * (ratios[-1] - 1):+.0f}) |"
            )
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
