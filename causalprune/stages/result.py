"""What every stage returns."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from causalprune.checkpoint import software_versions
from causalprune.options import Options

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """What a stage did; each stage adds its own fields.

    Attributes:
        stage: Its name.
        inputs: Hash of each input by its role.
        outputs: Path of each output by its role.
        already_done: True when the outputs were there, made by the same configuration from the same inputs.
        seconds: Wall time.
    """

    stage: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    already_done: bool = False
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The JSON object of ``--json`` and of the result file."""
        value = asdict(self)
        common = {name: value.pop(name) for name in ("stage", "inputs", "outputs", "already_done", "seconds")}
        return {
            "schema_version": SCHEMA_VERSION,
            "stage": common["stage"],
            "inputs": common["inputs"],
            "outputs": common["outputs"],
            "already_done": common["already_done"],
            "metrics": value,
            "timings": {"seconds": round(common["seconds"], 3)},
            "versions": software_versions(),
            "job": batch_job(),
        }


def batch_job() -> dict[str, str]:
    """The SLURM job that this process belongs to: its number, its place in an array, how often it was restarted."""
    names = {"SLURM_JOB_ID": "job_id", "SLURM_ARRAY_TASK_ID": "array_task_id", "SLURM_RESTART_COUNT": "restart_count"}
    return {name: os.environ[variable] for variable, name in names.items() if variable in os.environ}


def identity_of(stage: str, config: Options, inputs: Mapping[str, str]) -> str:
    """Hash of everything that decides a stage's result: its name, its configuration, its inputs."""
    value = {"stage": stage, "config": config.identity_fields(), "inputs": dict(inputs)}
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
