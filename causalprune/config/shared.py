"""Options that several commands share: run directory, computation, data, model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass
from pathlib import Path
from typing import Any

from causalprune.base.compute.shapes import Tokens
from causalprune.base.errors import UsageError
from causalprune.base.options import COMMON, Options, at_least, check_device, flag_of, one_of, open_fraction, option
from causalprune.base.paths import parse_place
from causalprune.base.signals import DEFAULT_STOP_SIGNALS, check_signals
from causalprune.base.specs import CHANNELS, INTEGERS
from causalprune.data.names import AUGMENTATIONS, DATASETS, TABLES, TASK_CHOICES, TEXTS, check_dataset
from causalprune.models.names import check_model_name, default_model


def store_option(help: str, **declared: Any) -> Any:
    """Declare an option that is a store, on a disk or in object storage."""
    return option(
        None,
        help,
        parse=lambda text, _: parse_place(text),
        metavar="PATH|URL",
        affects_result=False,
        **{"panel": "Files"} | declared,
    )


@dataclass(frozen=True, kw_only=True)
class RuntimeOptions(Options):
    """The run directory and the signals that stop a command; shared by all."""

    panel = COMMON

    run: Path = option(
        Path("run"), "Run directory: inputs and outputs that are not named lie here.", affects_result=False
    )
    stop_signals: str = option(
        DEFAULT_STOP_SIGNALS,
        "Signals that make the stage save and exit 75 (76 with nothing to save), out of TERM, USR1, USR2, HUP, QUIT, "
        "ALRM, XCPU, PWR. SIGINT does the same and exits 130.",
        check=check_signals,
        listed=True,
        affects_result=False,
    )

    @staticmethod
    def label(f: Field[Any]) -> str:
        """A flag: these are options of a command."""
        return flag_of(f)


@dataclass(frozen=True, kw_only=True)
class OutputOptions(RuntimeOptions):
    """Options of a command that writes."""

    panel = COMMON

    overwrite: bool = option(False, "Replace outputs that exist.", affects_result=False)


@dataclass(frozen=True, kw_only=True)
class LeaseOptions(Options):
    """Options of a command whose lock may outlive its process: in object storage, or in a sweep."""

    panel = COMMON

    break_lock: bool = option(
        False,
        "Take over what a process on another host holds that is known to have ended: a store in object storage, or a "
        "cell of a sweep.",
        affects_result=False,
    )


@dataclass(frozen=True, kw_only=True)
class ComputeOptions(OutputOptions):
    """Options of a command that runs the network."""

    panel = "Seed, device and threads"

    seed: int = option(0, "Seed of every random choice.", check=at_least(0))
    device: str = option(
        "auto", "Where to compute: auto, cpu, cuda or cuda:N.", check=check_device, affects_result=False
    )
    deterministic: bool = option(False, "Use deterministic kernels only (the CPU ones always are).")
    num_workers: int = option(
        0,
        "Worker processes of the data loader, for data sets that don't fit in memory.",
        check=at_least(0),
        affects_result=False,
    )
    data_root: str = option("", "Folder of the data set's files.", affects_result=False, panel="Files")
    check_contents: bool = option(
        False,
        "Remember and compare what is in the files of an imagefolder, too, not only their names and sizes.",
        affects_result=False,
        panel="Files",
    )
    trust_code: bool = option(
        False, "Run the package.module:factory that an input checkpoint names.", affects_result=False, panel="Files"
    )


@dataclass(frozen=True, kw_only=True)
class DataOptions(Options):
    """The data set; pretrain chooses it, later commands read it from the checkpoint."""

    panel = "Data"

    dataset: str = option(
        "digits",
        "Data set: a name, imagefolder:DIR, npz:FILE, csv:FILE, parquet:FILE or package.module:factory.",
        check=check_dataset,
    )
    download: bool = option(False, "Let torchvision download a missing data set.", affects_result=False)
    validation_fraction: float = option(
        0.1, "Share of the training set held out to choose the best epoch.", check=open_fraction
    )
    split_seed: int = option(0, "Seed of the validation split.", check=at_least(0))
    augment: str = option("auto", "Training augmentation.", check=one_of(AUGMENTATIONS))
    task: str = option(
        "auto",
        "What the targets are; auto: in an array by their dtype and values.",
        check=one_of(TASK_CHOICES),
        formerly="auto",
    )
    channels: str = option(
        "auto",
        "Where images in an array have their channels: (N, C, H, W) first, (N, H, W, C) last; auto: by the shape.",
        check=one_of(CHANNELS),
        formerly="auto",
    )
    integers: str = option(
        "auto",
        "What whole numbers (N, F) in an array are: quantities, standardized, or indices, which a network looks up; "
        "auto: indices for a network of yours.",
        check=one_of(INTEGERS),
        formerly="auto",
    )
    target: str = option(
        "",
        "Column of a table that is to be predicted; left out: the one called label, target, class or y.",
        formerly="",
    )


REESTIMATED = 1000
"""Training samples from which running statistics are re-estimated unless told otherwise."""


def _none_or_several(value: int) -> str | None:
    return None if value == 0 or value >= 2 else "0, or at least 2"


def reestimate_option() -> Any:
    """Declare ``reestimate_batchnorm``, for a command that may come right after a mask.

    A function, because a field of a base class would come before all fields of a command in its help.
    """
    return option(
        REESTIMATED,
        "Training samples from which the running statistics of batch normalization are re-estimated where neither "
        "training nor repair followed the last mask; 0 leaves them as they are.",
        check=_none_or_several,
        # Not so with batch normalization, but most networks have none.
        formerly=REESTIMATED,
    )


def _hidden(value: str) -> str | None:
    parts = [part.strip() for part in value.split(",")] if value else []
    # Not isdigit(), which int() doesn't agree with about ².
    ok = all(part.isdecimal() and len(part) < 10 and int(part) > 0 for part in parts)
    return None if ok else "sizes such as 300,100"


def usual_model(dataset: str) -> str:
    """The model of a data set unless another is said; empty where only its files tell."""
    if not isinstance(dataset, str) or dataset not in DATASETS:
        return ""
    return default_model((1,) if dataset in TABLES else Tokens((1,), 1) if dataset in TEXTS else (1, 1, 1))


_ADDED = ("ignore", "allow_mismatch", "keep_zeros")


@dataclass(frozen=True, kw_only=True)
class ModelOptions(Options):
    """The model; pretrain chooses it, later commands read it from the checkpoint."""

    panel = "Model"

    model: str = option(
        "",
        "Model: a name, torchvision:NAME or package.module:factory; left out: lenet for images, mlp for tables, "
        "tinygpt for texts.",
        check=check_model_name,
    )
    hidden: str = option("", "Hidden layer sizes of mlp, such as 300,100.", check=_hidden, listed=True)
    init_from: Path | None = option(
        None,
        "Start from the weights, and the masks, in this file: .safetensors, or .pt, .pth, .ckpt, .bin, .pt.tar, "
        ".pth.tar of torch.save.",
    )
    key_map: tuple[str, ...] = option(
        (),
        "Rename weights of --init-from whose name starts with OLD: OLD=NEW; may be repeated.",
        metavar="OLD=NEW",
        repeated=True,
    )
    ignore: tuple[str, ...] = option(
        (),
        "Leave out entries of --init-from with such names, as 'fc.*', and start these weights anew; may be repeated.",
        metavar="PATTERN",
        repeated=True,
        formerly=(),
    )
    allow_mismatch: bool = option(
        False,
        "Start weights anew that have another shape in --init-from, such as a head for other classes.",
        formerly=False,
    )
    keep_zeros: bool = option(
        False, "Take the weights that are 0 in --init-from for pruned ones, and hold them at 0.", formerly=False
    )

    @classmethod
    def written_out(cls, stored: Mapping[str, Any]) -> dict[str, Any]:
        """With the model that a named data set gets when none is said."""
        values = super().written_out(stored)
        return values | {"model": values["model"] or usual_model(values.get("dataset", ""))}

    def check(self) -> None:
        """Require key maps to have the form OLD=NEW, and a file that they apply to."""
        super().check()
        for rule in self.key_map:
            if "=" not in rule:
                raise UsageError("`key_map`", expected="OLD=NEW", found=repr(rule))
        for name in ("key_map", *_ADDED):
            if getattr(self, name) and self.init_from is None:
                raise UsageError(f"`{name}`", expected="`init_from=FILE` beside it", found="none")
