"""The names of the export formats, available without importing PyTorch."""

from __future__ import annotations

from causalprune.base.registry import Registry

EXPORT_FORMATS = Registry(
    "export format",
    {
        "torch": "causalprune.models.export.formats:TORCH",
        "safetensors": "causalprune.models.export.formats:SAFETENSORS",
        "csr": "causalprune.models.export.formats:CSR",
        "pt2": "causalprune.models.export.programs:PT2",
        "onnx": "causalprune.models.export.programs:ONNX",
    },
)
"""Each is a :class:`causalprune.models.export.formats.ExportFormat`."""
