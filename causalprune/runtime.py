"""What surrounds a computation: device, seeds, determinism, signals."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from causalprune.errors import InterruptedStage, UsageError

if TYPE_CHECKING:
    import torch

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
"""Signals after which a stage finishes its step, saves, and ends; SLURM sends the first three."""


def keyed_seed(*keys: int | str) -> int:
    """A 63-bit seed from a list of keys, such as ``keyed_seed(seed, "order", epoch)``.

    Equal keys give equal seeds, different ones independent streams, so nothing has to be replayed after a resume.
    """
    text = "\0".join(f"{type(key).__name__}:{key}" for key in keys)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def resolve_device(name: str) -> torch.device:
    """The device that ``--device`` means; ``auto`` is the first GPU, else the CPU.

    Raises:
        UsageError: CUDA was asked for and is absent.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise UsageError("--device", expected=f"one of {count} CUDA devices" if count else "cpu or auto", found=name)
    return device


def make_deterministic() -> None:
    """Allow deterministic kernels only; an operation without one raises."""
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


class StopRequest:
    """A flag that signals set and the training loop reads after each step."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def error(self, saved: str) -> InterruptedStage:
        """The error that ends the stage once ``saved`` is on disk."""
        name = self.signal.name if self.signal else "a stop request"
        return InterruptedStage(f"stopped by {name}", found=saved, keyboard=self.signal == signal.SIGINT)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn :data:`STOP_SIGNALS` into a :class:`StopRequest` while the body runs.

    Outside the main thread, where Python can't set handlers, the flag is never set.
    """
    request = StopRequest()

    def remember(number: int, _: FrameType | None) -> None:
        request.signal = request.signal or signal.Signals(number)

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous = {number: signal.signal(number, remember) for number in STOP_SIGNALS}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
