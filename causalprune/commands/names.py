"""The commands by name, known without importing what they do: the command line and ``run`` are made from this table."""

from __future__ import annotations

from typing import NamedTuple

from causalprune.base.registry import Registry
from causalprune.options import Options


class Command(NamedTuple):
    """One command.

    Attributes:
        config: ``module:class`` of its options, whose docstring is its help.
        function: ``module:function`` that takes them and a reporter, and returns the result.
        example: A command line that works as it stands.
    """

    config: str
    function: str
    example: str


COMMANDS = {
    "pretrain": Command(
        "causalprune.config.pretrain:PretrainConfig",
        "causalprune.stages.pretrain:pretrain",
        "causalprune pretrain --dataset digits --epochs 30",
    ),
    "record": Command(
        "causalprune.config.record:RecordConfig",
        "causalprune.stages.record:record",
        "causalprune record --epochs 5",
    ),
    "fit-gamma": Command(
        "causalprune.config.fit_gamma:FitGammaConfig",
        "causalprune.stages.fit_gamma:fit_gamma",
        "causalprune fit-gamma --alpha-ratio 0.1",
    ),
    "apply-mask": Command(
        "causalprune.config.apply_mask:ApplyMaskConfig",
        "causalprune.stages.apply_mask:apply_mask",
        "causalprune apply-mask --sparsity 0.9",
    ),
    "posttrain": Command(
        "causalprune.config.posttrain:PosttrainConfig",
        "causalprune.stages.posttrain:posttrain",
        "causalprune posttrain --epochs 30",
    ),
    "evaluate": Command(
        "causalprune.config.evaluate:EvaluateConfig",
        "causalprune.stages.evaluate:evaluate",
        "causalprune evaluate --json",
    ),
    "diagnose": Command(
        "causalprune.config.diagnose:DiagnoseConfig",
        "causalprune.stages.diagnose:diagnose",
        "causalprune diagnose --placebo 39",
    ),
    "export": Command(
        "causalprune.config.export:ExportConfig",
        "causalprune.stages.export:export",
        "causalprune export --format csr",
    ),
    "run": Command(
        "causalprune.config.run:RunConfig",
        "causalprune.stages.run:run",
        "causalprune run --iterations 5 --sparsity 0.98",
    ),
    "sweep": Command(
        "causalprune.config.sweep:SweepConfig",
        "causalprune.stages.sweep:sweep",
        "causalprune sweep --sparsity 0.8,0.9 --criterion effect,magnitude",
    ),
    "report": Command(
        "causalprune.config.report:ReportConfig",
        "causalprune.stages.report:report",
        "causalprune report --run run",
    ),
    "info": Command(
        "causalprune.config.info:InfoConfig",
        "causalprune.stages.info:info",
        "causalprune info run",
    ),
    "store verify": Command(
        "causalprune.config.store:StoreVerifyConfig",
        "causalprune.stages.store_verify:store_verify",
        "causalprune store verify run/trajectory.zarr",
    ),
    "store export": Command(
        "causalprune.config.store:StoreExportConfig",
        "causalprune.stages.store_export:store_export",
        "causalprune store export --rows 0:8 --output delta.npz",
    ),
    "store compact": Command(
        "causalprune.config.store:StoreCompactConfig",
        "causalprune.stages.store_compact:store_compact",
        "causalprune store compact run/trajectory.zarr --codec small",
    ),
    "store merge": Command(
        "causalprune.config.store:StoreMergeConfig",
        "causalprune.stages.store_merge:store_merge",
        "causalprune store merge a.zarr b.zarr --output merged.zarr",
    ),
}
"""In the order of ``--help``."""

GROUPS = {"store": "Verify, export, compact or merge trajectory stores."}
"""What the commands that share their first word do."""

CONFIGS = Registry("command", {name: command.config for name, command in COMMANDS.items()})
FUNCTIONS = Registry("command", {name: command.function for name, command in COMMANDS.items()})


def load_configs() -> dict[str, type[Options]]:
    """The options of every command."""
    return {name: CONFIGS.load(name) for name in CONFIGS}
