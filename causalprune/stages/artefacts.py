"""How every stage treats its inputs and outputs: what is done is not done again, what is there is not overwritten."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from causalprune.checkpoint import (
    Checkpoint,
    CheckpointInfo,
    load_checkpoint,
    read_checkpoint_info,
    save_checkpoint,
)
from causalprune.config import ComputeOptions
from causalprune.data.datasets import DataSet, load_data
from causalprune.errors import CorruptError, MismatchError, UsageError
from causalprune.files import append_line, make_directory, write_json
from causalprune.models.registry import build_model
from causalprune.options import Options
from causalprune.parameters import ParameterIndex
from causalprune.paths import RunPaths, progress_path, result_path
from causalprune.pruning.mask import Mask
from causalprune.reporting import Reporter
from causalprune.stages.result import StageResult


def identity_of(stage: str, config: Options, inputs: Mapping[str, str]) -> str:
    """Hash of everything that decides a stage's result: its name, its configuration, its inputs."""
    value = {"stage": stage, "config": config.identifying(), "inputs": dict(inputs)}
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@dataclass
class StageOutput:
    """The checkpoint that a stage is to write.

    Attributes:
        stage: The stage's name.
        config: Its configuration.
        path: Where the checkpoint goes.
        default: Where it would go if no path were given.
        inputs: Hash of each input by its role.
    """

    stage: str
    config: Any
    path: Path
    default: Path
    inputs: dict[str, str]
    started: float = field(default_factory=time.monotonic)

    @property
    def identity(self) -> str:
        """See :func:`identity_of`."""
        return identity_of(self.stage, self.config, self.inputs)

    @property
    def progress(self) -> Path:
        """Where the stage saves its state for a resume."""
        return progress_path(self.path)

    @property
    def seconds(self) -> float:
        """Wall time so far."""
        return time.monotonic() - self.started

    def finished(self) -> CheckpointInfo | None:
        """The output's header if the very same work is done already, None if it is yet to do.

        Raises:
            MismatchError: The output exists and is another one.
        """
        if not self.path.exists() or self.config.overwrite:
            return None
        info = read_checkpoint_info(self.path)
        if info.identity != self.identity:
            raise MismatchError(
                f"{self.path}",
                expected="no such file, or the result of this very configuration and input",
                found=f"a result of {_difference(self, info)}",
                remedy="pass --overwrite to replace it, or choose another --run",
            )
        return info

    def resume(self, reporter: Reporter) -> Checkpoint | None:
        """The saved state of an earlier, interrupted attempt at the very same work.

        Raises:
            MismatchError: A saved state of another configuration.
        """
        if not self.progress.exists() or self.config.overwrite:
            return None
        try:
            checkpoint = load_checkpoint(self.progress)
        except CorruptError as error:
            reporter.warn(f"{error}; starting the stage from its beginning")
            return None
        if checkpoint.info.identity != self.identity:
            raise MismatchError(
                f"{self.progress}",
                expected="the saved state of this very configuration and input",
                found=f"that of {_difference(self, checkpoint.info)}",
                remedy="run the interrupted command again, or pass --overwrite to start anew",
            )
        return checkpoint

    def save(self, path: Path, checkpoint: Checkpoint) -> str:
        """Write a checkpoint with this stage's provenance filled in; returns the file's SHA-256."""
        make_directory(path.parent)
        info = replace(
            checkpoint.info,
            stage=self.stage,
            config=self.config.identifying(),
            identity=self.identity,
            inputs=self.inputs,
        )
        return save_checkpoint(path, replace(checkpoint, info=info))

    def publish(self, result: StageResult, sha256: str = "") -> None:
        """Write the result file and a line of the log, and drop the saved state.

        Args:
            result: The stage's result.
            sha256: Hash of the checkpoint, for the provenance chain.
        """
        run = RunPaths(self.config.run)
        path = result_path(run, self.stage, self.path, self.default)
        make_directory(path.parent)
        write_json(path, {**result.to_json(), "sha256": sha256})
        make_directory(run.root)
        event = {"time": time.time(), "stage": self.stage, "output": str(self.path), "seconds": round(self.seconds, 3)}
        append_line(run.log, json.dumps(event))
        self.progress.unlink(missing_ok=True)


def check_distinct(output: Path, *inputs: Path) -> None:
    """Refuse an output path that is also an input.

    Raises:
        UsageError: It is.
    """
    for path in inputs:
        if path.resolve() == output.resolve():
            raise UsageError("output path", expected="another path than the input's", found=str(output))


def load_network(
    checkpoint: Checkpoint, source: Path, device: torch.device, *, trust_code: bool
) -> tuple[nn.Module, Mask]:
    """Build the checkpoint's model with its weights and mask.

    Raises:
        MismatchError: The tensors don't fit the model that the checkpoint names.
    """
    info = checkpoint.info
    model = build_model(info.model, seed=0, trust_code=trust_code)
    if ParameterIndex.from_model(model).fingerprint != info.index.fingerprint:
        raise MismatchError(
            f"{source}",
            expected=f"the prunable parameters of {info.model.name}",
            found="others",
            remedy="use its own code",
        )
    try:
        model.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        found = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise MismatchError(f"{source}", expected=f"weights of {info.model.name}", found=found[:150]) from error
    # A dense network has no mask in its file.
    mask = Mask.from_tensors(info.index, checkpoint.mask) if checkpoint.mask else Mask.all(info.index)
    return model.to(device), mask


def load_checkpoint_data(info: CheckpointInfo, config: ComputeOptions, source: Path) -> DataSet:
    """Load the data set that a checkpoint was trained on, from ``--data-root`` if that is given.

    Raises:
        MismatchError: The data are not the ones that the checkpoint was trained on.
    """
    spec = replace(info.data, root=config.data_root or info.data.root)
    data = load_data(spec, trust_code=config.trust_code)
    if data.fingerprint != info.data_fingerprint:
        raise MismatchError(
            f"data set {spec.name}",
            expected=f"the data that {source} was trained on",
            found="other contents",
            remedy="pass the --data-root that pretrain had",
        )
    return data


def _difference(output: StageOutput, info: CheckpointInfo) -> str:
    if info.stage != output.stage:
        return f"the stage {info.stage or 'unknown'}"
    mine = output.config.identifying()
    names = [f"{k}={info.config.get(k)!r}" for k in mine if info.config.get(k) != mine[k]]
    if names:
        return "another configuration (" + ", ".join(names[:3]) + (", …" if len(names) > 3 else "") + ")"
    changed = [role for role, digest in output.inputs.items() if info.inputs.get(role) != digest]
    return "another input (" + ", ".join(changed) + ")" if changed else "another version"
