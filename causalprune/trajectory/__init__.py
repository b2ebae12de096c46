"""The trajectory store: what gradient descent did to each parameter, and to the loss, step by step."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from causalprune.trajectory.fits import Fit
    from causalprune.trajectory.reader import RecordingReader
    from causalprune.trajectory.schema import RecordingInfo
    from causalprune.trajectory.steps import Steps
    from causalprune.trajectory.store import Store
    from causalprune.trajectory.writer import RecordingWriter

__all__ = ["Fit", "RecordingInfo", "RecordingReader", "RecordingWriter", "Steps", "Store"]

_MODULES = {
    "Fit": "fits",
    "RecordingInfo": "schema",
    "RecordingReader": "reader",
    "Steps": "steps",
    "Store": "store",
    "RecordingWriter": "writer",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: the names of the codecs must be known without NumPy."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
