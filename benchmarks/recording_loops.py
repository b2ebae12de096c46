"""The training loop whose recording is measured, recorded in three ways: not at all, ours, the authors'."""

from __future__ import annotations

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
    """The same loop whatever records it: nothing, our recorder, or the authors' way."""

    def __init__(self, network: Callable[[], nn.Module], shape: tuple[int, ...], rows: int, directory: Path) -> None:
        torch.manual_seed(0)
        self.model = network()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.001)
        self.criterion = nn.CrossEntropyLoss()
        self.inputs, self.targets = torch.randn(shape), torch.randint(0, 10, shape[:1])
        self.index = ParameterIndex.from_model(self.model)
        self.rows, self.directory = rows, directory

    def loss(self) -> torch.Tensor:
        return self.criterion(self.model(self.inputs), self.targets)

    def backward(self) -> torch.Tensor:
        before = self.loss()
        self.optimizer.zero_grad()
        before.backward()
        return before

    def step(self) -> None:
        self.backward().item()
        self.optimizer.step()
        self.measure()

    def drain(self) -> None:
        """Wait until everything is stored."""

    def measure(self) -> None:
        with torch.no_grad():
            self.loss().item()

    def close(self) -> None:
        pass


class Recorded(Training):
    def __init__(self, network: Callable[[], nn.Module], shape: tuple[int, ...], rows: int, directory: Path) -> None:
        super().__init__(network, shape, rows, directory)
        self.recorder = Recorder(self.model, self.optimizer, directory / "t.zarr", max_rows=rows)

    def step(self) -> None:
        self.recorder.step(self.backward(), self.loss)

    def drain(self) -> None:
        self.recorder.writer.flush()

    def close(self) -> None:
        self.recorder.writer.close()


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
