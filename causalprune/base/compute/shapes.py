"""The shape of one sample: of floats, of whole numbers that are looked up, of bools, or of several inputs of these."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MAX_SIZE = 2**31
"""No layer, channel or image side is this large; a file that claims so is damaged."""

_MOST_AXES, _MOST_INPUTS = 8, 1000


@dataclass(frozen=True)
class Tokens:
    """The shape of a sample of whole numbers, such as a text: they are looked up, not computed with.

    Attributes:
        shape: Sizes of its axes, (length,) for a text.
        vocabulary: The numbers are 0 to ``vocabulary`` − 1.
    """

    shape: tuple[int, ...]
    vocabulary: int

    def __str__(self) -> str:
        return _axes(self.shape, "token")


@dataclass(frozen=True)
class Flags:
    """The shape of a sample of bools, such as which tokens count; only one of several inputs has it."""

    shape: tuple[int, ...]


OneInput = tuple[int, ...] | Tokens | Flags


@dataclass(frozen=True)
class SeveralInputs:
    """The shapes of a sample of several inputs, which a network takes by position or by name.

    Attributes:
        parts: The shape of each input; () for one number.
        names: The names of the network's arguments; empty where they go by position.
    """

    parts: tuple[OneInput, ...]
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        texts = [shape_text(part) for part in self.parts]
        if self.names:
            texts = [f"{name} {text}" for name, text in zip(self.names, texts, strict=True)]
        return f"{len(texts)} input{'s' * (len(texts) != 1)} ({', '.join(texts)})"

    def arranged(self, values: Iterator[Any]) -> dict[str, Any] | tuple[Any, ...]:
        """A value for each input as a network takes them: a dictionary by name, or a tuple."""
        return dict(zip(self.names, values, strict=True)) if self.names else tuple(values)


InputShape = tuple[int, ...] | Tokens | SeveralInputs
"""The shape of one sample: (channels, height, width) or (features,) of floats, tokens, or several inputs."""


def shape_text(shape: InputShape | OneInput) -> str:
    """A shape for people, such as ``1×8×8``."""
    if isinstance(shape, tuple):
        return "×".join(map(str, shape)) or "1"
    return _axes(shape.shape, "flag") if isinstance(shape, Flags) else str(shape)


def _axes(shape: tuple[int, ...], noun: str) -> str:
    """So many of something: ``128 tokens``; a shape without axes is that of one."""
    one = all(size == 1 for size in shape)
    return f"{'×'.join(map(str, shape)) or '1'} {noun}{'' if one else 's'}"


def shape_to_json(shape: InputShape | OneInput) -> Any:
    """What :func:`shape_from_json` reads back."""
    if isinstance(shape, Tokens):
        return {"tokens": list(shape.shape), "vocabulary": shape.vocabulary}
    if isinstance(shape, Flags):
        return {"flags": list(shape.shape)}
    if isinstance(shape, SeveralInputs):
        return {"inputs": [shape_to_json(part) for part in shape.parts], "names": list(shape.names)}
    return list(shape)


def shape_from_json(value: Any) -> InputShape:
    """Read what :func:`shape_to_json` wrote.

    Raises:
        ValueError: Something else.
    """
    if not isinstance(value, dict) or set(value) != {"inputs", "names"}:
        found = _one(value)
        axes = (1,) if isinstance(found, Tokens) else (1, 3)
        if isinstance(found, Flags) or len(found if isinstance(found, tuple) else found.shape) not in axes:
            raise ValueError(f"{value}")
        return found
    parts, names = value["inputs"], value["names"]
    lists = isinstance(parts, list) and isinstance(names, list) and 0 < len(parts) <= _MOST_INPUTS
    if not lists or not all(isinstance(name, str) for name in names) or len(names) not in (0, len(parts)):
        raise ValueError(f"{value}")
    if len(set(names)) != len(names):
        raise ValueError(f"{value}")
    return SeveralInputs(tuple(map(_one, parts)), tuple(names))


def _one(value: Any) -> OneInput:
    if isinstance(value, dict) and set(value) == {"tokens", "vocabulary"}:
        (vocabulary,) = _sizes([value["vocabulary"]])
        return Tokens(_sizes(value["tokens"]), vocabulary)
    if isinstance(value, dict) and set(value) == {"flags"}:
        return Flags(_sizes(value["flags"]))
    return _sizes(value)


def _sizes(value: Any) -> tuple[int, ...]:
    fitting = isinstance(value, list) and len(value) <= _MOST_AXES
    if not fitting or not all(type(n) is int and 0 < n < MAX_SIZE for n in value):
        raise ValueError(f"{value}")
    return tuple(value)
