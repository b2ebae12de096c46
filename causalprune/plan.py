"""What ``run`` asks of every stage: one configuration of the pipeline becomes one of each stage."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

from causalprune.config import (
    ApplyMaskConfig,
    ComputeOptions,
    EvaluateConfig,
    FitGammaConfig,
    PosttrainConfig,
    PretrainConfig,
    RecordConfig,
    RunConfig,
    RuntimeOptions,
)
from causalprune.errors import UsageError
from causalprune.options import Options
from causalprune.paths import RunPaths
from causalprune.pruning.criteria import load_criterion
from causalprune.pruning.criterion import NEEDS, departure
from causalprune.settings import apply_settings
from causalprune.step_rule import UpdateRule

C = TypeVar("C", bound=Options)


class PipelinePlan:
    """The configuration of every stage of the pipeline, with the paths of a run directory.

    Each method raises UsageError for an option of ``config.set`` that doesn't exist or can't be used, and for a
    criterion that the recording won't be able to serve.

    Args:
        config: The pipeline.
    """

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._paths = RunPaths(config.run)

    def pretrain(self) -> PretrainConfig:
        """The dense network."""
        c = self._config
        values = {name: getattr(c, name) for name in ("model", "hidden", "init_from", "key_map", "dataset", "download")}
        values |= {name: getattr(c, name) for name in ("validation_fraction", "split_seed", "augment")}
        return self._make(
            PretrainConfig, "pretrain", self._paths, epochs=c.pretrain_epochs, **self._training(), **values
        )

    def iteration(self, number: int) -> tuple[PosttrainConfig, RecordConfig, FitGammaConfig | None, ApplyMaskConfig]:
        """Train, record, fit (or None, where the criterion reads none) and mask of iteration ``number`` (from 0)."""
        c, here = self._config, self._paths.iteration(number)
        before = self._paths.pretrained if number == 0 else self._paths.iteration(number - 1).pruned
        # Another seed for each iteration, or all of them would see the batches in the same order.
        seed = c.seed * 1000 + number + 1
        train = {**self._training(), "seed": seed, "lr_schedule": "constant", "lr": 0.01}
        names = ("criterion", "scope", "granularity", "schedule", "iterations", "sparsity", "rewind")
        mask = {name: getattr(c, name) for name in names}
        rewind_from = {"none": None, "recording": here.trained, "pretrained": self._paths.pretrained}[c.rewind]
        train_config = self._make(
            PosttrainConfig, "train", here, checkpoint=before, output=here.trained, epochs=c.train_epochs, **train
        )
        record_config = self._make(
            RecordConfig,
            "record",
            here,
            **{**self._compute(), "seed": seed},
            checkpoint=here.trained,
            epochs=c.record_epochs,
            batch_size=c.batch_size,
            checkpoint_every=c.checkpoint_every,
        )
        # Configured in any case, so that a typo in it shows.
        fit_config = self._make(FitGammaConfig, "fit-gamma", here, **self._runtime(), seed=seed)
        mask_config = self._make(
            ApplyMaskConfig,
            "apply-mask",
            here,
            **{**self._compute(), "seed": seed},
            **mask,
            iteration=number + 1,
            rewind_from=rewind_from,
        )
        require_served(mask_config, record_config)
        fitted = load_criterion(mask_config.criterion).needs & {"gamma", "dual_correlation"}
        return train_config, record_config, fit_config if fitted else None, mask_config

    def posttrain(self) -> PosttrainConfig:
        """The training after the last mask."""
        last = self._paths.iteration(self._config.iterations - 1).pruned
        epochs = self._config.posttrain_epochs
        return self._make(PosttrainConfig, "posttrain", self._paths, checkpoint=last, epochs=epochs, **self._training())

    def evaluate(self) -> EvaluateConfig:
        """The measurement of the final network."""
        return self._make(EvaluateConfig, "evaluate", self._paths, **self._compute())

    def _runtime(self) -> dict[str, Any]:
        return {f.name: getattr(self._config, f.name) for f in fields(RuntimeOptions) if f.name != "run"}

    def _compute(self) -> dict[str, Any]:
        names = {f.name for f in fields(ComputeOptions)} - {"run"}
        # Code that pretrain was told to run is the user's own in all later stages of the same command.
        trusted = self._config.trust_code or ":" in self._config.model or ":" in self._config.dataset
        return {**{name: getattr(self._config, name) for name in names}, "trust_code": trusted}

    def _training(self) -> dict[str, Any]:
        c = self._config
        return {**self._compute(), "batch_size": c.batch_size, "checkpoint_every": c.checkpoint_every}

    def _make(self, kind: type[C], stage: str, paths: RunPaths, **values: Any) -> C:
        return apply_settings(kind, stage, {"run": paths.root, **values}, self._config.set)


def require_served(mask: ApplyMaskConfig, record: RecordConfig) -> None:
    """Refuse a criterion that a recording made like this can't serve, before anything is trained for it.

    Of a recording that is there, :func:`causalprune.stages.criterion_inputs.require_recording` knows all.

    Raises:
        UsageError: It can't; the settings to blame are named as ``--set`` takes them.
    """
    criterion = load_criterion(mask.criterion)
    if criterion.reweights:
        mask.check_no_rewind(criterion.name)
    made = {name: getattr(record, name) for name in ("momentum", "stride", "loss_change")}
    for need in (need for need in NEEDS if need in criterion.needs):
        if departure(need, UpdateRule(**made)):
            odd = [name for name, value in made.items() if departure(need, UpdateRule(**{name: value}))]
            plain = ", ".join(_setting(f"record.{name}", getattr(UpdateRule(), name)) for name in odd)
            raise UsageError(
                f"--criterion {criterion.name}",
                expected=NEEDS[need][0],
                found=", ".join(_setting(f"record.{name}", made[name]) for name in odd),
                remedy=f"set {plain}, or choose another criterion",
            )


def _setting(name: str, value: float | str) -> str:
    return f"{name}={value}" if isinstance(value, str) else f"{name}={value:g}"
