"""The trajectory store: how gradient descent changed each parameter and the loss, step by step."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from causalprune.trajectory.array_groups import Fit
    from causalprune.trajectory.reader import RecordingReader
    from causalprune.trajectory.schema import RecordingInfo
    from causalprune.trajectory.store import Store
    from causalprune.trajectory.writer import RecordingWriter

__all__ = ["Fit", "RecordingInfo", "RecordingReader", "RecordingWriter", "Store"]

_MODULES = {
    "Fit": "array_groups",
    "RecordingInfo": "schema",
    "RecordingReader": "reader",
    "RecordingWriter": "writer",
    "Store": "store",
}


def __getattr__(name: str) -> Any:
    """Import a name on first use, because :mod:`causalprune.trajectory.names` must load without NumPy."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
