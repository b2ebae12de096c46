"""The Hessian of the loss: largest eigenvalues, trace and spectral density. Needs the optional package curvlinops.

curvlinops (Dangel et al.) computes products with the Hessian, its trace by Hutchinson's estimator and its spectral
density by stochastic Lanczos quadrature (Papyan, JMLR 2020); SciPy's ``eigsh`` (ARPACK) computes the eigenvalues.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from causalprune.analysis.flatness.samples import ParameterVector, Samples
from causalprune.base.compute.precision import full_precision
from causalprune.base.compute.runtime import keyed_seed
from causalprune.base.errors import DataError, NumericalError, missing_extra
from causalprune.data.tasks.task import Task

DENSE_UP_TO = 64
"""Up to this dimension, or up to 2K, the whole matrix is formed, because ARPACK finds only some of its eigenvalues."""

LANCZOS_STEPS = 40
"""Nodes of the quadrature for the density."""

DENSITY_POINTS = 200

PROBES = 20
"""Random vectors for the trace."""


def require_curvlinops() -> None:
    """Check, before anything is measured, that curvlinops is installed.

    Raises:
        UsageError: It isn't.
    """
    if find_spec("curvlinops") is None:
        raise missing_extra("`hessian` needs curvlinops", "flatness")


def planned_products(dimension: int, count: int) -> int:
    """About how many products with the Hessian a :class:`Spectrum` takes; what ARPACK needs depends on the matrix."""
    return dimension if _is_small(dimension, count) else sum(_phases(count, PROBES).values())


def _phases(count: int, probes: int) -> dict[str, int]:
    """Products of each phase. On LeNet with digits, ARPACK took 21, 34 and 120 for the 1, 5 and 20 largest."""
    return {"check": 1, "largest": 20 + 5 * count, "smallest": 30, "trace": probes, "density": LANCZOS_STEPS}


def _is_small(dimension: int, count: int) -> bool:
    return dimension <= max(DENSE_UP_TO, 2 * count)


@dataclass(frozen=True)
class Spectrum:
    """The spectrum of the Hessian over some of the parameters.

    Attributes:
        dimension: Number of parameters.
        eigenvalues: The K largest, descending.
        smallest: The smallest (most negative) eigenvalue.
        trace: Hutchinson's estimate; the exact trace for a small matrix.
        trace_error: Standard error of the estimate over the probes; 0 for a small matrix.
        density_at: Eigenvalues, ascending.
        density: The smoothed spectral density there, which integrates to 1; empty for a small matrix, or if the Lanczos
            iteration broke down.
    """

    dimension: int
    eigenvalues: tuple[float, ...]
    smallest: float
    trace: float
    trace_error: float
    density_at: tuple[float, ...]
    density: tuple[float, ...]


def hessian_spectra(
    model: nn.Module,
    task: Task,
    parameters: ParameterVector,
    samples: Samples,
    *,
    count: int,
    probes: int = PROBES,
    tol: float = 1e-4,
    seed: int = 0,
    notify: Callable[[int], None] = lambda _: None,
) -> dict[str, Spectrum]:
    """Spectra of the Hessian of the mean loss, over the unpruned parameters and over all parameters.

    Args:
        model: In evaluation mode; the products are computed in its dtype and on its device, in true float32.
        task: Defines the loss, a mean over samples.
        parameters: Its parameters.
        samples: What the loss is averaged over.
        count: K, the number of largest eigenvalues; fewer if there are fewer parameters.
        probes: Number of random vectors for the trace.
        tol: Relative accuracy of the eigenvalues.
        seed: Seed of all random vectors.
        notify: Told of how many more of the products planned (:func:`planned_products`), times the batches of
            ``samples``, are done: after each batch 1, or 0 where a phase takes more than planned; at its end the rest.

    Returns:
        ``unpruned`` and ``all``, the same object for a dense network.

    Raises:
        UsageError: curvlinops is missing.
        DataError: The Hessian isn't finite.
        NumericalError: The eigenvalues don't converge.
    """
    planned = _Planned(notify, len(samples))

    def measure(operator: Any) -> Spectrum:
        with torch.random.fork_rng(devices=[operator.device] if operator.device.type == "cuda" else []):
            torch.manual_seed(keyed_seed(seed, "hessian"))
            if _is_small(operator.shape[0], count):
                with planned.phase(operator.shape[0]):
                    return _dense(operator, count)
            return _iterative(operator, count, probes, tol, seed, planned)

    # The fused kernels of attention have no second derivative.
    with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH), full_precision():
        # PyTorch and curvlinops warn about deprecated modules that they import themselves.
        for category in (FutureWarning, DeprecationWarning):
            warnings.filterwarnings("ignore", message=r".*torch\.jit", category=category)
        operators = _operators(model, task, parameters, samples, planned.batch)
        unpruned = measure(operators["unpruned"])
        return {"unpruned": unpruned, "all": measure(operators["all"]) if "all" in operators else unpruned}


class _Planned:
    """Counts what is done of the products that were planned.

    Args:
        notify: See :func:`hessian_spectra`.
        batches: How many a product takes.
    """

    def __init__(self, notify: Callable[[int], None], batches: int) -> None:
        self._notify, self._batches, self._left = notify, batches, 0

    @contextmanager
    def phase(self, products: int) -> Iterator[None]:
        """Count up to so many products while the body runs, and that many at its end."""
        self._left = products * self._batches
        yield
        self._notify(self._left)
        self._left = 0

    def batch(self) -> None:
        """Count a batch of a product."""
        done = min(1, self._left)
        self._left -= done
        self._notify(done)


class _Judged(nn.Module):
    """A network that puts out its loss, for batches in a dictionary, the only form in which inputs may be several."""

    def __init__(self, model: nn.Module, task: Task, notify: Callable[[], None]) -> None:
        super().__init__()
        self.model, self._task, self._notify = model, task, notify

    def forward(self, batch: Mapping[str, Any]) -> torch.Tensor:
        self._notify()
        return self._task.loss(self.model, (batch["inputs"], batch["targets"]))


class _Itself(nn.Module):
    """What is left of the loss then; the mean over batches is weighted by their sizes."""

    reduction = "mean"

    def forward(self, loss: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return loss


def _operators(
    model: nn.Module, task: Task, parameters: ParameterVector, samples: Samples, notify: Callable[[], None]
) -> dict[str, Any]:
    require_curvlinops()
    from curvlinops import HessianLinearOperator, SubmatrixLinearOperator

    batches = [({"inputs": inputs, "targets": targets}, targets) for inputs, targets in samples]
    # The samples are in memory and dropout is off, so the loss is deterministic.
    full = HessianLinearOperator(
        _Judged(model, task, notify),
        _Itself(),
        parameters.tensors,
        batches,
        check_deterministic=False,
        num_data=sum(len(targets) for _, targets in samples),
        batch_size_fn=lambda batch: len(batch["targets"]),
    )
    if len(parameters.kept) == parameters.total:
        return {"unpruned": full}
    kept = parameters.kept.tolist()
    return {"unpruned": SubmatrixLinearOperator(full, kept, kept), "all": full}


def _dense(operator: Any, count: int) -> Spectrum:
    size = operator.shape[0]
    columns = [operator @ column for column in torch.eye(size, device=operator.device, dtype=operator.dtype)]
    matrix = torch.stack(columns, dim=1).double().cpu().numpy()
    _require_finite(matrix)
    values = np.linalg.eigvalsh((matrix + matrix.T) / 2)[::-1]
    largest = tuple(float(v) for v in values[:count])
    return Spectrum(size, largest, float(values[-1]), float(np.trace(matrix)), 0.0, (), ())


def _iterative(operator: Any, count: int, probes: int, tol: float, seed: int, planned: _Planned) -> Spectrum:
    from curvlinops import hutchinson_trace, lanczos_approximate_spectrum
    from scipy.sparse.linalg import ArpackError, eigsh

    size = operator.shape[0]
    start = np.random.default_rng(keyed_seed(seed, "eigsh")).standard_normal(size)
    phases = _phases(count, probes)
    with planned.phase(phases["check"]):
        product = operator @ torch.as_tensor(start, device=operator.device, dtype=operator.dtype)
    _require_finite(product.cpu().numpy())
    matrix = operator.to_scipy()
    try:
        with planned.phase(phases["largest"]):
            largest = eigsh(matrix, k=count, which="LA", tol=tol, v0=start, return_eigenvectors=False)
        with planned.phase(phases["smallest"]):
            (smallest,) = eigsh(matrix, k=1, which="SA", tol=max(tol, 1e-2), v0=start, return_eigenvectors=False)
    except ArpackError as error:
        raise NumericalError(
            "Hessian eigenvalues",
            expected=f"{count} of {size} to converge",
            found=str(error)[:80],
            remedy="ask for fewer with `hessian`, or measure on more `samples`",
        ) from error
    # One vector at a time, because a product with several takes several times the memory.
    with planned.phase(phases["trace"]):
        estimates = np.array([float(hutchinson_trace(operator, 1)) for _ in range(probes)])
    with planned.phase(phases["density"]):
        at, density = lanczos_approximate_spectrum(
            operator,
            min(LANCZOS_STEPS, size - 1),
            num_points=DENSITY_POINTS,
            boundaries=(float(smallest), float(largest.max())),
        )
    whole = bool(torch.isfinite(density).all())
    return Spectrum(
        dimension=size,
        eigenvalues=tuple(sorted(map(float, largest), reverse=True)),
        smallest=float(smallest),
        trace=float(estimates.mean()),
        trace_error=float(estimates.std(ddof=1) / math.sqrt(probes)) if probes > 1 else 0.0,
        density_at=tuple(at.tolist()) if whole else (),
        density=tuple(density.tolist()) if whole else (),
    )


def _require_finite(values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise DataError(
            "Hessian of the loss",
            expected="finite numbers",
            found="NaN or infinity",
            remedy="look for NaN in the weights, or for a loss that overflows",
        )
