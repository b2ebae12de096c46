"""Run the user's own code, named ``package.module:factory``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

from torch import nn

from causalprune.errors import CorruptError, UsageError


def build_user_model(name: str, input_shape: tuple[int, ...], num_outputs: int, *, trust_code: bool) -> nn.Module:
    """Call the user's factory with ``input_shape`` and ``num_outputs``, as far as it takes them.

    Raises:
        CorruptError: A file named the code, and it isn't trusted.
        UsageError: It can't be imported, fails, or returns no module.
    """
    factory = _load_function(name, trust_code=trust_code)
    given: dict[str, Any] = {"input_shape": input_shape, "num_outputs": num_outputs}
    try:
        accepted = signature(factory).parameters
        takes_all = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
        model = factory(**{k: v for k, v in given.items() if takes_all or k in accepted})
    except (Exception, SystemExit) as error:
        found = f"{type(error).__name__}: {error}"
        raise UsageError(f"--model {name}", expected="a factory that returns a network", found=found) from error
    if not isinstance(model, nn.Module):
        raise UsageError(f"--model {name}", expected="a torch.nn.Module", found=type(model).__name__)
    return model


def _load_function(name: str, *, trust_code: bool) -> Callable[..., Any]:
    """Import a callable; modules in the current directory are found, as with ``python -m``."""
    if not trust_code:
        raise CorruptError(
            f"checkpoint that names {name}",
            expected="a built-in model, or your leave to run code",
            found="code of its own",
            remedy="pass --trust-code if you trust where the checkpoint comes from",
        )
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        function = getattr(import_module(module_name), attribute)
    except (Exception, SystemExit) as error:
        found = f"{type(error).__name__}: {error}"
        raise UsageError(f"--model {name}", expected="package.module:factory that imports", found=found) from error
    if not callable(function):
        raise UsageError(f"--model {name}", expected="something callable", found=type(function).__name__)
    return function
