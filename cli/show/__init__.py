"""What people see of a result: one function per command, with its name.

It returns something that rich can print, or lines by their names, to which :func:`show` adds the paths of the outputs.
"""

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
    from .tables import facts

    name = command.replace("-", "_").replace(" ", "_")
    module = next((module for module, names in _FUNCTIONS.items() if name in names), None)
    if module is None:
        found = {name.replace("_", " "): str(value) for name, value in result.to_json()["metrics"].items()}
    else:
        found = getattr(import_module(f"{__name__}.{module}"), name)(result)
    return facts(result, found) if isinstance(found, dict) else found
