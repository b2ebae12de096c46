"""The configuration of every stage: frozen, self-validating, one field an option.

Field order is the order in ``--help``. Nothing here imports PyTorch, so that ``--help`` and ``info`` answer at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from causalprune.data.names import check_dataset
from causalprune.errors import UsageError
from causalprune.models.names import check_model_name
from causalprune.options import (
    Options,
    at_least,
    fraction,
    not_negative,
    one_of,
    open_fraction,
    option,
    positive,
    unit_interval,
)
from causalprune.pruning.names import check_criterion
from causalprune.quantities import check_bytes, check_interval

OPTIMIZERS = ("sgd", "adam", "adamw")
LR_SCHEDULES = ("cosine", "one-cycle", "step", "constant")
AUGMENTATIONS = ("auto", "none", "crop", "crop-flip")
LOSS_CHANGES = ("same-batch", "next-batch")
CODECS = ("exact", "balanced", "small")
SOLVERS = ("lasso", "sgd")
SGD_PRESETS = ("paper-v1", "june-2025", "oct-2025")
NORMALIZATIONS = ("none", "lr", "column")
SCOPES = ("global", "layer")
GRANULARITIES = ("parameter", "filter", "neuron", "layer")
SPARSITY_SCHEDULES = ("cubic", "geometric", "one-shot")
REWINDS = ("none", "recording", "pretrained")


def _device(value: str) -> str | None:
    kind, _, number = value.partition(":")
    ok = value in ("auto", "cpu", "cuda") or (kind == "cuda" and number.isdigit())
    return None if ok else "auto, cpu, cuda or cuda:N"


@dataclass(frozen=True, kw_only=True)
class RuntimeOptions(Options):
    """Where a stage works and on what; shared by all."""

    run: Path = option(Path("run"), "Run directory: inputs and outputs that are not named lie here.", identifies=False)
    overwrite: bool = option(False, "Replace outputs that exist.", identifies=False)
    break_lock: bool = option(
        False, "Take the lock of a process on another host that is known to have ended.", identifies=False
    )


@dataclass(frozen=True, kw_only=True)
class ComputeOptions(RuntimeOptions):
    """What a stage that runs the network computes on."""

    seed: int = option(0, "Seed of every random choice.", check=at_least(0))
    device: str = option("auto", "auto, cpu, cuda or cuda:N.", check=_device, identifies=False)
    deterministic: bool = option(False, "Use deterministic kernels only (the CPU ones always are).")
    num_workers: int = option(
        0,
        "Worker processes of the data loader, for data sets that don't fit in memory.",
        check=at_least(0),
        identifies=False,
    )
    data_root: str = option("", "Folder of the data set's files.", identifies=False)
    trust_code: bool = option(False, "Run the package.module:factory that an input checkpoint names.", identifies=False)


@dataclass(frozen=True, kw_only=True)
class DataOptions(Options):
    """Which data; pretrain decides, later stages read it from the checkpoint."""

    dataset: str = option(
        "digits", "Data set: a name, imagefolder:DIR, npz:FILE or package.module:factory.", check=check_dataset
    )
    download: bool = option(False, "Let torchvision download a missing data set.", identifies=False)
    validation_fraction: float = option(
        0.1, "Share of the training set held out to choose the best epoch.", check=open_fraction
    )
    split_seed: int = option(0, "Seed of the validation split.", check=at_least(0))
    augment: str = option("auto", "Training augmentation.", check=one_of(AUGMENTATIONS))


def _hidden(value: str) -> str | None:
    parts = value.split(",") if value else []
    return None if all(p.strip().isdigit() and int(p) > 0 for p in parts) else "sizes such as 300,100"


@dataclass(frozen=True, kw_only=True)
class ModelOptions(Options):
    """Which model; pretrain decides, later stages read it from the checkpoint."""

    model: str = option(
        "",
        "Model: a name, torchvision:NAME or package.module:factory; left out: lenet for images, mlp for tables.",
        check=check_model_name,
    )
    hidden: str = option("", "Hidden layer sizes of mlp, such as 300,100.", check=_hidden)
    init_from: Path | None = option(None, "Start from the weights in this .safetensors, .pt or .pth file.")
    key_map: tuple[str, ...] = option(
        (), "Rename weights of --init-from whose name starts with OLD: OLD=NEW; may be repeated.", metavar="OLD=NEW"
    )

    def check(self) -> None:
        """Key maps need a file and the form OLD=NEW."""
        super().check()
        for rule in self.key_map:
            if "=" not in rule:
                raise UsageError("--key-map", expected="OLD=NEW", found=repr(rule))
        if self.key_map and self.init_from is None:
            raise UsageError("--key-map", expected="--init-from FILE beside it", found="none")


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(Options):
    """How pretrain and posttrain optimise."""

    epochs: int = option(30, "Epochs.", check=at_least(0))
    batch_size: int = option(64, "Minibatch size.", check=at_least(1))
    optimizer: str = option("sgd", "Optimizer.", check=one_of(OPTIMIZERS))
    lr: float = option(0.05, "Peak learning rate.", check=positive)
    momentum: float = option(0.9, "Momentum of sgd.", check=fraction)
    nesterov: bool = option(True, "Nesterov momentum with sgd.", flag="--nesterov/--no-nesterov")
    weight_decay: float = option(5e-4, "Weight decay.", check=not_negative)
    lr_schedule: str = option("cosine", "Learning-rate schedule.", check=one_of(LR_SCHEDULES))
    lr_decay: float = option(0.1, "Factor of each decay of the step schedule.", check=positive)
    decay_at: str = option(
        "0.5,0.75", "Where the step schedule decays, as shares of the training.", check=lambda v: _decay_points(v)
    )
    label_smoothing: float = option(0.0, "Label smoothing.", check=fraction)
    patience: int = option(0, "Stop after so many epochs without progress on validation; 0 never.", check=at_least(0))
    amp: str = option("none", "Automatic mixed precision.", check=one_of(("none", "bf16")))
    compile: bool = option(False, "Compile the model with torch.compile.")
    checkpoint_every: str = option(
        "5min", "How often to save for a resume: 500steps, 10min or never.", check=check_interval, identifies=False
    )

    def decay_points(self) -> tuple[float, ...]:
        """``decay_at`` as numbers."""
        return tuple(float(p) for p in self.decay_at.split(",") if p.strip())


def _decay_points(value: str) -> str | None:
    try:
        points = [float(p) for p in value.split(",") if p.strip()]
    except ValueError:
        points = [math.nan]
    ok = all(0 < p < 1 for p in points) and points == sorted(points)
    return None if ok else "rising shares in (0, 1) such as 0.5,0.75"


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(ModelOptions, DataOptions, TrainingOptions, ComputeOptions):
    """Train a dense network: reach a basin of attraction."""

    output: Path | None = option(None, "Checkpoint to write [run/pretrained.safetensors].", identifies=False)


@dataclass(frozen=True, kw_only=True)
class PosttrainConfig(TrainingOptions, ComputeOptions):
    """Train the pruned network with its mask held."""

    checkpoint: Path | None = option(None, "Checkpoint to start from [run/pruned.safetensors].", identifies=False)
    output: Path | None = option(None, "Checkpoint to write [run/final.safetensors].", identifies=False)


@dataclass(frozen=True, kw_only=True)
class RecordConfig(ComputeOptions):
    """Run plain SGD and record every step."""

    epochs: int = option(5, "Epochs to record.", check=at_least(1))
    steps: int | None = option(None, "Optimizer steps to record, instead of epochs.", check=at_least(1))
    batch_size: int = option(64, "Minibatch size.", check=at_least(1))
    lr: float = option(0.01, "Learning rate of the recording.", check=positive)
    momentum: float = option(0.0, "Momentum of the recording; above 0 the fit needs lags.", check=fraction)
    loss_change: str = option(
        "same-batch", "Loss change of a step: on the same minibatch, or to the next one.", check=one_of(LOSS_CHANGES)
    )
    stride: int = option(1, "Optimizer steps in one row.", check=at_least(1))
    augment: str = option("none", "Augmentation while recording.", check=one_of(AUGMENTATIONS))
    codec: str = option("balanced", "How deltas are stored: bit-exact, or rounded and smaller.", check=one_of(CODECS))
    checkpoint_every: str = option(
        "5min", "How often to save for a resume: 500steps, 10min or never.", check=check_interval, identifies=False
    )
    checkpoint: Path | None = option(None, "Checkpoint to start from [run/pretrained.safetensors].", identifies=False)
    store: Path | None = option(None, "Trajectory store to write [run/trajectory.zarr].", identifies=False)
    output: Path | None = option(
        None, "Checkpoint to write: the weights after the recording [run/recorded.safetensors].", identifies=False
    )
    dry_run: bool = option(False, "Predict rows, bytes and time; write nothing.", identifies=False)
    force: bool = option(False, "Start although the disk seems too small.", identifies=False)


@dataclass(frozen=True, kw_only=True)
class FitGammaConfig(RuntimeOptions):
    """Fit the Granger coefficients γ of a recording."""

    store: Path | None = option(None, "Trajectory store [run/trajectory.zarr].", identifies=False)
    recording: str | None = option(None, "Recording in the store [the last].")
    name: str = option("default", "Name of the fit in the store.", identifies=False)
    solver: str = option(
        "lasso", "lasso: exact and certified; sgd: the authors' truncated gradient.", check=one_of(SOLVERS)
    )
    preset: str = option("june-2025", "Which of the authors' variants --solver sgd follows.", check=one_of(SGD_PRESETS))
    alpha: float | None = option(
        None, "L1 coefficient, in scikit-learn's scaling of the columns as normalised.", check=positive
    )
    alpha_ratio: float | None = option(None, "L1 coefficient as a share of alpha_max [0.1].", check=unit_interval)
    l1_ratio: float = option(1.0, "1: lasso; below 1: elastic net.", check=unit_interval)
    scope: str = option("global", "One fit over all layers, or one a layer.", check=one_of(SCOPES))
    granularity: str = option("parameter", "One γ per parameter, filter, neuron or layer.", check=one_of(GRANULARITIES))
    normalize: str = option(
        "none", "Scaling of the columns: none; lr (Δθ²/η²); column (unit norm).", check=one_of(NORMALIZATIONS)
    )
    lags: int | None = option(
        None, "Lags of a momentum model [1 if the recording had momentum, else 0].", check=at_least(0)
    )
    memory: str = option("2GiB", "Largest design matrix to hold in memory.", check=check_bytes, identifies=False)
    tol: float = option(1e-6, "Relative duality gap to certify.", check=positive)
    seed: int = option(0, "Seed of --solver sgd.", check=at_least(0))

    def check(self) -> None:
        """Only one way to say α."""
        super().check()
        if self.alpha is not None and self.alpha_ratio is not None:
            raise UsageError("--alpha and --alpha-ratio", expected="one of them", found="both")
        if self.lags is not None and self.lags > 1:
            raise UsageError("--lags", expected="0 or 1", found=str(self.lags))


@dataclass(frozen=True, kw_only=True)
class ApplyMaskConfig(ComputeOptions):
    """Prune: turn a fit, or another criterion, into a mask."""

    sparsity: float | None = option(
        None, "Fraction of prunable weights that are zero afterwards, in [0, 1).", check=fraction
    )
    zero: bool = option(False, "Prune every parameter with γ = 0 (the paper's rule) instead of to a sparsity.")
    criterion: str = option(
        "effect",
        "What orders the parameters: gamma, effect, curvature, magnitude, random, fisher, obd, or an installed one.",
        check=check_criterion,
    )
    scope: str = option("global", "Rank over all layers together, or each layer by itself.", check=one_of(SCOPES))
    granularity: str = option("parameter", "Prune single weights or whole groups.", check=one_of(GRANULARITIES))
    schedule: str = option("one-shot", "How --sparsity is reached over --iterations.", check=one_of(SPARSITY_SCHEDULES))
    iteration: int = option(1, "Which iteration of the schedule this is, from 1.", check=at_least(1))
    iterations: int = option(1, "Iterations of the schedule.", check=at_least(1))
    rewind: str = option(
        "none", "Weights after the mask: as they are, as before the recording, or as pretrained.", check=one_of(REWINDS)
    )
    reset_batchnorm: bool = option(False, "Reset batch-normalisation statistics and affine parameters.")
    checkpoint: Path | None = option(None, "Checkpoint to prune [run/recorded.safetensors].", identifies=False)
    store: Path | None = option(None, "Trajectory store [run/trajectory.zarr].", identifies=False)
    recording: str | None = option(None, "Recording in the store [the last].")
    fit: str = option("default", "Name of the fit in the store.", identifies=False)
    rewind_from: Path | None = option(None, "Checkpoint to rewind to [run/pretrained.safetensors].", identifies=False)
    output: Path | None = option(None, "Checkpoint to write [run/pruned.safetensors].", identifies=False)

    def check(self) -> None:
        """Exactly one of sparsity and zero; an iteration within the schedule."""
        super().check()
        if self.zero == (self.sparsity is not None):
            found = "both" if self.zero else "neither"
            raise UsageError("apply-mask", expected="one of --sparsity S and --zero", found=found)
        if self.iteration > self.iterations:
            raise UsageError(
                "--iteration", expected=f"at most --iterations {self.iterations}", found=str(self.iteration)
            )


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(ComputeOptions):
    """Measure a checkpoint on the test split."""

    checkpoint: Path | None = option(None, "Checkpoint to evaluate [run/final.safetensors].", identifies=False)
    reference: Path | None = option(
        None, "Dense checkpoint to compare with [run/pretrained.safetensors if there].", identifies=False
    )
    batch_size: int = option(512, "Minibatch size.", check=at_least(1))
    output: Path | None = option(None, "Result to write [run/results/evaluate.json].", identifies=False)
    plot: Path | None = option(None, "Draw the result into this PNG file.", identifies=False)


@dataclass(frozen=True, kw_only=True)
class RunConfig(ModelOptions, DataOptions, ComputeOptions):
    """The whole pipeline: pretrain, then N times train, record, fit and mask, then posttrain and evaluate."""

    iterations: int = option(5, "Pruning iterations.", check=at_least(1))
    sparsity: float = option(0.9, "Fraction of prunable weights that are zero at the end.", check=fraction)
    schedule: str = option("cubic", "How the sparsity rises over the iterations.", check=one_of(SPARSITY_SCHEDULES))
    criterion: str = option("effect", "What orders the parameters; see apply-mask --help.", check=check_criterion)
    scope: str = option("global", "Rank over all layers together, or each layer by itself.", check=one_of(SCOPES))
    granularity: str = option("parameter", "Prune single weights or whole groups.", check=one_of(GRANULARITIES))
    rewind: str = option("none", "Weights after each mask; see apply-mask --help.", check=one_of(REWINDS))
    pretrain_epochs: int = option(30, "Epochs of pretraining.", check=at_least(0))
    train_epochs: int = option(2, "Epochs of training before each recording.", check=at_least(0))
    record_epochs: int = option(5, "Epochs of each recording.", check=at_least(1))
    posttrain_epochs: int = option(30, "Epochs of training after the last mask.", check=at_least(0))
    batch_size: int = option(64, "Minibatch size of training and recording.", check=at_least(1))
    checkpoint_every: str = option(
        "5min", "How often to save for a resume: 500steps, 10min or never.", check=check_interval, identifies=False
    )
    set: tuple[str, ...] = option(
        (), "Any option of one stage, such as record.lr=0.02; may be repeated.", metavar="STAGE.OPTION=VALUE"
    )


@dataclass(frozen=True, kw_only=True)
class InfoConfig(RuntimeOptions):
    """Say what a store, a checkpoint or a run directory is."""

    path: Path | None = option(None, "Store, checkpoint or run directory [the run directory].", flag="PATH")
    verify: bool = option(False, "Read everything again and compare every checksum.")


STAGE_CONFIGS: dict[str, type[Any]] = {
    "pretrain": PretrainConfig,
    "record": RecordConfig,
    "fit-gamma": FitGammaConfig,
    "apply-mask": ApplyMaskConfig,
    "posttrain": PosttrainConfig,
    "evaluate": EvaluateConfig,
    "info": InfoConfig,
    "run": RunConfig,
}
