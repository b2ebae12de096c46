"""What surrounds a computation: device, seeds, determinism."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from causalprune.distributed import processes
from causalprune.errors import UsageError

if TYPE_CHECKING:
    import torch


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
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and device.index is None and processes().count > 1:
        device = torch.device("cuda", processes().local)
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
