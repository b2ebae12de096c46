"""What ``info`` says about a trajectory store; metadata and commit logs are enough unless more is requested."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from causalprune.analysis.diagnosis.rounding import rounding
from causalprune.base.errors import DataError
from causalprune.base.units import parse_range
from causalprune.commands.names import with_flags
from causalprune.trajectory import RecordingReader, Store
from causalprune.trajectory.steps import Steps
from causalprune.trajectory.steps.rounding import vanished_finding

MAX_SHOWN_ROWS = 1000


@dataclass
class Problems:
    """What is wrong with the files that were described.

    Attributes:
        lines: One line per problem.
        damaged: Whether one of the problems is damage, rather than something unfinished.
        warnings: What isn't wrong, but should be known.
        altered: Result files that somebody altered.
    """

    lines: list[str] = field(default_factory=list)
    damaged: bool = False
    warnings: list[str] = field(default_factory=list)
    altered: set[Path] = field(default_factory=set)

    def add_damage(self, lines: Iterable[str]) -> None:
        """Add damaged files, one line each."""
        lines = list(lines)
        self.lines += lines
        self.damaged = self.damaged or bool(lines)


def describe_store(
    store: Store, problems: Problems, *, verify: bool, made_by: str = "record command"
) -> dict[str, Any]:
    """Describe a store.

    Args:
        store: The store.
        problems: Problems are added to it.
        verify: Read everything again and compare all checksums.
        made_by: What records there, and finishes what it has begun.
    """
    writer = store.writer
    recordings = [store.recording(name, quick=not verify) for name in store.recordings]
    for reader in recordings:
        problems.add_damage(reader.verify() if verify else reader.check_lengths())
        if not reader.finished and writer is None:
            problems.lines.append(f"recording {reader.name} is not finished: run the same {made_by} again")
    return {
        "model": store.model,
        "prunable": store.index.total,
        "start_sha256": store.start_sha256,
        "writer": None if writer is None else str(writer),
        "recordings": [_describe_recording(reader, problems) for reader in recordings],
    }


def _describe_recording(reader: RecordingReader, problems: Problems) -> dict[str, Any]:
    steps = reader.steps
    change = reader.loss_change
    statistics = None
    if len(change):
        statistics = {
            "mean": float(change.mean()),
            "std": float(change.std()),
            "min": float(change.min()),
            "max": float(change.max()),
            "falling": float((change < 0).mean()),
        }
    worth = vanished_finding(reader.vanished_share)
    problems.warnings += [with_flags(f"recording {reader.name}: {worth}")] if worth else []
    fits = {fit: reader.read_fit(fit) for fit in reader.fits}
    problems.warnings += [
        f"recording {reader.name}: fit {name} was made before the last rows were recorded; fit again with `overwrite`"
        for name, fit in fits.items()
        if not reader.is_all_of(fit)
    ]
    return {
        "name": reader.name,
        "recorded": reader.info.to_json(),
        "no_causal_reading": reader.info.update_rule.against_causality(),
        "end_weights": reader.end_weights,
        "codec": reader.codec,
        "rows": reader.num_rows,
        "max_rows": reader.schema.max_rows,
        "columns": reader.num_columns,
        "coverage": reader.coverage,
        "mask_bytes": reader.mask_bytes,
        "block_rows": reader.block_rows,
        "epochs": len(np.unique(steps.epoch)) if _counted(steps) else None,
        "finished": reader.finished,
        "raw_bytes": reader.raw_bytes,
        "stored_bytes": reader.stored_bytes,
        "loss_change": statistics,
        "rounding": rounding(reader),
        "digest": reader.digest,
        "digests": sorted(reader.digests),
        "layer_statistics": _describe_layer_statistics(reader),
        "fits": {name: fit.attributes.get("evidence") for name, fit in fits.items()},
    }


def _counted(steps: Steps) -> bool:
    """Whether the loop said which epoch and minibatch each step was of; otherwise all are noted as the first."""
    return len(steps) < 2 or bool(np.any(steps.epoch) or np.any(steps.batch))


def _describe_layer_statistics(reader: RecordingReader) -> dict[str, Any] | None:
    kept = reader.read_layer_statistics()
    if kept is None:
        return None
    return {name: kept.attributes.get(name) for name in ("samples", "seed", "weights")} | {
        "stored_bytes": reader.layer_statistics_bytes
    }


def describe_rows(reader: RecordingReader, rows: str) -> list[dict[str, float]]:
    """The scalars of rows such as ``0:10``, and the norm ‖Δθ‖₂ of each row, which is read from the shards.

    Raises:
        DataError: Rows that were not recorded, or more than :data:`MAX_SHOWN_ROWS`.
        CorruptError: A shard is missing or damaged.
    """
    start, stop = parse_range(rows)
    stop = reader.num_rows if stop is None else min(stop, reader.num_rows)
    if not start < stop <= start + MAX_SHOWN_ROWS:
        raise DataError(
            f"rows {rows} of {reader.path}",
            expected=f"some of its rows 0:{reader.num_rows}, at most {MAX_SHOWN_ROWS}",
            found=f"{stop - start}" if start < stop else "none",
        )
    norms = step_norms(reader, start, stop)
    steps = reader.steps
    return [
        {"row": row} | steps.row(row) | {"loss_change": float(reader.loss_change[row]), "step_norm": float(norm)}
        for row, norm in enumerate(norms, start)
    ]


def step_norms(reader: RecordingReader, start: int, stop: int) -> np.ndarray:
    """‖Δθ_t‖₂ of rows ``start`` to ``stop``, (stop − start,) float64, with one block of rows in memory."""
    squares = np.zeros(stop - start)
    first = start
    while first < stop:
        last = min(first + reader.block_rows - first % reader.block_rows, stop)
        block = reader.read_rows(first, last)
        squares[first - start : last - start] = np.einsum("ij,ij->i", block, block, dtype=np.float64)
        first = last
    return np.sqrt(squares)


def describe_parameter(reader: RecordingReader, name: str) -> dict[str, Any]:
    """How a parameter moved; its columns are streamed.

    Raises:
        UsageError: The store has no parameter of that name.
        CorruptError: A shard is missing or damaged.
    """
    columns = reader.columns_of(name)
    size = columns.stop - columns.start
    largest, zeros, squares, moved = 0.0, 0, 0.0, 0.0
    for start in range(columns.start, columns.stop, reader.block_width):
        block = reader.read_columns(start, min(start + reader.block_width, columns.stop))
        if not block.size:
            break
        largest = max(largest, float(np.abs(block).max()))
        zeros += block.size - int(np.count_nonzero(block))
        squares += float(np.einsum("ij,ij->", block, block, dtype=np.float64))
        moved += float(np.square(block.sum(axis=0, dtype=np.float64)).sum())
    values = size * reader.num_rows
    return {
        "name": name,
        "columns": size,
        "largest": largest,
        "rms": float(np.sqrt(squares / values)) if values else 0.0,
        "zeros": zeros / values if values else 0.0,
        # 1 if all steps go the same way, 1/√T if they cancel like those of a random walk.
        "straightness": float(np.sqrt(moved / (squares * reader.num_rows))) if squares else 0.0,
    }
