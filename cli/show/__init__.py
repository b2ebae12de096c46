"""What people see of a result: one function per command, with its name, that returns something rich can print."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_FUNCTIONS = {
    "networks": ("pretrain", "posttrain", "record", "apply_mask", "run", "evaluate", "export"),
    "fits": ("fit_gamma", "diagnose"),
    "sweeps": ("sweep", "report"),
    "store": ("info", "store_verify", "store_export", "store_compact", "store_merge"),
}
"""The functions in each module."""


def show(command: str, result: Any) -> Any:
    """Make something that rich can print from the result of a command.

    Args:
        command: Such as ``fit-gamma`` or ``store verify``; a command without a function shows its metrics.
        result: The result of the command.
    """
    function = command.replace("-", "_").replace(" ", "_")
    for module, functions in _FUNCTIONS.items():
        if function in functions:
            return getattr(import_module(f"{__name__}.{module}"), function)(result)
    return import_module(f"{__name__}.tables").metrics(result)
