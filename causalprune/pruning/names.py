"""Names of the pruning criteria, known without importing PyTorch or NumPy, for ``--help`` and for checking options."""

from __future__ import annotations

import difflib
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec

from causalprune.options import one_of

SCOPES = ("global", "layer")
GRANULARITIES = ("parameter", "filter", "neuron", "layer")
MASK_GRANULARITIES = ("parameter", "filter", "neuron", "channel", "layer")
SPARSITY_SCHEDULES = ("cubic", "geometric", "one-shot")
REWINDS = ("none", "recording", "pretrained")

ENTRY_POINT_GROUP = "causalprune.criteria"
"""Entry-point group in which another package registers a :class:`causalprune.pruning.criterion.Criterion`."""

CRITERIA: dict[str, str] = {
    "gamma": "|γ|, the Granger coefficient; zeros by their dual correlation (the paper's)",
    "effect": "|γ|·θ², the loss change that the fit predicts for setting the weight to zero",
    "curvature": "½·h·θ² with h = 2(γ + 1/η), the saliency of the curvature that the fit implies",
    "magnitude": "|θ|",
    "random": "a random order, the same for every mask of one seed",
    "fisher": "mean(g²), the empirical Fisher diagonal",
    "obd": "θ²·mean(g²), Optimal Brain Damage with that diagonal",
    "chita": "the support of min ½‖A(w − θ)‖² + (nλ/2)‖w − θ‖², A the gradients; kept weights become w",
}
"""The built-in criteria, each with its formula for people."""

REWEIGHTING = ("chita",)
"""Those that also set the weights they keep."""


def added_criteria() -> dict[str, EntryPoint]:
    """Criteria that installed packages add, unloaded; a built-in name can't be replaced and is left out."""
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP) if point.name not in CRITERIA}


def check_criterion(name: str) -> str | None:
    """Check for :func:`causalprune.options.option`: a built-in or added criterion."""
    if name in CRITERIA:
        return None
    added = added_criteria()
    if name in added:
        return None
    known = [*CRITERIA, *sorted(added)]
    near = difflib.get_close_matches(name, known, n=1)
    return "one of " + ", ".join(known) + (f" (did you mean {near[0]!r}?)" if near else "")


def check_mask_granularity(value: str) -> str | None:
    """Check for :func:`causalprune.options.option`: a granularity, and the library that ``channel`` needs."""
    expected = one_of(MASK_GRANULARITIES)(value)
    if expected is None and value == "channel" and find_spec("torch_pruning") is None:
        return "torch-pruning installed (pip install 'causalprune[compact]')"
    return expected


# The command line shows the words as the placeholder.
check_mask_granularity.choices = MASK_GRANULARITIES  # type: ignore[attr-defined]
