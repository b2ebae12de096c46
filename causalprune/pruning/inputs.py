"""Reads what a criterion needs from a recording, its fit and a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from causalprune.models.parameters import ParameterIndex
from causalprune.pruning.criterion import NEEDS, Criterion, CriterionInputs
from causalprune.pruning.gradients import GradientMatrix, mean_squared_gradient
from causalprune.pruning.groups import group_ids
from causalprune.trajectory import Fit, RecordingReader

MAX_GRADIENTS = 2000
"""Largest number of rows used as gradients; from a longer recording, this many evenly spaced rows are used."""


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
    """Read what a criterion needs; what the recording and the fit don't have is left out.

    Args:
        criterion: Declares its needs; :meth:`Criterion.require` checks that the recording can serve them.
        theta: (P,) weights.
        index: The prunable parameters.
        reader: A recording of these parameters.
        fit: A fit to this recording.
        max_bytes: Largest gradient matrix to hold in memory; a larger one is read from the store in each pass.
        project: See :class:`CriterionInputs`.
        ridge: See :class:`CriterionInputs`.
        seed: See :class:`CriterionInputs`.

    Raises:
        CorruptError: The store is damaged.
    """
    values: dict[str, Any] = {}
    if reader is not None:
        lr, columns = reader.steps.lr, reader.column_index
        if fit is not None:
            for name in ("gamma", "dual_correlation"):
                values[name] = _expand(fit.arrays[name], fit.attributes["granularity"], index, reader)
        if "mean_squared_gradient" in criterion.needs:
            values["mean_squared_gradient"] = np.zeros(index.total)
            values["mean_squared_gradient"][columns] = mean_squared_gradient(reader.row_blocks(), lr, len(columns))
        if "gradients" in criterion.needs:
            values["gradients"] = GradientMatrix.from_deltas(
                lambda chosen: reader.column_blocks(columns=chosen),
                lr,
                columns,
                max_rows=MAX_GRADIENTS,
                max_bytes=max_bytes,
            )
        if reader.num_rows and not NEEDS["learning_rate"].unmet(reader.info.update_rule, lr.tolist()):
            values["learning_rate"] = float(lr[0])
    return CriterionInputs(theta=theta, project=project, ridge=ridge, seed=seed, **values)


def _expand(
    values: npt.NDArray[np.floating], granularity: str, index: ParameterIndex, reader: RecordingReader
) -> npt.NDArray[np.floating]:
    """Spread (lags, columns) over all P parameters: each member gets its group's value, pruned parameters get 0."""
    if granularity != "parameter":
        ids, _ = group_ids(index, granularity, reader.active)
        values = values[:, ids]
    full = np.zeros((len(values), index.total), dtype=values.dtype)
    full[:, reader.column_index] = values
    return full[0] if len(full) == 1 else full
