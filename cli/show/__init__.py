"""What people see of a result: one function per command, with its name.

It returns something that rich can print, or lines by their names, to which :func:`show` adds the paths of the outputs.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_MODULES = ("networks", "fits", "runs", "store", "sweeps")


def show(command: str, result: Any) -> Any:
    """Make something that rich can print from the result of a command.

    Args:
        command: Such as ``fit-gamma`` or ``store verify``; a command without a function shows its metrics.
        result: The result of the command.
    """
    from .tables import facts

    name = command.replace("-", "_").replace(" ", "_")
    modules = (import_module(f"{__name__}.{module}") for module in _MODULES)
    function = next((vars(module)[name] for module in modules if name in vars(module)), None)
    found = function(result) if function else _metrics(result)
    return facts(result, found) if isinstance(found, dict) else found


def _metrics(result: Any) -> dict[str, str]:
    return {name.replace("_", " "): str(value) for name, value in result.to_json()["metrics"].items()}
