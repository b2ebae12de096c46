"""The configuration of every stage: frozen, self-validating, one field an option, one file a stage.

Field order is the order in ``--help``. Nothing here imports PyTorch, so that ``--help`` and ``info`` answer at once.
"""

from __future__ import annotations

from typing import Any

from causalprune.config.apply_mask import ApplyMaskConfig
from causalprune.config.diagnose import DiagnoseConfig
from causalprune.config.evaluate import EvaluateConfig
from causalprune.config.export import ExportConfig
from causalprune.config.fit_gamma import FitGammaConfig
from causalprune.config.info import InfoConfig
from causalprune.config.posttrain import PosttrainConfig
from causalprune.config.pretrain import PretrainConfig
from causalprune.config.record import RecordConfig
from causalprune.config.report import ReportConfig
from causalprune.config.run import RunConfig
from causalprune.config.shared import (
    ComputeOptions,
    DataOptions,
    ModelOptions,
    OutputOptions,
    RuntimeOptions,
    TrainingOptions,
)
from causalprune.config.store import StoreCompactConfig, StoreExportConfig, StoreMergeConfig, StoreVerifyConfig
from causalprune.config.sweep import SweepConfig

STAGE_CONFIGS: dict[str, type[Any]] = {
    "pretrain": PretrainConfig,
    "record": RecordConfig,
    "fit-gamma": FitGammaConfig,
    "apply-mask": ApplyMaskConfig,
    "posttrain": PosttrainConfig,
    "evaluate": EvaluateConfig,
    "diagnose": DiagnoseConfig,
    "export": ExportConfig,
    "info": InfoConfig,
    "run": RunConfig,
    "sweep": SweepConfig,
    "report": ReportConfig,
    "store verify": StoreVerifyConfig,
    "store export": StoreExportConfig,
    "store compact": StoreCompactConfig,
    "store merge": StoreMergeConfig,
}

__all__ = [
    "STAGE_CONFIGS",
    "ApplyMaskConfig",
    "ComputeOptions",
    "DataOptions",
    "DiagnoseConfig",
    "EvaluateConfig",
    "ExportConfig",
    "FitGammaConfig",
    "InfoConfig",
    "ModelOptions",
    "OutputOptions",
    "PosttrainConfig",
    "PretrainConfig",
    "RecordConfig",
    "ReportConfig",
    "RunConfig",
    "RuntimeOptions",
    "StoreCompactConfig",
    "StoreExportConfig",
    "StoreMergeConfig",
    "StoreVerifyConfig",
    "SweepConfig",
    "TrainingOptions",
]
