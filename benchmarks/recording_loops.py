"""The training loop whose recording is measured, recorded in three ways: not at all, ours, the authors'."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import nn

from causalprune.models.parameters import ParameterIndex
from causalprune.training.recorder import Recorder

SAVE_THREADS = 4
"""Of the authors' thread pool."""


class Training:
    """The same loop whatever records it: nothing, our recorder, or the authors' way.

    On the CPU it reads both losses of each step, as the authors' way does. On a GPU it reads none, so that a recorder
    that waits for the GPU would show.
    """

    def __init__(
        self, network: Callable[[], nn.Module], shape: tuple[int, ...], rows: int, directory: Path, device: str = "cpu"
    ) -> None:
        torch.manual_seed(0)
        self.device = torch.device(device)
        self.model = network().to(self.device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.001)
        self.criterion = nn.CrossEntropyLoss()
        self.inputs = torch.randn(shape, device=self.device)
        self.targets = torch.randint(0, 10, shape[:1], device=self.device)
        self.index = ParameterIndex.from_model(self.model)
        self.rows, self.directory = rows, directory

    def loss(self) -> torch.Tensor:
        return self.criterion(self.model(self.inputs), self.targets)

    def backward(self) -> torch.Tensor:
        before = self.loss()
        self.optimizer.zero_grad()
        before.backward()
        return before

    def read(self, loss: torch.Tensor) -> None:
        if self.device.type == "cpu":
            loss.item()

    def step(self) -> None:
        self.read(self.backward())
        self.optimizer.step()
        self.measure()

    def drain(self) -> None:
        """Wait until everything is stored."""

    def measure(self) -> None:
        with torch.no_grad():
            self.read(self.loss())

    def close(self) -> None:
        pass


class Recorded(Training):
    threads: int | None = None
    """Threads that compress; None for as many as the machine spares."""

    def __init__(
        self, network: Callable[[], nn.Module], shape: tuple[int, ...], rows: int, directory: Path, device: str = "cpu"
    ) -> None:
        super().__init__(network, shape, rows, directory, device)
        self.recorder = Recorder(
            self.model, self.optimizer, directory / "t.zarr", max_rows=rows, compress_threads=self.threads
        )

    def step(self) -> None:
        self.recorder.step(self.backward(), self.loss)

    def drain(self) -> None:
        self.recorder.writer.flush()

    def close(self) -> None:
        self.recorder.writer.close()


class RecordedBeside(Recorded):
    """One thread compresses in the background, whatever training leaves it."""

    threads = 1


class Saved(Training):
    """One file a step, in threads."""

    def __init__(self, network: Callable[[], nn.Module], shape: tuple[int, ...], rows: int, directory: Path) -> None:
        super().__init__(network, shape, rows, directory)
        self.pool = ThreadPoolExecutor(SAVE_THREADS)
        self.parameters = dict(self.model.named_parameters())
        self.earlier = self.index.flatten(self.parameters)
        self.number = 0
        self.pending: list[Future[object]] = []

    def step(self) -> None:
        self.backward().item()
        self.optimizer.step()
        now = self.index.flatten(self.parameters)
        self.pending.append(
            self.pool.submit(torch.save, (now - self.earlier) ** 2, self.directory / f"{self.number}.pt")
        )
        self.number += 1
        self.earlier = now
        self.measure()

    def drain(self) -> None:
        while self.pending:
            self.pending.pop().result()

    def close(self) -> None:
        self.pool.shutdown()


def lenet() -> nn.Module:
    from causalprune.models.networks import LeNet

    return LeNet((1, 28, 28), 10)


def resnet18() -> nn.Module:
    import torchvision

    return torchvision.models.resnet18(num_classes=10)


def resnet50() -> nn.Module:
    import torchvision

    return torchvision.models.resnet50()


def tiny() -> nn.Module:
    """For a test of the benchmark itself."""
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10))


class Rounds:
    """Wall and CPU seconds a step of several loops, which take turns.

    A round of every loop is cut into ``TURNS`` turns, and the loops alternate after each of them: a spell in which the
    machine is slower lasts seconds, and short turns let it slow all loops alike. Three of them let no block of rows end
    with a turn but the last, whose rows are waited for; threads in the background would go on with a block that does
    in the next loop's turn, at its cost.

    Attributes:
        wall: Seconds per step of each loop, a number per round, until everything is stored.
        cpu: CPU seconds likewise, of all threads.
        behind: Of the wall seconds those in which the loop waited at the end of its round.
    """

    TURNS = 3

    def __init__(self, loops: dict[str, Training], steps: int, rounds: int) -> None:
        self.wall: dict[str, list[float]] = {way: [] for way in loops}
        self.cpu: dict[str, list[float]] = {way: [] for way in loops}
        self.behind: dict[str, list[float]] = {way: [] for way in loops}
        for number in range(rounds + 1):
            found = self._round(loops, steps, first=number)
            if number > 0:  # The first round warms up.
                for way, (wall, cpu, behind) in found.items():
                    self.wall[way].append(wall / steps)
                    self.cpu[way].append(cpu / steps)
                    self.behind[way].append(behind / steps)

    def _round(self, loops: dict[str, Training], steps: int, first: int) -> dict[str, tuple[float, float, float]]:
        """Wall and CPU seconds of each loop, and the seconds it waited at the end."""
        ways = list(loops)
        turns = min(self.TURNS, steps)
        found = dict.fromkeys(ways, (0.0, 0.0, 0.0))
        for turn in range(turns):
            # The order turns, so that no way always follows the same other one.
            for way in sorted(ways, key=lambda way: (ways.index(way) - first - turn) % len(ways)):
                share = steps * (turn + 1) // turns - steps * turn // turns
                taken = self._turn(loops[way], share, last=turn == turns - 1)
                found[way] = tuple(map(sum, zip(found[way], taken, strict=True)))
        return found

    def _turn(self, loop: Training, steps: int, *, last: bool) -> tuple[float, float, float]:
        finish(loop.device)
        started, started_cpu = time.perf_counter(), time.process_time()
        for _ in range(steps):
            loop.step()
        finish(loop.device)
        trained = time.perf_counter()
        if last:
            loop.drain()
        ended = time.perf_counter()
        return ended - started, time.process_time() - started_cpu, ended - trained

    def overhead(self, way: str, base: str = "nothing") -> str:
        """Median and range of a loop's time over the base's, in percent."""
        ratios = sorted(mine / other for mine, other in zip(self.wall[way], self.wall[base], strict=True))
        low, middle, high = (100 * (ratio - 1) for ratio in (ratios[0], statistics.median(ratios), ratios[-1]))
        return f"{middle:+.1f} % ({low:+.0f} to {high:+.0f})"


def finish(device: torch.device) -> None:
    """Wait until a GPU has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
