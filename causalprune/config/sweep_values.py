"""``[STAGE.]OPTION=VALUES``: options besides sparsity, criterion and seed that a sweep varies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from causalprune.base.errors import UsageError
from causalprune.base.options import option_text
from causalprune.config.run import RUN_STAGES, RunConfig, Setting, settable
from causalprune.config.values import split_list

_OWN = {
    "sparsity": "--sparsity",
    "criterion": "--criterion",
    "seed": "--seeds",
    "set": "--vary STAGE.OPTION=VALUES",
    "zero": "--zero, and another sweep without it,",
    "recipe": "--recipe, and a sweep of each,",
}
"""Options of run that a sweep varies by options of its own."""


def varied_options() -> list[str]:
    """Options of run that decide its result and that no option of a sweep varies."""
    return [name for name in RunConfig.option_fields() if RunConfig.decides_result(name) and name not in _OWN]


def varied_names() -> list[str]:
    """What can be varied, as the shell completes it: these options, and those of stages that decide their results."""
    of_stages = [
        f"{stage}.{name.replace('_', '-')}="
        for stage, kind in RUN_STAGES.items()
        for name in settable(stage)
        if kind.decides_result(name)
    ]
    return [*(f"{name.replace('_', '-')}=" for name in varied_options()), *of_stages]


@dataclass(frozen=True)
class Axis:
    """An option and its values.

    Attributes:
        key: ``record.lr``, or the name of an option of ``run``.
        values: Numbers, bools or text, as given and as the table shows them.
        settings: Each of them as a setting of its option.
        text: The axis as given, ``[STAGE.]OPTION=VALUES``.
        source: Where it comes from, for messages.
    """

    key: str
    values: tuple[Any, ...]
    settings: tuple[Setting, ...]
    text: str = ""
    source: str = field(default="", compare=False)

    def __str__(self) -> str:
        return self.text

    @classmethod
    def of_run(cls, name: str, values: Sequence[Any]) -> Axis:
        """An axis of an option of run, from values of its type."""
        return cls(name, tuple(values), tuple(Setting("", name, value) for value in values))

    @classmethod
    def parse(cls, text: str, place: str = "--vary") -> Axis:
        """Read ``[STAGE.]OPTION=VALUES``.

        Raises:
            UsageError: Malformed, no values, a repeated value, or an option that can't be varied.
        """
        key, equals, listed = text.partition("=")
        source = f"{place} {text}"
        if not equals or not key.strip() or key.strip().startswith("."):
            raise UsageError(source, expected="[STAGE.]OPTION=VALUES", found=repr(text))
        if listed.strip().startswith("["):
            try:
                values = json.loads(listed)
            except ValueError as error:
                raise UsageError(source, expected="a list such as [1, 2]", found=listed) from error
        else:
            values = [_value(item) for item in split_list(listed)]
        return cls._checked(key.strip(), values, listed, text, source)

    @classmethod
    def from_file(cls, key: str, values: list[Any], source: str) -> Axis:
        """A list in a sweep file, for an option that takes one value.

        Raises:
            UsageError: No values, a repeated value, or an option that can't be varied.
        """
        if key in ("seed", "seeds"):
            raise UsageError(source, expected="how many seeds, and seed, the first of them", found=str(values))
        listed = json.dumps(values, ensure_ascii=False, default=str)
        return cls._checked(key, values, listed, f"{key}={listed}", source)

    @classmethod
    def _checked(cls, key: str, values: list[Any], listed: str, text: str, source: str) -> Axis:
        if not values or not all(isinstance(v, str | int | float) for v in values) or "" in values:
            raise UsageError(source, expected="values such as 0.01,0.02", found=repr(listed))
        if len({(type(v) is bool, v) for v in values}) < len(values):
            raise UsageError(source, expected="different values", found=listed)
        stage, _, said = key.rpartition(".")
        if not stage:
            name = said.replace("-", "_")
            if name in _OWN:
                raise UsageError(source, expected=f"{_OWN[name]} for it", found="--vary")
            if name not in varied_options():
                expected = "an option of run that decides its result, or STAGE.OPTION"
                raise UsageError(source, expected=expected, found=name)
        settings = tuple(Setting.of(stage, said, v, f"{key}={option_text(v)}", source) for v in values)
        if stage and not RUN_STAGES[stage].decides_result(settings[0].option):
            # Cells are told apart by what decides their results: all of these would be the same one.
            raise UsageError(
                source,
                expected=f"an option of {stage} that decides its result",
                found=key,
                remedy="set one value of it for all cells",
            )
        return cls(settings[0].key, tuple(values), settings, text, source)


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float) else text
