"""Options as a file has them, as a person types them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field
from typing import Any

from causalprune.base.errors import UsageError
from causalprune.base.options import Options, flag_of, option_text
from causalprune.commands.names import CONFIGS
from causalprune.config.recipes.authors import RECIPES
from causalprune.config.run import recipe_settings
from causalprune.config.shared import usual_model


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


_MOST_DIFFERENCES, _LONGEST_VALUE = 3, 60
"""How much of a difference a message of one line has room for."""


def difference(kind: type[Options], before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In which options work differs from what was done before: ``--epochs 400 → 30, --set record.lr=1e6 → none``.

    Options are in backticks, as in all messages: :mod:`causalprune.commands.names` makes of them what is typed.

    Args:
        kind: The class of both.
        before: Options by name, as :meth:`causalprune.base.options.Options.identity_fields` has them.
        now: Those of today.

    Returns:
        The first few; empty where there are none.
    """
    fields = kind.option_fields()
    # What a recipe sets follows from its name.
    fields = {name: fields[name] for name in ("recipe", *fields) if name in fields and fields[name].metadata}
    recipes = {values.get("recipe") or "" for values in (before, now)}
    implied = {s.text for name in recipes if name in RECIPES and len(recipes) > 1 for s in recipe_settings(name)}
    found: list[str] = []
    for name, field in fields.items():
        then, today = (_plain(values.get(name, absent(field))) for values in (before, now))
        if option_text(then) == option_text(today) or (name == "model" and _is_usual_model(before, now)):
            continue
        if field.metadata["repeated"]:
            items = [_by_key(item for item in value or () if item not in implied) for value in (then, today)]
            changed = [key for key in {**items[0], **items[1]} if items[0].get(key) != items[1].get(key)]
            found += [_change(field, *(each.get(key) for each in items)) for key in changed]
        else:
            found.append(_change(field, then, today))
    # Those of another version.
    others = [name for name in {**before, **now} if name not in fields and before.get(name) != now.get(name)]
    found += [f"{name.replace('_', '-')} {before.get(name, 'none')} → {now.get(name, 'none')}" for name in others]
    more = len(found) - _MOST_DIFFERENCES
    return ", ".join(found[:_MOST_DIFFERENCES]) + (f" and {more} more" if more > 0 else "")


def _is_usual_model(*sides: Mapping[str, Any]) -> bool:
    """Whether the models differ only because the data sets do."""
    return all(values.get("model") == usual_model(values.get("dataset", "")) for values in sides)


def _by_key(items: Iterable[Any]) -> dict[str, str]:
    """Items such as ``record.lr=0.1`` by what stands in front of the value; of several the last one holds."""
    return {str(item).partition("=")[0].replace("_", "-"): str(item) for item in items}


def _change(field: Field[Any], then: Any, today: Any) -> str:
    """A difference as ``OPTION BEFORE → NOW``; where one of the two isn't said, it is none."""
    one, other = (_parameter(field, value) for value in (then, today))
    if one and other and not isinstance(field.default, bool):
        start = len(field.name) + 2
        if field.metadata["repeated"]:
            start += len(other[start:].partition("=")[0]) + 1 if "=" in other[start:] else 0
        other = other[start:-1]
    return f"{one or 'none'} → {other or 'none'}"


def _parameter(field: Field[Any], value: Any) -> str:
    """An option with its value in backticks; empty for what nobody has to say."""
    if value in (None, "", []) or (isinstance(value, bool) and value is field.default):
        return ""
    # Neither ends the backticks nor separates an option from the next one.
    text = option_text(value).replace("`", "'").replace(", ", ",")
    short = text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"
    return f"`{field.name}={short}`"


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
