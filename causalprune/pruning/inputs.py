"""What a criterion needs, read from a recording, its fit and a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from causalprune.models.parameters import ParameterIndex
from causalprune.pruning.criterion import NEEDS, Criterion, CriterionInputs
from causalprune.pruning.gradients import GradientMatrix, mean_squared_gradient
from causalprune.pruning.groups import group_ids
from causalprune.trajectory import Fit, RecordingReader

MAX_GRADIENTS = 2000
"""Rows of a recording that are used as gradients; of a longer one, so many evenly spaced rows."""


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
        criterion: Says what it needs; :meth:`Criterion.require` says whether the recording has it.
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
        if reader.num_rows and not NEEDS["learning_rate"].unmet(reader.info.update_rule, reader.steps.lr.tolist()):
            values["learning_rate"] = float(reader.steps.lr[0])
    return CriterionInputs(theta=theta, project=project, ridge=ridge, seed=seed, **values)


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
