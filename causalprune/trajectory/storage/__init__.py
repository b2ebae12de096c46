"""Where a store's files lie, and the few operations on them that everything else in a store is made of."""

from causalprune.trajectory.storage.location import (
    FITS_LOCK,
    LOCK,
    REMEDY,
    Buffer,
    Fence,
    Location,
    LogFile,
    OpenFile,
    ReplacedError,
    Sink,
)
from causalprune.trajectory.storage.places import locate

__all__ = [
    "FITS_LOCK",
    "LOCK",
    "REMEDY",
    "Buffer",
    "Fence",
    "Location",
    "LogFile",
    "OpenFile",
    "ReplacedError",
    "Sink",
    "locate",
]
