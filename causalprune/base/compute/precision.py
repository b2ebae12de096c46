"""True float32: no product rounds its factors to TensorFloat-32 or bfloat16, and every switch is as it was afterwards.

PyTorch has two sets of switches for the same thing, and refuses to read the older one when they disagree. So both are
set, and both are put back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def _switches(device_type: str) -> list[Any]:
    from torch import backends

    if device_type == "cuda":
        return [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]  # type: ignore[attr-defined]
    return [backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn]  # type: ignore[attr-defined]


def rounds_factors(device_type: str) -> bool:
    """Whether a kind of device, ``cuda`` or ``cpu``, may round the factors of float32 products."""
    return any(switch.fp32_precision not in ("none", "ieee") for switch in _switches(device_type))


@contextmanager
def full_precision() -> Iterator[None]:
    """Multiply and convolve in true float32 while the body runs, whatever the user chose."""
    import torch
    from torch.backends import cudnn

    switches = [*_switches("cuda"), *_switches("cpu")]
    chosen = [switch.fp32_precision for switch in switches]
    # Unreadable means that the newer switch says the opposite.
    matmul = _read(torch.get_float32_matmul_precision, "highest" if chosen[0] == "tf32" else "high")
    convolution = _read(lambda: cudnn.allow_tf32, chosen[1] != "tf32")
    try:
        torch.set_float32_matmul_precision("highest")
        cudnn.allow_tf32 = False
        for switch in switches:
            switch.fp32_precision = "ieee"
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        cudnn.allow_tf32 = convolution
        for switch, value in zip(switches, chosen, strict=True):
            switch.fp32_precision = value


def _read(switch: Callable[[], Any], otherwise: Any) -> Any:
    try:
        return switch()
    except RuntimeError:
        return otherwise
