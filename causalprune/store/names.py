"""Names of the codecs and export formats of the store, known without importing what they stand for."""

from __future__ import annotations

from causalprune.base.registry import Registry

CODECS = Registry(
    "codec",
    {
        "exact": "causalprune.store.codec:EXACT",
        "balanced": "causalprune.store.codec:BALANCED",
        "small": "causalprune.store.codec:SMALL",
    },
)
"""Ways to store deltas, each a :class:`causalprune.store.codec.Codec`."""

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
