"""Names of the solvers and their variants, known without importing NumPy or PyTorch."""

from __future__ import annotations

from causalprune.base.registry import Registry

SOLVERS = Registry(
    "solver",
    {
        "lasso": "causalprune.solver.exact_fit:LASSO",
        "sklearn": "causalprune.solver.coordinate_descent:SKLEARN",
        "sgd": "causalprune.solver.coordinate_descent:SGD",
    },
)
"""Ways to fit γ, each a :class:`causalprune.solver.fit.Solver`."""

SGD_PRESETS = Registry(
    "preset",
    {
        "paper-v1": "causalprune.solver.coordinate_descent:PAPER_V1",
        "june-2025": "causalprune.solver.coordinate_descent:JUNE_2025",
        "oct-2025": "causalprune.solver.coordinate_descent:OCT_2025",
    },
)
"""The authors' variants of ``sgd``, each a :class:`causalprune.solver.coordinate_descent.TruncatedGradientConfig`."""

NORMALIZATIONS = ("none", "lr", "column")
"""Scalings of the columns of X."""
