"""Names of the codecs and export formats of the store, without importing their implementations."""

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
"""Formats for slices of a recording, each a :class:`causalprune.trajectory.export.RecordingFormat`. The suffix of an
output path selects the format of the same name."""

GRANULARITIES = ("parameter", "filter", "neuron", "layer")
"""What may count as one: a single weight, all weights of an output unit, or a whole tensor."""
