"""A fit whose columns are divided among members: what one finds, proven over the columns of all.

The members are threads here, and what they send passes through queues; the processes of the command line are tested
with the other stages' in ``tests/faults``.
"""

import queue
import threading

import numpy as np
import pytest
from kkt import kkt_violation
from test_exact_fit import causal_problem, rows_of_path

from causalprune.base.compute.runtime import Processes
from causalprune.base.errors import DataError
from causalprune.solver import exact_fit
from causalprune.solver.evidence import NotCertifiedError
from causalprune.solver.exact_fit import assist, fit_exactly
from causalprune.solver.problem import LassoProblem, SolverOptions
from causalprune.solver.process_group import ProcessGroup
from causalprune.solver.source import ArraySource
from causalprune.solver.working_set import MemoryPlan

BLOCK = 16
TOLERANCE = 1e-6
"""Relative difference of γ in the Euclidean norm, at a relative duality gap of 1e-10."""


class Exchange:
    """What joins the threads."""

    def __init__(self, count):
        self.barrier = threading.Barrier(count, timeout=60)
        self.slots = [None] * count
        self.queues = [queue.Queue() for _ in range(count)]


class ThreadTeam(ProcessGroup):
    def __init__(self, rank, exchange):
        super().__init__(Processes(rank, len(exchange.slots)))
        self.exchange = exchange

    def _all(self, thing):
        self.exchange.slots[self.rank] = thing
        self.exchange.barrier.wait()
        things = list(self.exchange.slots)
        self.exchange.barrier.wait()
        return things

    def _reduce(self, values, operation):
        return [float(n) for n in getattr(np, {"MAX": "max", "SUM": "sum"}[operation])(self._all(values), axis=0)]

    def broadcast(self, thing):
        return self._all(thing)[0]

    def send(self, array):
        self.exchange.queues[self.rank].put(np.array(array).reshape(-1))

    def receive(self, sender, dtype):
        array = self.exchange.queues[sender].get(timeout=60)
        assert array.dtype == dtype
        return array


def fit_divided(count, X, y, problem, options, ranges=None):
    """Fit with ``count`` members; also says which columns each of them read."""
    exchange = Exchange(count)
    sources = [ReadLog(X, y, BLOCK) for _ in range(count)]
    failures = []

    def member(rank):
        try:
            assist(sources[rank], problem, options, ranges, ThreadTeam(rank, exchange))
        except Exception as error:
            failures.append(error)
            exchange.barrier.abort()

    threads = [threading.Thread(target=member, args=(rank,)) for rank in range(1, count)]
    for thread in threads:
        thread.start()
    try:
        result = fit_exactly(sources[0], problem, options, ranges, group=ThreadTeam(0, exchange))
    except threading.BrokenBarrierError:
        raise failures[0] from None
    finally:
        for thread in threads:
            thread.join(60)
    assert not failures
    return result, [source.seen for source in sources]


class ReadLog(ArraySource):
    def __init__(self, *args):
        super().__init__(*args)
        self.seen = set()

    def read(self, start, stop):
        self.seen |= set(range(start, stop))
        return super().read(start, stop)


def require_same(one, many, tolerance=TOLERANCE):
    np.testing.assert_array_equal(one.gamma != 0, many.gamma != 0)
    assert np.linalg.norm(one.gamma - many.gamma) <= tolerance * np.linalg.norm(one.gamma)
    np.testing.assert_array_equal(one.extras["equicorrelation"], many.extras["equicorrelation"])
    assert many.evidence.certified
    for (_, a), (_, b) in zip(one.layers or [("", one.evidence)], many.layers or [("", many.evidence)], strict=True):
        assert a.alpha_max == pytest.approx(b.alpha_max, rel=1e-12)
        assert a.objective == pytest.approx(b.objective, rel=1e-9)
    assert np.abs(one.dual_correlation - many.dual_correlation).max() <= 2e-4


@pytest.mark.parametrize("kind", ["layers", "duplicated", "tiny", "zero"])
@pytest.mark.parametrize(
    ("normalize", "l1_ratio", "working_set"),
    [("column", 1.0, 360), ("none", 1.0, 360), ("none", 1.0, 4000), ("column", 0.6, 4000)],
)
def test_two_and_three_find_what_one_finds(kind, normalize, l1_ratio, working_set, monkeypatch):
    """360 columns are so few that members must drop some and read again."""
    monkeypatch.setattr(exact_fit, "plan_memory", lambda *a, **k: MemoryPlan(BLOCK, 0, working_set))
    X, y = causal_problem(columns=1500, kind=kind)
    problem = LassoProblem(num_alphas=5, alpha_min_ratio=0.1, l1_ratio=l1_ratio, normalize=normalize, tol=1e-10)
    options = SolverOptions(held_out=0.2, max_passes=40)
    one = fit_exactly(ArraySource(X, y, BLOCK), problem, options)
    norms = np.linalg.norm(X.astype(np.float64), axis=0) if normalize == "column" else np.ones(X.shape[1])
    scaled = np.divide(X, norms, where=norms > 0, out=np.zeros(X.shape))
    for count in (2, 3):
        many, seen = fit_divided(count, X, y, problem, options)
        if kind != "duplicated":
            require_same(one, many)
        for point, gamma in zip(many.evidence.path[1:], rows_of_path(many)[1:], strict=True):
            # The proof, by all columns at once.
            assert kkt_violation(scaled, y, gamma * norms, point.alpha, l1_ratio) < 1e-4
            assert point.relative_gap <= 1e-10
        assert set.union(*seen) == set(range(X.shape[1]))
        assert sum(map(len, seen)) == X.shape[1]
        if working_set == 4000:
            assert many.evidence.passes == 1
        assert [p.r2_held_out for p in many.evidence.path] == pytest.approx(
            [p.r2_held_out for p in one.evidence.path], abs=1e-2
        )


def test_everything_beside_the_fit_is_the_same_too():
    """Layers, one of them smaller than a block, that share blocks; folds; resamples; signs."""
    X, y = causal_problem(columns=900)
    ranges = [("a", 0, 401), ("b", 401, 405), ("c", 405, 900)]
    problem = LassoProblem(num_alphas=4, normalize="column", sign=-1, tol=1e-10)
    options = SolverOptions(folds=3, resamples=4, held_out=0)
    one = fit_exactly(ArraySource(X, y, BLOCK), problem, options, ranges)
    many, _ = fit_divided(2, X, y, problem, options, ranges)
    require_same(one, many)
    np.testing.assert_allclose(one.extras["selection_probability"], many.extras["selection_probability"], atol=0.26)
    for (name, a), (_, b) in zip(one.layers, many.layers, strict=True):
        assert a.num_nonzero == b.num_nonzero, name
        assert [p.cv_error for p in a.path] == pytest.approx([p.cv_error for p in b.path], abs=1e-3)


def test_a_search_for_a_number_of_coefficients():
    X, y = causal_problem(columns=700)
    problem = LassoProblem(target_nonzero=12, normalize="column", tol=1e-10)
    one = fit_exactly(ArraySource(X, y, BLOCK), problem, SolverOptions(held_out=0))
    many, _ = fit_divided(2, X, y, problem, SolverOptions(held_out=0))
    require_same(one, many)


def test_more_members_than_blocks():
    X, y = causal_problem(columns=20)
    problem = LassoProblem(alpha_ratio=0.05, tol=1e-10)
    one = fit_exactly(ArraySource(X, y, BLOCK), problem, SolverOptions(held_out=0))
    many, seen = fit_divided(3, X, y, problem, SolverOptions(held_out=0))
    require_same(one, many)
    assert [len(columns) for columns in seen] == [16, 4, 0]


def test_the_passes_run_out_for_all(monkeypatch):
    monkeypatch.setattr(exact_fit, "plan_memory", lambda *a, **k: MemoryPlan(BLOCK, 0, 64))
    X, y = causal_problem(columns=2000)
    problem = LassoProblem(alpha_ratio=0.01, normalize="column", tol=1e-12)
    with pytest.raises(NotCertifiedError):
        fit_divided(2, X, y, problem, SolverOptions(held_out=0, max_passes=1))


def test_a_member_that_finds_a_column_of_nan_says_so():
    X, y = causal_problem()
    X[3, BLOCK + 1] = np.nan
    with pytest.raises(DataError, match=f"column {BLOCK + 1}"):
        fit_divided(2, X, y, LassoProblem(alpha_ratio=0.1), SolverOptions(held_out=0))
