"""Names of one kind of thing, each with the ``module:object`` that implements it, imported when it is first used."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from inspect import signature
from typing import Any

from causalprune.base.errors import UsageError


class Registry(Mapping[str, str]):
    """The things of one kind that causalprune knows by name.

    Every room has one for each kind of thing in its ``names.py``. Making one imports nothing, so that options can be
    checked and help shown without PyTorch.

    Args:
        kind: What they are, in the singular, such as ``optimizer``.
        targets: ``module:object`` for each name, in the order in which people see them.

    Example:
        >>> shapes = Registry("shape", {"vector": "numpy:ravel"})
        >>> shapes.load("vector")([[1, 2]])
        array([1, 2])
    """

    def __init__(self, kind: str, targets: Mapping[str, str]) -> None:
        self.kind = kind
        self._targets = dict(targets)

    def __getitem__(self, name: str) -> str:
        return self._targets[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def __len__(self) -> int:
        return len(self._targets)

    @property
    def choices(self) -> tuple[str, ...]:
        """The names."""
        return tuple(self._targets)

    def load(self, name: str) -> Any:
        """Import what a name stands for.

        Raises:
            UsageError: Nothing has this name.
        """
        expected = self(name)
        if expected:
            raise UsageError(self.kind, expected=expected, found=repr(name))
        module, _, attribute = self._targets[name].partition(":")
        return getattr(import_module(module), attribute)

    def __call__(self, value: str) -> str | None:
        """Check an option: None for a known name, else what was expected, with the nearest name as a hint."""
        return None if value in self._targets else expected_name(value, self.choices)


def expected_name(value: str, choices: Sequence[str], *, others: Sequence[str] = ()) -> str:
    """What an error says was expected where an unknown name was found, with the nearest known one as a hint.

    Args:
        value: What was found.
        choices: The known names.
        others: What could have been given instead of a name, such as ``npz:FILE``.
    """
    near = difflib.get_close_matches(str(value), choices, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return "one of " + ", ".join((*choices, *others)) + hint


def call_with(function: Callable[..., Any], *arguments: Any, **given: Any) -> Any:
    """Call what a name stands for with those of the keywords ``given`` that it takes."""
    left = list(signature(function).parameters.values())[len(arguments) :]
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in left)
    names = given if takes_all else given.keys() & {parameter.name for parameter in left}
    return function(*arguments, **{name: given[name] for name in names})
