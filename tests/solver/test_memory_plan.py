"""How the memory of a fit is divided, and what is said to suffice where it is too little."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from store_builders import INFO, make_store

from causalprune.base.errors import UsageError
from causalprune.base.units import parse_bytes
from causalprune.solver import exact_fit
from causalprune.solver.exact_fit import fit_exactly
from causalprune.solver.features import FeatureSource
from causalprune.solver.problem import LassoProblem, SolverOptions
from causalprune.solver.working_set import plan_memory


def plan(rows, columns, limit, processes=1):
    source = SimpleNamespace(num_rows=rows, num_columns=columns, copies=1.0, block_width=min(columns, 16384))
    return plan_memory(limit, source, vectors=4, processes=processes)


@pytest.mark.parametrize(
    ("rows", "columns", "limit", "expected"),
    [
        (512, 200_000, 2**31, (16384, 2, 65536)),
        (512, 4_000_000, 2**30, (16384, 2, 131072)),
        (6_000, 50_000, 600 * 2**20, (2048, 1, 12128)),
        (256, 1_500_000, 300 * 2**20, (8192, 2, 32222)),
        (9_000, 87_500, 10**9, (2048, 0, 18128)),
        (64, 300, 2**28, (300, 2, 300)),
    ],
)
def test_plans_are_those_of_earlier_versions(rows, columns, limit, expected):
    # Another plan would change the last bits of fits.
    found = plan(rows, columns, limit)
    assert (found.block_width, found.ahead, found.working_set_columns) == expected


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(("rows", "columns"), [(12, 128), (256, 1_500_000), (6_000, 50_000), (9_000, 87_500)])
def test_what_is_said_to_suffice_does(rows, columns, processes):
    with pytest.raises(UsageError, match=f"for {rows:,} × {columns:,}, found 10 MB") as error:
        plan(rows, columns, 10**7, processes)
    said = parse_bytes(re.search(r"at least ([\d.]+ ?[kMG]B)", f"{error.value}")[1].replace(" ", ""))
    found = plan(rows, columns, said, processes)
    assert 0 < found.working_set_columns <= columns
    with pytest.raises(UsageError):
        plan(rows, columns, int(0.9 * said), processes)
    # More memory makes nothing smaller.
    wider = [plan(rows, columns, int(said * more), processes) for more in (1, 1.1, 1.5, 3, 10)]
    widths = [each.block_width * (each.ahead + 1) for each in wider]
    assert widths == sorted(widths)


def test_a_fit_with_the_least_memory_is_certified_and_the_same(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    rows, columns = 300, 4_000
    store = make_store(tmp_path / "t.zarr", columns)
    deltas = rng.standard_normal((rows, columns)).astype(np.float32)
    change = np.square(deltas[:, :5].astype(np.float64)) @ np.arange(1.0, 6) + rng.standard_normal(rows)
    with store.create_recording(INFO, np.ones(columns, bool), max_rows=rows, codec="exact") as writer:
        for row in range(rows):
            scalars = {"lr": 0.1, "epoch": 0, "batch": row, "grad_norm": 1.0}
            writer.append(deltas[row], loss_before=9.0, loss_after=9.0 + 1e-3 * change[row], **scalars)
        writer.finish()
    plans = []
    monkeypatch.setattr(exact_fit, "plan_memory", lambda *a, **k: plans.append(plan_memory(*a, **k)) or plans[-1])
    source = FeatureSource(store.recording())
    results = [
        fit_exactly(source, LassoProblem(alpha_ratio=0.3), SolverOptions(memory_bytes=limit, held_out=0))
        for limit in (2**31, parse_bytes("110MB"))
    ]
    assert plans[1].block_width < plans[0].block_width
    assert all(result.evidence.certified for result in results)
    supports = [set(np.flatnonzero(result.gamma)) for result in results]
    assert supports[0] == supports[1] != set()
    assert np.allclose(results[0].gamma, results[1].gamma, rtol=1e-6)
