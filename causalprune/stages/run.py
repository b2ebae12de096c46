"""The whole pipeline as one resumable command: pretrain, N × [train, record, fit, mask], posttrain, evaluate."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any, TypeVar

from causalprune.config import (
    ApplyMaskConfig,
    EvaluateConfig,
    FitGammaConfig,
    PosttrainConfig,
    PretrainConfig,
    RecordConfig,
    RunConfig,
)
from causalprune.errors import MismatchError
from causalprune.files import make_directory, read_json, write_json
from causalprune.locking import FileLock
from causalprune.options import Options
from causalprune.paths import RunPaths, lock_path
from causalprune.reporting import Reporter
from causalprune.settings import apply_settings
from causalprune.stages.apply_mask import apply_mask
from causalprune.stages.artefacts import StageResult
from causalprune.stages.evaluate import EvaluateResult, evaluate
from causalprune.stages.fit_gamma import fit_gamma
from causalprune.stages.posttrain import posttrain
from causalprune.stages.pretrain import pretrain
from causalprune.stages.record import record

C = TypeVar("C", bound=Options)


@dataclass(frozen=True, kw_only=True)
class RunResult(StageResult):
    """Result of run.

    Attributes:
        iterations: Sparsity, rows recorded, R² of the fit and nonzero γ of each iteration.
        evaluation: See :class:`causalprune.stages.evaluate.EvaluateResult`.
    """

    iterations: list[dict[str, Any]]
    evaluation: dict[str, Any]


def run(config: RunConfig, reporter: Reporter | None = None) -> RunResult:
    """Run the pipeline; started again after any interruption, it goes on where it stopped and ends with the same bytes.

    Every stage knows by its output whether it is done, so this function only calls them in order. Iteration i lies in
    ``iteration-00i/``; its training starts from the network that the iteration before left.

    Args:
        config: The pipeline; ``config.set`` reaches every option of every stage.
        reporter: Shows progress; silent when left out.

    Returns:
        The evaluation of the final network and a line on each iteration.

    Raises:
        CausalpruneError: See :mod:`causalprune.errors` for the family.
    """
    reporter = reporter or Reporter()
    started = time.monotonic()
    stages = _Stages(config)
    paths = stages.paths
    # Every stage is configured before the first one starts: a typo must not show after an hour.
    plan = [stages.iteration(number) for number in range(config.iterations)]
    pretrain_config, posttrain_config, evaluate_config = stages.pretrain(), stages.posttrain(), stages.evaluate()
    make_directory(paths.root)
    with FileLock(lock_path(paths.run_config), break_lock=config.break_lock):
        _claim(config, paths)
        first = pretrain(pretrain_config, reporter)
        lines, all_done = [], first.already_done
        for number, (train_config, record_config, fit_config, mask_config) in enumerate(plan, start=1):
            label = _Labelled(reporter, f"{number}/{config.iterations} ")
            posttrain(train_config, label)
            recorded = record(record_config, label)
            fitted = fit_gamma(fit_config, label)
            masked = apply_mask(mask_config, label)
            all_done = all_done and masked.already_done
            lines.append(
                {
                    "iteration": number,
                    "sparsity": masked.sparsity,
                    "rows": recorded.rows,
                    "stored_bytes": recorded.stored_bytes,
                    "mean_loss_change": recorded.mean_loss_change,
                    "r2": fitted.evidence["r2"],
                    "num_nonzero": fitted.evidence["num_nonzero"],
                    "relative_gap": fitted.evidence["relative_gap"],
                }
            )
        final = posttrain(posttrain_config, reporter)
        evaluated: EvaluateResult = evaluate(evaluate_config, reporter)
        result = RunResult(
            stage="run",
            inputs={},
            outputs={"checkpoint": str(paths.final), "result": str(paths.result("run"))},
            already_done=all_done and final.already_done,
            seconds=time.monotonic() - started,
            iterations=lines,
            evaluation=evaluated.evaluation,
        )
        write_json(paths.result("run"), result.to_json())
        return result


class _Stages:
    """The configuration of every stage of the pipeline."""

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self.paths = RunPaths(config.run)

    def pretrain(self) -> PretrainConfig:
        c = self._config
        values = {name: getattr(c, name) for name in ("model", "hidden", "init_from", "key_map", "dataset", "download")}
        values |= {name: getattr(c, name) for name in ("validation_fraction", "split_seed", "augment")}
        return self._make(
            PretrainConfig, "pretrain", self.paths, epochs=c.pretrain_epochs, **self._training(), **values
        )

    def iteration(self, number: int) -> tuple[PosttrainConfig, RecordConfig, FitGammaConfig, ApplyMaskConfig]:
        c, here = self._config, self.paths.iteration(number)
        before = self.paths.pretrained if number == 0 else self.paths.iteration(number - 1).pruned
        # Another seed for each iteration, or all of them would see the batches in the same order.
        seed = c.seed * 1000 + number + 1
        train = {**self._training(), "seed": seed, "lr_schedule": "constant", "lr": 0.01}
        names = ("criterion", "scope", "granularity", "schedule", "iterations", "sparsity", "rewind")
        mask = {name: getattr(c, name) for name in names}
        rewind_from = {"none": None, "recording": here.trained, "pretrained": self.paths.pretrained}[c.rewind]
        return (
            self._make(
                PosttrainConfig, "train", here, checkpoint=before, output=here.trained, epochs=c.train_epochs, **train
            ),
            self._make(
                RecordConfig,
                "record",
                here,
                **{**self._compute(), "seed": seed},
                checkpoint=here.trained,
                epochs=c.record_epochs,
                batch_size=c.batch_size,
                checkpoint_every=c.checkpoint_every,
            ),
            self._make(FitGammaConfig, "fit-gamma", here, overwrite=c.overwrite, seed=seed),
            self._make(
                ApplyMaskConfig,
                "apply-mask",
                here,
                **{**self._compute(), "seed": seed},
                **mask,
                iteration=number + 1,
                rewind_from=rewind_from,
            ),
        )

    def posttrain(self) -> PosttrainConfig:
        last = self.paths.iteration(self._config.iterations - 1).pruned
        epochs = self._config.posttrain_epochs
        return self._make(PosttrainConfig, "posttrain", self.paths, checkpoint=last, epochs=epochs, **self._training())

    def evaluate(self) -> EvaluateConfig:
        return self._make(EvaluateConfig, "evaluate", self.paths, **self._compute())

    def _compute(self) -> dict[str, Any]:
        names = ("seed", "device", "deterministic", "num_workers", "data_root", "trust_code", "overwrite", "break_lock")
        # Code that pretrain was told to run is the user's own in all later stages of the same command.
        trusted = self._config.trust_code or ":" in self._config.model or ":" in self._config.dataset
        return {**{name: getattr(self._config, name) for name in names}, "trust_code": trusted}

    def _training(self) -> dict[str, Any]:
        c = self._config
        return {**self._compute(), "batch_size": c.batch_size, "checkpoint_every": c.checkpoint_every}

    def _make(self, kind: type[C], stage: str, paths: RunPaths, **values: Any) -> C:
        return apply_settings(kind, stage, {"run": paths.root, **values}, self._config.set)


class _Labelled(Reporter):
    """Puts the iteration before what a stage reports."""

    def __init__(self, reporter: Reporter, label: str) -> None:
        self._reporter, self._label = reporter, label

    def task(self, description: str, total: int) -> Any:
        return self._reporter.task(self._label + description, total)

    def warn(self, message: str) -> None:
        self._reporter.warn(self._label + message)


def _claim(config: RunConfig, paths: RunPaths) -> None:
    """Bind the run directory to this configuration.

    Raises:
        MismatchError: It belongs to another one.
    """
    mine = json.loads(json.dumps(config.identifying()))
    if paths.run_config.exists() and not config.overwrite:
        theirs = read_json(paths.run_config)
        changed = [k for k in mine if not isinstance(theirs, dict) or theirs.get(k) != mine[k]]
        if changed:
            found = ", ".join(f"{k}={theirs.get(k)!r}" if isinstance(theirs, dict) else k for k in changed[:3])
            raise MismatchError(
                f"{paths.root}",
                expected="a run of this very configuration",
                found=f"one with {found}",
                remedy="pass --overwrite to start anew, or choose another --run",
            )
        return
    write_json(paths.run_config, mine)
