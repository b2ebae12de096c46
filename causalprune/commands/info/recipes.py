"""What a recipe sets, and which one a run directory was made by."""

from __future__ import annotations

from typing import Any

from causalprune.base.errors import CorruptError, DataError, UsageError
from causalprune.base.json_files import read_json
from causalprune.base.options import option_text
from causalprune.base.paths import RunPaths
from causalprune.config.recipes.authors import RECIPES
from causalprune.config.run import RunConfig, recipe_changes


def describe_recipe(name: str) -> dict[str, Any]:
    """What it is, and the ``option``, ``value`` and ``source`` of all that it sets."""
    recipe = RECIPES[name]
    choices = [{"option": c.key, "value": option_text(c.value), "source": c.source} for c in recipe.choices]
    return {"summary": recipe.summary, "choices": choices}


def recipe_of(run: RunPaths) -> dict[str, Any] | None:
    """The ``name`` of the recipe that ``run`` worked by, and its ``changes``; None if by none, or if nothing tells."""
    if not run.run_config.exists():
        return None
    try:
        config = RunConfig(**read_json(run.run_config))
    except (CorruptError, DataError, UsageError, TypeError, ValueError, AttributeError):
        # Of another version, or damaged, which is told elsewhere.
        return None
    if not config.recipe:
        return None
    return {"name": config.recipe, "changes": recipe_changes(config.recipe, vars(config), config.set)}
