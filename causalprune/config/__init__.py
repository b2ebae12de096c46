"""The configuration of every command: frozen, self-validating, one field per option, one file per command.

Field order is the order in ``--help``. Nothing here imports PyTorch, so that ``--help`` and ``info`` answer at once.
"""

from __future__ import annotations

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
    LeaseOptions,
    ModelOptions,
    OutputOptions,
    RuntimeOptions,
)
from causalprune.config.store import StoreCompactConfig, StoreExportConfig, StoreMergeConfig, StoreVerifyConfig
from causalprune.config.sweep import SweepConfig
from causalprune.training.options import TrainingOptions

__all__ = [
    "ApplyMaskConfig",
    "ComputeOptions",
    "DataOptions",
    "DiagnoseConfig",
    "EvaluateConfig",
    "ExportConfig",
    "FitGammaConfig",
    "InfoConfig",
    "LeaseOptions",
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
