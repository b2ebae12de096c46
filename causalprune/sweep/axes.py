"""``[STAGE.]OPTION=VALUES``: the options beyond sparsity, criterion and seed that a sweep takes several values of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from causalprune.config.run import RunConfig
from causalprune.config.sweep import SweepConfig, split_list
from causalprune.errors import UsageError
from causalprune.settings import convert

_OWN = {"sparsity": "--sparsity", "criterion": "--criterion", "seed": "--seeds", "set": "--vary STAGE.OPTION=VALUES"}
"""Options of run that a sweep lists in its own way."""

_MASK = {"apply-mask.sparsity": "--sparsity", "apply-mask.criterion": "--criterion"}
"""Options of a stage that a sweep lists in its own way; a row would bear another value than it was made with."""


@dataclass(frozen=True)
class Axis:
    """One option and the values that it takes.

    Attributes:
        key: ``record.lr``, or the name of an option of ``run``.
        values: Numbers, bools or text, in the order given.
    """

    key: str
    values: tuple[Any, ...]

    def apply(self, value: Any, options: dict[str, Any]) -> None:
        """Put one of the values into the options of :class:`RunConfig`."""
        if "." in self.key:
            # Behind what --set says, so that it holds.
            options["set"] = (*options["set"], f"{self.key}={_text(value)}")
        else:
            field = next(f for f in fields(RunConfig) if f.name == self.key)
            options[self.key] = convert(RunConfig, field, value, f"--vary {self.key}")


def parse_axes(config: SweepConfig) -> list[Axis]:
    """The axes that ``--vary`` and the lists in a sweep file make; of two for one option the later holds.

    Raises:
        UsageError: Malformed, a list without values or with a value twice, an option that can't be varied, or one that
            ``--set`` gives, too.
    """
    axes = {axis.key: axis for axis in map(_parse, config.vary)}
    for option, lines in (("--set", config.set), ("--vary", config.vary)):
        for line in lines:
            own = _MASK.get(line.partition("=")[0].strip())
            if own:
                raise UsageError(f"{option} {line}", expected=f"{own} for it", found=option)
    for line in config.set:
        key = line.partition("=")[0].replace("-", "_")
        if key in (axis.replace("-", "_") for axis in axes):
            raise UsageError(f"--set {line}", expected="an option that is not varied", found=f"--vary {key}")
    return list(axes.values())


def axis_text(key: str, values: Sequence[Any]) -> str:
    """An axis as ``--vary`` takes it; text with commas in it stays whole."""
    return f"{key}={json.dumps(list(values), ensure_ascii=False)}"


def _parse(text: str) -> Axis:
    key, equals, listed = text.partition("=")
    key, source = key.strip(), f"--vary {text}"
    stage, dot, name = key.rpartition(".")
    key = stage + dot + name.replace("-", "_")
    if not equals or not key:
        raise UsageError(source, expected="[STAGE.]OPTION=VALUES", found=repr(text))
    if listed.strip().startswith("["):
        try:
            values = json.loads(listed)
        except ValueError as error:
            raise UsageError(source, expected="a list such as [1, 2]", found=listed) from error
    else:
        values = [_value(item) for item in split_list(listed)]
    if not values or not all(isinstance(v, str | int | float) for v in values) or "" in values:
        raise UsageError(source, expected="values such as 0.01,0.02", found=repr(listed))
    if len({(type(v) is bool, v) for v in values}) < len(values):
        raise UsageError(source, expected="different values", found=listed)
    if not dot:
        options = {f.name: f for f in fields(RunConfig) if f.metadata["identifies"]}
        if key in _OWN:
            raise UsageError(source, expected=f"{_OWN[key]} for it", found="--vary")
        if key not in options:
            raise UsageError(source, expected="an option of run that decides its result, or STAGE.OPTION", found=key)
    return Axis(key, tuple(values))


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float) else text


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
