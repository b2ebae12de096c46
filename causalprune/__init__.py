"""Causal pruning of neural networks (arXiv 2412.03035): record gradient descent, fit γ, prune what isn't causal.

>>> import causalprune as cp
>>> names = cp.Recorder, cp.Store, cp.Fit, cp.Mask, cp.Criterion, cp.fit, cp.prune, cp.repair, cp.compact

:class:`Recorder` records your own training loop into a :class:`Store`, :func:`fit` fits γ to it, :func:`prune` prunes
the network and returns its :class:`Mask`, :func:`repair` sets the weights that are left anew, and :func:`compact`
leaves out channels that are pruned as a whole. Each command of the command line is also a function, such as
``causalprune.commands.fit_gamma.fit_gamma``. Importing this package loads neither PyTorch nor NumPy; the names above
load them when they are first used.
"""

from __future__ import annotations

# Not imported from typing: `python -m causalprune` reads this file while a typing.py of the user would come first.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from causalprune.api import Criterion, Fit, Mask, Recorder, Store, compact, fit, prune, repair

    __version__: str

__all__ = ["Criterion", "Fit", "Mask", "Recorder", "Store", "__version__", "compact", "fit", "prune", "repair"]


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
