"""The stages: each a plain function from a frozen configuration to a typed result, through files.

Import them from here: ``from causalprune.stages import pretrain, PretrainConfig``. A stage and PyTorch are loaded
when they are first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from causalprune.config import (
    ApplyMaskConfig,
    DiagnoseConfig,
    EvaluateConfig,
    ExportConfig,
    FitGammaConfig,
    InfoConfig,
    PosttrainConfig,
    PretrainConfig,
    RecordConfig,
    ReportConfig,
    RunConfig,
    StoreCompactConfig,
    StoreExportConfig,
    StoreMergeConfig,
    StoreVerifyConfig,
    SweepConfig,
)

__all__ = [
    "ApplyMaskConfig",
    "DiagnoseConfig",
    "EvaluateConfig",
    "ExportConfig",
    "FitGammaConfig",
    "InfoConfig",
    "PosttrainConfig",
    "PretrainConfig",
    "RecordConfig",
    "ReportConfig",
    "RunConfig",
    "StoreCompactConfig",
    "StoreExportConfig",
    "StoreMergeConfig",
    "StoreVerifyConfig",
    "SweepConfig",
    "stage_function",
]


def stage_function(name: str) -> Any:
    """The function of a stage, such as ``stage_function("fit_gamma")``."""
    module = "store" if name.startswith("store_") else name
    return getattr(import_module(f"causalprune.stages.{module}"), name)
