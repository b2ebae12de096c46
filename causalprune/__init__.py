"""Causal pruning of neural networks (arXiv 2412.03035): record gradient descent, fit γ, prune what isn't causal.

>>> from causalprune import Recorder, Store, Mask

:class:`Recorder` records your own training loop, :class:`Store` reads recordings and fits, and :class:`Mask` tells
which weights are kept. Each command of the command line is also a function, such as
``causalprune.commands.fit_gamma.fit_gamma``. Importing this package loads neither PyTorch nor NumPy; the names above
load them when they are first used.
"""

from __future__ import annotations

# Not imported from typing: `python -m causalprune` reads this file while a typing.py of the user would come first.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from causalprune.api import Mask, Recorder, Store

    __version__: str

__all__ = ["Mask", "Recorder", "Store", "__version__"]


def __getattr__(name: str) -> Any:
    """Import an exported name when it is first used."""
    if name == "__version__":
        from importlib.metadata import version

        return version("causalprune")
    if name in __all__:
        from causalprune import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
