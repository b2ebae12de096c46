"""Registries: names of one kind of thing, each with the ``module:object`` that implements it, imported on use."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from inspect import signature
from typing import Any

from causalprune.base.errors import UsageError


class Registry(dict[str, str]):
    """The things of one kind that causalprune knows by name.

    Each package defines its registries in its ``names.py``. Creating one imports nothing, so that options can be
    checked and help shown without PyTorch.

    Args:
        kind: The kind, in the singular, such as ``optimizer``.
        targets: ``module:object`` by name, in the order in which they are shown.

    Example:
        >>> shapes = Registry("shape", {"vector": "numpy:ravel"})
        >>> shapes.load("vector")([[1, 2]])
        array([1, 2])
    """

    def __init__(self, kind: str, targets: Mapping[str, str]) -> None:
        super().__init__(targets)
        self.kind = kind

    @property
    def choices(self) -> tuple[str, ...]:
        """The names."""
        return tuple(self)

    def load(self, name: str) -> Any:
        """Import the object of a name.

        Raises:
            UsageError: Unknown name.
        """
        expected = self(name)
        if expected:
            raise UsageError(self.kind, expected=expected, found=repr(name))
        module, _, attribute = self[name].partition(":")
        return getattr(import_module(module), attribute)

    def __call__(self, value: str) -> str | None:
        """Check an option: None for a known name, otherwise what was expected, with the nearest name as a hint."""
        return None if value in self else expected_name(value, self.choices)


def expected_name(value: str, choices: Sequence[str], *, others: Sequence[str] = (), near: str = "") -> str:
    """The ``expected`` of an error about an unknown name, with the nearest known name as a hint.

    Args:
        value: The unknown name.
        choices: The known names.
        others: What may be given instead of a name, such as ``npz:FILE``.
        near: The hint, where it is known.
    """
    return "one of " + ", ".join((*choices, *others)) + did_you_mean(value, choices, near)


def did_you_mean(value: str, choices: Iterable[str], near: str = "") -> str:
    """The hint at the end of an ``expected``: the nearest known name in parentheses; empty if none is near.

    Args:
        value: The unknown name.
        choices: The known names.
        near: The nearest one, where it is known.
    """
    found = near or nearest(str(value), choices)
    return f" (did you mean {found!r}?)" if found else ""


def nearest(value: str, choices: Iterable[str], *, cutoff: float = 0.6) -> str:
    """The name that is most like a misspelled one; empty if none is at least as like it as ``cutoff``, in [0, 1]."""
    return next(iter(difflib.get_close_matches(value, list(choices), n=1, cutoff=cutoff)), "")


def call_with(function: Callable[..., Any], *arguments: Any, **given: Any) -> Any:
    """Call a function with those of the keywords ``given`` that it accepts."""
    left = list(signature(function).parameters.values())[len(arguments) :]
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in left)
    names = given if takes_all else given.keys() & {parameter.name for parameter in left}
    return function(*arguments, **{name: given[name] for name in names})
