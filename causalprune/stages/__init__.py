"""The stages: each a plain function from a frozen configuration to a typed result, through files.

A stage and PyTorch are loaded when they are first asked for: ``from causalprune.stages.pretrain import pretrain``.
"""

from __future__ import annotations

from typing import Any

from causalprune.commands.names import FUNCTIONS


def stage_function(name: str) -> Any:
    """The function of a command, such as ``stage_function("fit-gamma")``."""
    return FUNCTIONS.load(name.replace("_", "-"))
