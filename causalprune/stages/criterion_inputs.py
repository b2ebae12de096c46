"""What a criterion needs, read from a recording, its fit and a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from causalprune.errors import MismatchError
from causalprune.parameters import ParameterIndex
from causalprune.pruning.criterion import NEEDS, Criterion, CriterionInputs, departure
from causalprune.pruning.gradients import GradientMatrix, mean_squared_gradient
from causalprune.pruning.groups import group_ids
from causalprune.store import Fit, RecordingReader

MAX_GRADIENTS = 2000
"""Rows of a recording that are used as gradients; of a longer one, so many evenly spaced rows."""


def require_recording(criterion: Criterion, reader: RecordingReader) -> None:
    """Refuse a recording that can't serve a criterion, whatever is fitted to it.

    Raises:
        MismatchError: The criterion needs gradients, or h = 2(γ + 1/η), which the recording hasn't.
    """
    for need in NEEDS:
        found = _against(need, reader) if need in criterion.needs else ""
        if found:
            what, remedy = NEEDS[need]
            raise MismatchError(
                f"criterion {criterion.name}",
                expected=what,
                found=f"one with {found}",
                remedy=f"{remedy}, or choose another",
            )


def read_inputs(
    criterion: Criterion,
    theta: npt.NDArray[np.float32],
    index: ParameterIndex,
    reader: RecordingReader | None,
    fit: Fit | None,
    *,
    max_bytes: int,
    project: Callable[[npt.NDArray[np.floating]], npt.NDArray[np.bool_]] | None = None,
    ridge: float = CriterionInputs.ridge,
    seed: int = 0,
) -> CriterionInputs:
    """Read what a criterion needs; what isn't there is left out.

    Args:
        criterion: Says what it needs; :func:`require_recording` says whether the recording has it.
        theta: (P,) weights.
        index: The prunable parameters.
        reader: A recording of these parameters.
        fit: A fit of this recording.
        max_bytes: Largest matrix of gradients to hold in memory; a larger one is read from the store in every pass.
        project: See :class:`CriterionInputs`, as for ``ridge`` and ``seed``.
        ridge: Penalty.
        seed: Seed.

    Raises:
        CorruptError: The store is damaged.
    """
    values: dict[str, Any] = {}
    if fit is not None and reader is not None:
        for name in ("gamma", "dual_correlation"):
            values[name] = _expand(fit.arrays[name], fit.attributes["granularity"], index, reader)
    if reader is not None:
        if "mean_squared_gradient" in criterion.needs:
            mean = np.zeros(index.total)
            mean[reader.column_index] = mean_squared_gradient(_gradient_blocks(reader))
            values["mean_squared_gradient"] = mean
        if "gradients" in criterion.needs:
            values["gradients"] = GradientMatrix.from_deltas(
                lambda columns: reader.column_blocks(columns=columns),
                reader.steps.lr,
                reader.column_index,
                max_rows=MAX_GRADIENTS,
                max_bytes=max_bytes,
            )
        if reader.num_rows and not _against("learning_rate", reader):
            values["learning_rate"] = float(reader.steps.lr[0])
    return CriterionInputs(theta=theta, project=project, ridge=ridge, seed=seed, **values)


def _against(need: str, reader: RecordingReader) -> str:
    """How a recording departs from one that has what a criterion needs, in words; empty where it has it."""
    return departure(need, reader.info.update_rule, np.unique(reader.steps.lr).tolist())


def _expand(
    values: npt.NDArray[np.floating], granularity: str, index: ParameterIndex, reader: RecordingReader
) -> npt.NDArray[np.floating]:
    """Spread (lags, columns) over all P parameters: a group's value to each of its members, 0 to pruned ones."""
    if granularity != "parameter":
        ids, _ = group_ids(index, granularity, reader.active)
        values = values[:, ids]
    full = np.zeros((len(values), index.total), dtype=values.dtype)
    full[:, reader.column_index] = values
    return full[0] if len(full) == 1 else full


def _gradient_blocks(
    reader: RecordingReader,
) -> Iterator[tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]]:
    lr = reader.steps.lr
    for first, block in reader.row_blocks():
        yield block, lr[first : first + len(block)]
