"""Names of what the store can be told to write, known without importing what they stand for."""

from __future__ import annotations

from causalprune.base.registry import Registry

RECORDING_FORMATS = Registry(
    "format",
    {
        "npz": "causalprune.store.export:NPZ",
        "safetensors": "causalprune.store.export:SAFETENSORS",
        "zarr": "causalprune.store.export:ZARR",
    },
)
"""Formats for slices of a recording, each a :class:`causalprune.store.export.RecordingFormat`. A name that ends in
``.NAME`` says format NAME."""
