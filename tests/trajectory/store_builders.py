"""Small recordings for the tests of the store; importable by a process of its own without pytest."""

from __future__ import annotations

import numpy as np

from causalprune.models.parameters import ParameterIndex
from causalprune.trajectory import RecordingInfo, Store

INFO = RecordingInfo(lr=0.5, batch_size=4, seed=3, start_sha256="ab" * 32, identity="me", extra={"note": "ümläut"})


def make_index(*sizes):
    return ParameterIndex.from_json(
        [{"name": f"layer{i}.weight", "shape": [size], "filter_axis": 0} for i, size in enumerate(sizes)]
    )


def make_rows(rows, columns, seed=0):
    """(rows, columns) float32 deltas over several decades, some of them zero."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((rows, columns)) * 10.0 ** rng.uniform(-9, -3, (1, columns))
    return np.where(rng.random((rows, columns)) < 0.1, 0, values).astype(np.float32)


def scalars(row):
    """Scalars of a row, none of them with a short binary form."""
    return {
        "loss_before": 2.3 - row / 7,
        "loss_after": 2.2 - row / 7.1,
        "lr": 0.5 / (1 + row // 5),
        "epoch": row // 4,
        "batch": row % 4,
        "grad_norm": 1 / (row + 3),
    }


def append_rows(writer, values, start=0, stop=None):
    for row in range(start, len(values) if stop is None else stop):
        writer.append(values[row], **scalars(row))


def make_store(path, *sizes):
    return Store.create(path, index=make_index(*sizes), model={"name": "toy"}, start_sha256="cd" * 32)


STATISTICS = {"inputs": np.linspace(0, 1, 10, dtype=np.float32), "means": np.arange(4.0)}
"""Arrays as a recording may keep them of its layers; the store doesn't know what they mean."""


def make_recording(path, rows=21, columns=50, block_rows=8, codec="balanced", statistics=False, **options):
    """A finished recording of all parameters, and its exact deltas."""
    store = make_store(path, columns)
    values = make_rows(rows, columns)
    writer = store.create_recording(
        INFO,
        np.ones(columns, bool),
        max_rows=options.pop("max_rows", rows),
        codec=codec,
        block_rows=block_rows,
        **options,
    )
    append_rows(writer, values)
    if statistics:
        writer.keep_layer_statistics(STATISTICS, {"samples": 7})
    writer.finish()
    return store, values


def tree(path):
    """Every file below ``path`` by name, with its bytes."""
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}
