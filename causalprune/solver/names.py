"""Registries of the solvers and of the variants of ``sgd``; importing them loads neither NumPy nor PyTorch."""

from __future__ import annotations

from causalprune.base.registry import Registry

SOLVERS = Registry(
    "solver",
    {
        "lasso": "causalprune.solver.exact_fit:LASSO",
        "sklearn": "causalprune.solver.reference.scikit_learn:SKLEARN",
        "sgd": "causalprune.solver.reference.truncated_gradient:SGD",
    },
)
"""The solvers, each a :class:`causalprune.solver.fit.Solver`."""

SGD_PRESETS = Registry(
    "preset",
    {
        "paper-v1": "causalprune.solver.reference.truncated_gradient:PAPER_V1",
        "june-2025": "causalprune.solver.reference.truncated_gradient:JUNE_2025",
        "oct-2025": "causalprune.solver.reference.truncated_gradient:OCT_2025",
    },
)
"""The authors' variants of ``sgd``, each a ``TruncatedGradientPreset`` of
:mod:`causalprune.solver.reference.truncated_gradient`."""

DEFAULT_ALPHA_RATIO = 0.1
"""α as a share of alpha_max when none is given."""

SCOPES = ("global", "layer")
"""One fit over all layers, or one per layer."""

NORMALIZATIONS = ("none", "lr", "column")
"""Scalings of the columns of X."""
