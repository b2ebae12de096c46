"""What the shell offers for the value of an option: choices and names; files where nothing is offered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import Field
from typing import Any


def completion_of(f: Field[Any]) -> Callable[[str], list[str]] | None:
    """The function that Typer asks for values; None where the shell's own, of file names, are right.

    Args:
        f: The field of the configuration. Its check knows the names: ``choices`` if there are no others, or ``names``,
            a function, if a value may also be something else.
    """
    check, metadata = f.metadata["check"], f.metadata
    choices: Sequence[str] | None = getattr(check, "choices", None)
    names: Callable[[], Sequence[str]] | None = getattr(metadata["parse"] if check is None else check, "names", None)
    if choices is None and names is None:
        return None
    # One value that is a list: its last item is completed.
    listed = metadata["listed"]

    def complete(incomplete: str) -> list[str]:
        before, comma, _ = incomplete.rpartition(",") if listed else ("", "", "")
        offered = choices if names is None else names()
        return [f"{before}{comma}{name}" for name in offered or ()]

    return complete
