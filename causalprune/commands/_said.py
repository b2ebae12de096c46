"""Options as a file has them, as a person types them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import MISSING, Field
from typing import Any

from causalprune.base.errors import UsageError
from causalprune.base.options import Options, flag_of, option_text
from causalprune.commands.names import CONFIGS


def said_options(stage: str, stored: Mapping[str, Any]) -> list[str]:
    """The options that aren't what the command takes by itself; of what a recipe sets, those that are said instead.

    Args:
        stage: The command; one that doesn't exist has none.
        stored: Options by name, as :meth:`causalprune.base.options.Options.identity_fields` has them.
    """
    if stage not in CONFIGS or not stored:
        return []
    kind: type[Options] = CONFIGS.load(stage)
    fields = {name: f for name, f in kind.option_fields().items() if f.metadata}
    usual, needed = _usual(kind, stored)
    said = []
    for name, field in fields.items():
        value = stored.get(name, absent(field))
        if name == "set" and usual["set"]:
            value = [item for item in value if item not in usual["set"]]
        if value in (None, "", []) or value == ():
            continue
        same = value == usual[name] or option_text(value) == option_text(usual[name])
        if not same and (name not in stored or field.metadata["formerly"] is not MISSING):
            # What it stands for here if it isn't said: the criterion's own value, or what was done before it existed.
            without = kind.written_out({**stored, name: usual[name]})
            same = without == kind.written_out(stored)
        if name in needed or not same:
            said += _typed(field, value)
    return said


def command_line(stage: str, stored: Mapping[str, Any]) -> str:
    """A command with its :func:`said_options`."""
    return shlex.join(["causalprune", stage, *said_options(stage, stored)])


def absent(field: Field[Any]) -> Any:
    """What an option stands for that the file of a result leaves out."""
    former = field.metadata["formerly"]
    return _plain(field.default if former is MISSING else former)


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    return list(value) if isinstance(value, tuple) else value


def _usual(kind: type[Options], stored: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """The values without anything said but the recipe, and what must be said for these to hold."""
    fields = {name: f for name, f in kind.option_fields().items() if f.metadata}
    defaults = {name: _plain(f.default) for name, f in fields.items()}
    recipe = stored.get("recipe")
    if not recipe:
        return defaults, set()
    said: dict[str, Any] = {"recipe": recipe}
    try:
        zero = bool(kind.of(**said).identity_fields().get("zero"))
        if stored.get("zero") and not zero:
            said["zero"] = True
        elif zero and not stored.get("zero"):
            # Only one of these takes the place of the recipe's γ = 0.
            name = "pattern" if stored.get("pattern") else "sparsity"
            said[name] = stored[name]
        values = kind.of(**said).identity_fields()
    except (KeyError, ValueError, UsageError):
        # A recipe of another version.
        return defaults, {"recipe"}
    return {name: values.get(name, absent(f)) for name, f in fields.items()}, set(said)


def _typed(field: Field[Any], value: Any) -> list[str]:
    names = flag_of(field).split(",")[0].split("/")
    if isinstance(value, bool):
        return names[:1] if value else names[1:]
    items = value if field.metadata["repeated"] and isinstance(value, list) else [value]
    flag = names[:1] if names[0].startswith("-") else []
    return [part for item in items for part in (*flag, option_text(item))]
