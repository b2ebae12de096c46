"""Names of the codecs and export formats of the store, known without importing what they stand for."""

from __future__ import annotations

from causalprune.base.registry import Registry

CODECS = Registry(
    "codec",
    {
        "exact": "causalprune.trajectory.codec:EXACT",
        "balanced": "causalprune.trajectory.codec:BALANCED",
        "small": "causalprune.trajectory.codec:SMALL",
    },
)
"""Ways to store deltas, each a :class:`causalprune.trajectory.codec.Codec`."""

RECORDING_FORMATS = Registry(
    "format",
    {
        "npz": "causalprune.trajectory.export:NPZ",
        "safetensors": "causalprune.trajectory.export:SAFETENSORS",
        "zarr": "causalprune.trajectory.export:ZARR",
    },
)
"""Formats for slices of a recording, each a :class:`causalprune.trajectory.export.RecordingFormat`. A name that ends in
``.NAME`` says format NAME."""
