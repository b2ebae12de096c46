"""Fit γ of a store, for a user of the library; and read what was fitted before."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from causalprune.base.errors import DataError, MismatchError
from causalprune.base.options import same_options
from causalprune.base.paths import DEFAULT_FIT, StoreUrl
from causalprune.base.progress import logger
from causalprune.solver.fit import Solver
from causalprune.solver.names import SOLVERS
from causalprune.solver.recording.options import FitOptions
from causalprune.solver.recording.regression import Regression
from causalprune.solver.source import Float64
from causalprune.trajectory import Fit, RecordingReader, Store
from causalprune.trajectory.array_groups import require_name
from causalprune.trajectory.lifecycle import open_writers


def fit(
    store: str | Path | StoreUrl | Store,
    *,
    recording: str | None = None,
    name: str = DEFAULT_FIT,
    overwrite: bool = False,
    alpha: float | None = FitOptions.alpha,
    alpha_ratio: float | None = FitOptions.alpha_ratio,
    alphas: int = FitOptions.alphas,
    alpha_min_ratio: float = FitOptions.alpha_min_ratio,
    target_nonzero: int | None = FitOptions.target_nonzero,
    target_sparsity: float | None = FitOptions.target_sparsity,
    l1_ratio: float = FitOptions.l1_ratio,
    scope: str = FitOptions.scope,
    granularity: str = FitOptions.granularity,
    normalize: str = FitOptions.normalize,
    positive: bool = FitOptions.positive,
    negative: bool = FitOptions.negative,
    row_weights: npt.ArrayLike | None = None,
    lags: int | None = FitOptions.lags,
    held_out: float = FitOptions.held_out,
    cv: int = FitOptions.cv,
    bootstrap: int = FitOptions.bootstrap,
    ranking: bool = FitOptions.ranking,
    solver: str = FitOptions.solver,
    preset: str = FitOptions.preset,
    tol: float = FitOptions.tol,
    max_passes: int = FitOptions.max_passes,
    memory: str = FitOptions.memory,
    seed: int = FitOptions.seed,
    device: str = FitOptions.device,
) -> Fit:
    """Fit the Granger coefficients γ of a recording, and keep them in its store.

    Solves ΔL_t = Σ_k γ_k·Δθ_tk² over the T recorded steps as

        min_γ  1/(2T)·‖y − Xγ‖² + α·ρ·‖γ‖₁ + α·(1 − ρ)/2·‖γ‖²          X_tk = Δθ_tk²,  y_t = ΔL_t

    in scikit-learn's scaling, without an intercept, and proves by the duality gap over all columns that this is the
    solution. A recording with momentum has three columns for each weight: Δθ_t², Δθ_{t−1}² and Δθ_t·Δθ_{t−1}. Same
    options and recording give the same bytes as ``causalprune fit-gamma``; a fit that is there already isn't made
    again.

    Source: Shah et al., arXiv 2412.03035; the exact solver and its certificate are ours (``docs/fit.md``).

    Args:
        store: A store, its path, or its address in object storage.
        recording: Name of a recording in it; None for the last.
        name: Under which name the fit is kept.
        overwrite: Replace another fit of that name.
        alpha: α, in units of loss times squared weight change.
        alpha_ratio: α as a share of alpha_max, the smallest α with γ = 0; 0.1 if none of the ways to choose α is taken.
        alphas: Solve for so many α in equal ratios from alpha_max down; γ is that of the last, or of ``cv``.
        alpha_min_ratio: The smallest α of ``alphas`` and of a search, as a share of alpha_max.
        target_nonzero: Look for an α with so many nonzero γ.
        target_sparsity: Look for an α with this share of γ zero, in (0, 1).
        l1_ratio: ρ in (0, 1]; 1 is the Lasso, which has at most T nonzero γ.
        scope: ``global``: one fit over all layers; ``layer``: one per layer.
        granularity: One γ per ``parameter``, ``filter``, ``neuron`` or ``layer``: the column of a group is the sum of
            its Δθ².
        normalize: ``none``; ``lr``: columns Δθ²/η²; ``column``: columns of unit norm.
        positive: Only γ ≥ 0.
        negative: Only γ ≤ 0: weights whose steps make the loss fall.
        row_weights: (T,) weight of each step's squared error; None for equal weights.
        lags: 0 or 1; None: 1 if the recording had momentum.
        held_out: Share of the steps, the last ones, on which a fit to the others is judged, in [0, 1).
        cv: Choose α from ``alphas`` by cross-validation over so many blocks of consecutive steps.
        bootstrap: Resamples of the steps for selection probabilities.
        ranking: Know every KKT score exactly, though it may cost a pass.
        solver: ``lasso``; ``sklearn``, the same in memory; ``sgd``, the authors' truncated gradient.
        preset: Which of the authors' variants ``sgd`` follows.
        tol: Duality gap to certify, relative to ‖y‖²/(2T).
        max_passes: Passes over the store after which the exact solver gives up.
        memory: Largest memory of a process that only fits, such as ``2GiB``; PyTorch and a network come on top.
        seed: Of the order of blocks, of resamples, and of ``sgd``.
        device: Where all columns are correlated, and held if they fit: ``cpu``, ``cuda`` or ``cuda:N``.

    Returns:
        γ, the KKT scores and their evidence.

    Raises:
        UsageError: A value out of range, or values that exclude each other; too little memory.
        DataError: No store; fewer than two rows, or losses or weights that never change.
        MismatchError: Another fit has that name.
        NumericalError: The solver can't certify the solution; what it has is kept as ``NAME.uncertified``.
        CorruptError: The store is damaged.

    Example:
        >>> import causalprune as cp
        >>> fit = cp.fit("trajectory.zarr", alpha_ratio=0.05, overwrite=True)
        >>> fit.gamma.shape, fit.certified
        ((4,), True)
    """
    said = locals()
    options = FitOptions(**{option: said[option] for option in FitOptions.option_fields()})
    require_name("fit", name)
    opened = store if isinstance(store, Store) else Store.open(store)
    reader = opened.recording(recording)
    if reader.num_rows < 2 and open_writers(opened.layout.root):
        raise DataError(
            f"{opened.path}",
            expected="a recording with at least 2 rows",
            found=f"{reader.num_rows} of one that is still open",
            remedy="fit after the recorder's with block, or after its close()",
        )
    weights = None if row_weights is None else _one_per_row(row_weights, reader)
    inputs = {"recording": reader.digest}
    if weights is not None:
        inputs["row_weights"] = hashlib.sha256(weights.tobytes()).hexdigest()
    config = options.identity_fields() | {"recording": recording}
    if name in reader.fits and not overwrite:
        found = reader.read_fit(name)
        _require_same(found, config, inputs, reader, f"fit {name} in {opened.path}")
        return found
    if reader.no_causal_reading:
        logger.warning("%s", reader.no_causal_reading)
    work = {"stage": "fit-gamma", "config": config, "inputs": inputs}
    identity = hashlib.sha256(json.dumps(work, sort_keys=True).encode()).hexdigest()
    fitted = Regression(reader, options, weights).solve()
    for warning in fitted.warnings:
        logger.warning("%s", warning)
    provenance = {"identity": identity, "config": config, "inputs": inputs}
    fitted.write(opened, reader.name, name, provenance, overwrite=overwrite)
    return reader.read_fit(name)


def _require_same(
    found: Fit, config: dict[str, Any], inputs: dict[str, str], reader: RecordingReader, subject: str
) -> None:
    stored = found.attributes
    # Which recording it is the inputs say.
    unsaid = {"recording": reader.name, "lags": int(reader.info.momentum > 0)}
    known = FitOptions.written_out(stored.get("config", {})) | {"recording": stored.get("config", {}).get("recording")}
    made_from = dict(stored.get("inputs", {}))
    if made_from.get("recording") in reader.digests:
        # Also before it was compacted.
        made_from["recording"] = reader.digest
    if made_from != inputs or not same_options(known, config, unsaid):
        raise MismatchError(
            subject,
            expected="no such fit, or one of these options and this recording",
            found="another",
            remedy="pass another `name` to keep both, or `overwrite=True`",
        )


def _one_per_row(weights: npt.ArrayLike, reader: RecordingReader) -> Float64:
    values = np.asarray(weights, np.float64)
    if values.shape != (reader.num_rows,):
        raise DataError(
            "`row_weights`", expected=f"{reader.num_rows} numbers, one per step", found=f"shape {values.shape}"
        )
    return values


def require_of_all_rows(found: Fit, name: str, reader: RecordingReader, store: object) -> None:
    """Check that a fit is of a recording, and that no rows came after it.

    Args:
        found: The fit.
        name: What it is called; empty for one that was passed as an object.
        reader: The recording.
        store: Path of the store, for messages.

    Raises:
        MismatchError: Some did, or it is of another recording.
    """
    if not reader.is_all_of(found):
        raise MismatchError(
            _called(name, store),
            expected=f"one of all {reader.num_rows:,} rows of recording {reader.name}",
            found="one made before the last of them were recorded" if name else "one of another recording, or of fewer",
            remedy="fit again with `overwrite`",
        )


def _called(name: str, store: object) -> str:
    """The subject of an error about a fit."""
    return f"fit {name} in {store}" if name else "`fit`"


def _require_usable(found: Fit, name: str, reader: RecordingReader, store: object) -> Fit:
    """Check that a fit, with the arguments of :func:`require_of_all_rows`, is of all rows and wasn't given up.

    Raises:
        MismatchError: It isn't, or was.
    """
    require_of_all_rows(found, name, reader, store)
    evidence = found.evidence
    # The authors' solver is followed by the name of its variant.
    solver: Solver = SOLVERS.load(evidence["solver"].partition(" ")[0])
    if solver.certifies and not evidence["certified"]:
        raise MismatchError(
            _called(name, store),
            expected="a certified fit",
            found=f"one that the solver gave up, at a relative gap of {evidence['relative_gap']:.3g}",
            remedy="fit again with more `max_passes` or `memory`",
        )
    return found


def certified_fit(reader: RecordingReader, name: str, store: object) -> Fit:
    """Read a fit that may be used.

    Args:
        reader: The recording.
        name: Name of the fit.
        store: Path of the store, for messages.

    Raises:
        MismatchError: There is none of that name, rows came after it, or the solver gave it up.
    """
    if name not in reader.fits:
        raise MismatchError(
            f"{store}",
            expected=f"a fit named {name}",
            found=", ".join(reader.fits) or "no fit",
            remedy="run `causalprune fit-gamma` first, or name a `fit`",
        )
    return _require_usable(reader.read_fit(name), name, reader, store)


def fit_to_use(store: Store, recording: str | None, wanted: str | Fit) -> Fit:
    """The fit that a criterion reads: the one of that name, or one with all defaults if none is named.

    Args:
        store: The store.
        recording: Name of the recording; None for the last.
        wanted: A fit, or its name.

    Raises:
        MismatchError: A fit of another recording, one that doesn't exist, or one that the solver gave up.
        CausalpruneError: See :func:`fit`.
    """
    reader = store.recording(recording)
    if isinstance(wanted, Fit):
        return _require_usable(wanted, "", reader, store.path)
    if wanted == DEFAULT_FIT and wanted not in reader.fits:
        fit(store, recording=recording)
    return certified_fit(reader, wanted, store.path)
