"""What a checkpoint records about its model and data, so that the next stage can rebuild both."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from causalprune.base.compute.shapes import MAX_SIZE, InputShape, shape_from_json, shape_to_json
from causalprune.base.errors import CorruptError, UsageError

CHANNELS = ("auto", "first", "last")
"""Where an image in an array has its channels; ``auto`` decides by the shape."""

INTEGERS = ("auto", "quantities", "indices")
"""What whole numbers (N, F) in an array are: numbers to be standardized, or such as a network looks up."""

_LATER = {"channels": "auto", "task": "auto", "integers": "auto", "target": ""}
"""Fields of a data set that were added to the format, left out where they have this default."""


@dataclass(frozen=True)
class Headline:
    """The metric that a network of some task is judged by, and how people see it.

    Attributes:
        metric: Its key in the metrics.
        label: What it is called.
        baseline: The best answer that doesn't look at the input, such as ``always predicting the mean``.
        baseline_metric: Key of the baseline's value in the metrics; empty if that is 0.
        percent: Whether it is a share that is shown in percent.
        falling: Whether it is a positive number of which lower ones are better, compared by their logarithms.
    """

    metric: str
    label: str
    baseline: str
    baseline_metric: str = ""
    percent: bool = False
    falling: bool = False

    @classmethod
    def of(cls, measured: Mapping[str, Any]) -> Headline:
        """The headline of metrics, or of a row of a sweep; ``headline`` in them says it unless it is a usual one."""
        said = measured.get("headline")
        if said:
            return cls(**said)
        # A row of a sweep says which it is; it may lack the value, and metrics may have None.
        classified = measured.get("metric") == ACCURACY.metric or measured.get(ACCURACY.metric) is not None
        return ACCURACY if classified else R2

    def height(self, value: float) -> float:
        """A value on a scale where more is better and differences can be compared."""
        return -math.log(value) if self.falling else value

    def baseline_value(self, measured: Mapping[str, Any]) -> float:
        """The value of the baseline."""
        return float(measured[self.baseline_metric]) if self.baseline_metric else 0.0

    def shown(self, value: float) -> str:
        """A value as text."""
        return f"{100 * value:.2f} %" if self.percent else f"{value:.3g}"


COMPARED = {"flops": "FLOPs per sample, zeros skipped", "csr": "weights as sparse rows"}
"""What costs of a dense and a pruned network are called, wherever they are compared."""

ACCURACY = Headline("top1", "accuracy", "always naming the most frequent class", "guessing", percent=True)
R2 = Headline("r2", "R²", "always predicting the mean")


@dataclass(frozen=True)
class DataSpec:
    """A data set and its validation split.

    Attributes:
        name: ``digits``, ``mnist``, …, ``imagefolder:DIR``, ``npz:FILE``, ``csv:FILE``, ``parquet:FILE`` or
            ``package.module:factory``.
        root: Folder of the data set's files (``data_root``); empty where none is needed.
        download: Whether a missing torchvision data set may be downloaded.
        validation_fraction: Share of the training set held out for validation, in (0, 1).
        split_seed: Seed of that split; two stages with the same seed see the same split.
        augment: Random crop and flip of training images: ``auto`` is what the data set's literature does.
        channels: Axis of the channels in an array of images, one of :data:`CHANNELS`.
        task: What the targets in an array are: the name of a task, or ``auto`` to decide by their dtype and values.
        integers: What whole numbers (N, F) in an array are, one of :data:`INTEGERS`; ``auto`` are quantities in an
            array, and indices in a Dataset of PyTorch.
        target: The column of a table that is to be predicted; empty for the one that is called so.
    """

    name: str = "digits"
    root: str = ""
    download: bool = False
    validation_fraction: float = 0.1
    split_seed: int = 0
    augment: Literal["auto", "none", "crop", "crop-flip"] = "auto"
    channels: str = "auto"
    task: str = "auto"
    integers: str = "auto"
    target: str = ""

    def folder(self) -> Path:
        """Where the files of a named data set are.

        Raises:
            UsageError: It isn't known.
        """
        if not self.root:
            raise UsageError(
                "`data_root`",
                expected=f"the folder with the files of {self.name}",
                found="none",
                remedy="name it, or one that `download` may fill",
            )
        return _expanded(self.root)

    def location(self) -> Path:
        """The path after a prefix such as ``imagefolder:`` or ``npz:``; relative to the root, if there is one."""
        return _expanded(self.root) / _expanded(self.name.partition(":")[2])

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; :meth:`from_json` reads it back. Earlier files lack what is left out here."""
        return {name: v for name, v in asdict(self).items() if name not in _LATER or v != _LATER[name]}

    @classmethod
    def from_json(cls, value: Any, source: str) -> DataSpec:
        """Read what :meth:`to_json` wrote; ``source`` names the file in the error."""
        _check_fields(cls, value, source, optional=_LATER)
        types = {"download": bool, "validation_fraction": float, "split_seed": int}
        known = value.get("channels", "auto") in CHANNELS and value.get("integers", "auto") in INTEGERS
        if not known or any(type(v) is not types.get(name, str) for name, v in value.items()):
            raise CorruptError(source, expected="a data set's specification", found=f"{value}"[:100])
        return cls(**value)


@dataclass(frozen=True)
class ModelSpec:
    """A model and the data that it is sized for.

    Attributes:
        name: A registered name, ``torchvision:NAME`` or ``package.module:factory``.
        input_shape: Shape of one sample.
        num_outputs: Number of classes, labels or quantities.
        hidden: Hidden layer sizes of ``mlp``; empty for the model's own.
        task: What the outputs mean; empty for a classification, or a regression if there is one output.
        output_shape: Shape of the outputs for one sample; empty for (``num_outputs``,).
    """

    name: str
    input_shape: InputShape
    num_outputs: int
    hidden: tuple[int, ...] = ()
    task: str = ""
    output_shape: tuple[int, ...] = ()

    @property
    def outputs(self) -> tuple[int, ...]:
        """Shape of the outputs for one sample."""
        return self.output_shape or (self.num_outputs,)

    @property
    def meaning(self) -> str:
        """The task, also where it isn't said."""
        return self.task or ("regression" if self.num_outputs == 1 else "classification")

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; :meth:`from_json` reads it back. Earlier files lack what is left out here."""
        usual = replace(self, task="")
        value = {**asdict(self), "hidden": list(self.hidden), "input_shape": shape_to_json(self.input_shape)}
        if usual.meaning == self.task or not self.task:
            del value["task"]
        if self.outputs == (self.num_outputs,):
            del value["output_shape"]
        else:
            value["output_shape"] = list(self.output_shape)
        return value

    @classmethod
    def from_json(cls, value: Any, source: str) -> ModelSpec:
        """Read what :meth:`to_json` wrote; ``source`` names the file in the error."""
        _check_fields(cls, value, source, optional=("task", "output_shape"))
        name, shape, hidden, outputs = (value[key] for key in ("name", "input_shape", "hidden", "num_outputs"))
        task, output_shape = value.get("task", ""), value.get("output_shape", [])
        lists = all(isinstance(each, list) for each in (hidden, output_shape))
        lists = lists and len(hidden) <= 1000 and len(output_shape) <= 8
        sizes = [*hidden, *output_shape, outputs] if lists else [None]
        texts = isinstance(name, str) and isinstance(task, str)
        try:
            if not texts or not all(type(n) is int and 0 < n < MAX_SIZE for n in sizes):
                raise ValueError
            return cls(name, shape_from_json(shape), outputs, tuple(hidden), task, tuple(output_shape))
        except ValueError as error:
            raise CorruptError(source, expected="a model specification", found=f"{value}"[:100]) from error


def _expanded(text: str) -> Path:
    if "\0" in text:
        raise UsageError("`dataset` or `data_root`", expected="a path", found=repr(text))
    try:
        return Path(text).expanduser()
    except RuntimeError:
        # A user that this machine doesn't know: the shell would leave it as it is, too.
        return Path(text)


def _check_fields(cls: type, value: Any, source: str, *, optional: Collection[str] = ()) -> None:
    names = {f.name for f in fields(cls)}
    if not isinstance(value, dict) or not names - set(optional) <= set(value) <= names:
        found = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise CorruptError(f"{cls.__name__} in {source}", expected=f"the fields {sorted(names)}", found=str(found))
