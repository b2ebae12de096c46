"""Devices, seeds and determinism."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from causalprune.base.errors import UsageError
from causalprune.base.processes import processes

if TYPE_CHECKING:
    import torch


def keyed_seed(*keys: int | str) -> int:
    """A 63-bit seed from a list of keys, such as ``keyed_seed(seed, "order", epoch)``.

    Equal keys give equal seeds and different keys independent streams, so that a resume has nothing to replay.
    """
    text = "\0".join(f"{type(key).__name__}:{key}" for key in keys)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def resolve_device(name: str) -> torch.device:
    """The device of a name; ``auto`` is the first GPU, or the CPU if there is none.

    Raises:
        UsageError: There is no such GPU.
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
    """Allow deterministic kernels only; an operation that has none raises."""
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
