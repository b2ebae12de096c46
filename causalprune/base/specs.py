"""What a checkpoint records about its model and data, so that the next stage can rebuild both."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from causalprune.base.errors import CorruptError, UsageError

Task = Literal["classification", "regression"]

CHANNELS = ("auto", "first", "last")
"""Where an image in an array has its channels; ``auto`` decides by the shape."""

TASKS = ("auto", *get_args(Task))
"""What targets in an array are; ``auto`` decides by their dtype and values."""

MAX_SIZE = 2**31
"""No layer, channel or image side is this large; a file that claims so is damaged."""


_LATER = {"channels": CHANNELS, "task": TASKS}
"""Fields of a data set that were added to the format, and their values."""


@dataclass(frozen=True)
class DataSpec:
    """A data set and its validation split.

    Attributes:
        name: ``digits``, ``mnist``, …, ``imagefolder:DIR``, ``npz:FILE`` or ``package.module:factory``.
        root: Folder of the data set's files (``data_root``); empty where none is needed.
        download: Whether a missing torchvision data set may be downloaded.
        validation_fraction: Share of the training set held out for validation, in (0, 1).
        split_seed: Seed of that split; two stages with the same seed see the same split.
        augment: Random crop and flip of training images: ``auto`` is what the data set's literature does.
        channels: Axis of the channels in an array of images, one of :data:`CHANNELS`.
        task: What the targets in an array are, one of :data:`TASKS`.
    """

    name: str = "digits"
    root: str = ""
    download: bool = False
    validation_fraction: float = 0.1
    split_seed: int = 0
    augment: Literal["auto", "none", "crop", "crop-flip"] = "auto"
    channels: str = "auto"
    task: str = "auto"

    def folder(self) -> Path:
        """Where the files of a named data set are.

        Raises:
            UsageError: It isn't known.
        """
        if not self.root:
            raise UsageError("`data_root`", expected=f"the folder of the files of {self.name}", found="nothing")
        return _expanded(self.root)

    def location(self) -> Path:
        """The path after the prefix of ``imagefolder:DIR`` or ``npz:FILE``; relative to the root, if there is one."""
        return _expanded(self.root) / _expanded(self.name.partition(":")[2])

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; :meth:`from_json` reads it back. Earlier files lack what is left out here."""
        return {name: v for name, v in asdict(self).items() if not (name in _LATER and v == "auto")}

    @classmethod
    def from_json(cls, value: Any, source: str) -> DataSpec:
        """Read what :meth:`to_json` wrote; ``source`` names the file in the error."""
        _check_fields(cls, value, source, optional=_LATER)
        types = {"download": bool, "validation_fraction": float, "split_seed": int}
        known = all(value.get(name, "auto") in choices for name, choices in _LATER.items())
        if not known or any(type(v) is not types.get(name, str) for name, v in value.items()):
            raise CorruptError(source, expected="a data set's specification", found=f"{value}"[:100])
        return cls(**value)


@dataclass(frozen=True)
class ModelSpec:
    """A model and the data that it is sized for.

    Attributes:
        name: A registered name, ``torchvision:NAME`` or ``package.module:factory``.
        input_shape: Shape of one sample: (channels, height, width), or (features,).
        num_outputs: Number of classes, or 1 for a regression.
        hidden: Hidden layer sizes of ``mlp``; empty for the model's own.
    """

    name: str
    input_shape: tuple[int, ...]
    num_outputs: int
    hidden: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; :meth:`from_json` reads it back."""
        return {**asdict(self), "input_shape": list(self.input_shape), "hidden": list(self.hidden)}

    @classmethod
    def from_json(cls, value: Any, source: str) -> ModelSpec:
        """Read what :meth:`to_json` wrote; ``source`` names the file in the error."""
        _check_fields(cls, value, source)
        name, shape, hidden, outputs = (value[key] for key in ("name", "input_shape", "hidden", "num_outputs"))
        lists = isinstance(shape, list) and isinstance(hidden, list) and len(shape) in (1, 3) and len(hidden) <= 1000
        sizes = [*shape, *hidden, outputs] if lists else [None]
        if not isinstance(name, str) or not all(type(n) is int and 0 < n < MAX_SIZE for n in sizes):
            raise CorruptError(source, expected="a model specification", found=f"{value}"[:100])
        return cls(name, tuple(shape), outputs, tuple(hidden))


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
