"""The exact fit against its peers: a table of seconds, memory, passes and certified gaps.

    python benchmarks/fit.py STORES [--problems mom-200k mom-1m] [--methods ours celer skglm] [--limit 300]

Makes the stores that STORES lacks (see trajectories.py). Each method runs in its own process, one after the other on
the same data, with one BLAS thread. ``ours`` reads the store; the others are given the matrix, and the time to load it
is listed separately. The gap of every path is computed again, in float64, over all columns; ``×`` is the method's CPU
time, loading included, divided by ours. A method that takes longer than ``--limit`` seconds is stopped.

Columns have unit norm unless ``--normalize none``; paths are 20 α down to 0.01 alpha_max, ``one`` is 0.01 alpha_max
alone, ``100`` a path of 100.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from lines import put

KINDS = {"path": "20 α", "one": "one α", "100": "100 α"}

TOL = 1e-6
"""Relative to ‖y‖²/2T."""


def alphas_of(problem: str, alpha_max: float) -> list[float]:
    count = {"path": 20, "100": 100, "one": 1}[problem]
    return [0.01 * alpha_max] if count == 1 else [float(a) for a in alpha_max * np.geomspace(1, 0.01, count)]


def peak_bytes() -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def ours(store: Path, problem: str, arguments: argparse.Namespace) -> dict[str, Any]:
    from causalprune.solver.exact_fit import fit_exactly
    from causalprune.solver.features import FeatureSource
    from causalprune.solver.problem import LassoProblem, SolverOptions
    from causalprune.trajectory import Store

    source = FeatureSource(Store.open(store).recording())
    kind = {"alpha_ratio": 0.01} if problem == "one" else {"num_alphas": {"path": 20, "100": 100}[problem]}
    options = SolverOptions(memory_bytes=arguments.memory * 2**20, held_out=0, ranking=False, device=arguments.device)
    result = fit_exactly(source, LassoProblem(**kind, normalize=arguments.normalize, tol=TOL), options)
    e = result.evidence
    return {
        "nonzero": e.num_nonzero,
        "passes": e.passes,
        "gap": e.relative_gap,
        "seconds": {k: round(v, 2) for k, v in result.seconds.items()},
        "bytes": 4 * e.num_rows * e.num_columns * e.passes,
    }


def load(store: Path, normalize: str, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """X (columns scaled) in Fortran order, y; as a user of an in-memory solver would."""
    from causalprune.solver.features import FeatureSource
    from causalprune.trajectory import Store

    source = FeatureSource(Store.open(store).recording())
    X = np.empty((source.num_rows, source.num_columns), dtype, order="F")
    for first, block in source.blocks():
        wide = block.astype(np.float64)
        norms = np.linalg.norm(wide, axis=0) if normalize == "column" else np.ones(block.shape[1])
        wide /= np.where(norms > 0, norms, 1.0)
        X[:, first : first + block.shape[1]] = wide
    if normalize == "none":
        X *= 2.0 ** -np.floor(np.log2(X.max()))
    return X, source.target / np.linalg.norm(source.target)


def gaps(X: np.ndarray, y: np.ndarray, alphas: list[float], coefficients: np.ndarray) -> float:
    """Largest relative duality gap of a path, in float64."""
    from causalprune.solver.certificate import Penalty, duality_gap

    worst = 0.0
    for alpha, g in zip(alphas, coefficients.T, strict=True):
        used = np.flatnonzero(g)
        residual = y - X[:, used].astype(np.float64) @ g[used].astype(np.float64)
        peak = max(np.abs(residual @ X[:, i : i + 8192].astype(np.float64)).max() for i in range(0, X.shape[1], 8192))
        gap = duality_gap(y, residual, g, Penalty(alpha), float(peak)).gap
        worst = max(worst, gap * 2 * len(y))
    return worst


def in_memory(store: Path, problem: str, method: str, arguments: argparse.Namespace) -> dict[str, Any]:
    started, cpu = time.perf_counter(), time.process_time()
    X, y = load(store, arguments.normalize, "float32" if method == "scikit-learn" else "float64")
    load_wall, load_cpu = time.perf_counter() - started, time.process_time() - cpu
    T = len(y)
    alpha_max = max(float(np.abs(y @ X[:, i : i + 8192]).max()) for i in range(0, X.shape[1], 8192)) / T
    alphas = alphas_of(problem, alpha_max)
    started, cpu = time.perf_counter(), time.process_time()
    if method == "celer":
        from celer import celer_path

        # Its stopping rule is a gap of tol·‖y‖²/T.
        _, coefficients, _ = celer_path(X, y, "lasso", alphas=np.array(alphas), tol=TOL / 2)
    elif method == "skglm":
        from skglm.datafits import Quadratic
        from skglm.penalties import L1
        from skglm.solvers import AndersonCD
        from skglm.utils.jit_compilation import compiled_clone

        # Its stopping rule is the largest violation of the optimality conditions.
        solver = AndersonCD(tol=1e-4 * alphas[-1], fit_intercept=False, max_iter=200, warm_start=True)
        fit, penalty = compiled_clone(Quadratic()), compiled_clone(L1(1.0))
        _, coefficients, _ = solver.path(X, y, fit, penalty, alphas=np.array(alphas))
    else:
        from sklearn.linear_model import lasso_path

        _, coefficients, _ = lasso_path(X, y.astype(np.float32), alphas=alphas, tol=TOL / 2, max_iter=100_000)
    coefficients = np.asarray(coefficients)[: X.shape[1]]
    return {
        "wall": time.perf_counter() - started,
        "cpu": time.process_time() - cpu,
        "load_wall": load_wall,
        "load_cpu": load_cpu,
        "peak": peak_bytes(),
        "nonzero": int(np.count_nonzero(coefficients[:, -1])),
        "gap": gaps(X, y, alphas, coefficients),
    }


def authors(store: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The authors' truncated gradient at the α of ``one``: 30 passes, minibatches of 16, the longest stable step.

    Their own step of 0.1 diverges on these columns.
    """
    from causalprune.solver.certificate import Penalty, certify
    from causalprune.solver.features import FeatureSource
    from causalprune.solver.fit import scan
    from causalprune.solver.reference.truncated_gradient import TruncatedGradientPreset, solve_truncated_gradient
    from causalprune.trajectory import Store

    source = FeatureSource(Store.open(store).recording())
    y = source.target
    scanned = scan(source, arguments.normalize)
    alpha = 0.01 * float(np.abs(scanned.correlation).max()) / len(y)
    squares = sum(float(((block * scanned.scale) ** 2).sum()) for _, block in source.row_blocks(16)) / len(y)
    config = TruncatedGradientPreset(lr=0.5 / squares, lr_decay_power=0.1, batch_rows=16, max_passes=30, patience=0)
    g, passes = solve_truncated_gradient(source, scanned.scale, alpha, config, seed=0)
    model = sum(block @ (scanned.scale * g)[i : i + block.shape[1]] for i, block in source.blocks())
    gap = certify(source, scanned.scale, g, y - model, Penalty(alpha))[0].gap
    return {"nonzero": int(np.count_nonzero(g)), "passes": passes, "gap": gap * 2 * len(y) / float(y @ y)}


def decode(store: Path) -> dict[str, Any]:
    """One pass that decodes and squares, and does nothing with it: the unit of cost."""
    from causalprune.solver.features import FeatureSource
    from causalprune.trajectory import Store

    source = FeatureSource(Store.open(store).recording())
    for _ in source.blocks():
        pass
    return {"passes": 1.0, "bytes": 4 * source.num_rows * source.num_columns}


def child(arguments: argparse.Namespace) -> None:
    store, method, problem = Path(arguments.child[0]), arguments.child[1], arguments.child[2]
    started, cpu = time.perf_counter(), time.process_time()
    if method == "ours":
        found = ours(store, problem, arguments)
    elif method == "authors":
        found = authors(store, arguments)
    elif method == "decode":
        found = decode(store)
    else:
        found = in_memory(store, problem, method, arguments)
    own = {"wall": time.perf_counter() - started, "cpu": time.process_time() - cpu, "peak": peak_bytes()}
    print(json.dumps({**own, **found}))


def run(store: Path, method: str, problem: str, arguments: argparse.Namespace) -> dict[str, Any]:
    options = ["--normalize", arguments.normalize, "--memory", str(arguments.memory), "--device", arguments.device]
    command = [sys.executable, __file__, str(arguments.stores), *options, "--child", str(store), method, problem]
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "NUMBA")}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=arguments.limit, env={**os.environ, **threads}
        )
    except subprocess.TimeoutExpired:
        return {"stopped": arguments.limit}
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1][:90]}
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", type=Path)
    parser.add_argument("--problems", nargs="+", default=["mom-200k", "sgd-200k", "mom-1m", "syn-1m"])
    parser.add_argument("--kinds", nargs="+", default=["path", "one", "100"], choices=["path", "one", "100"])
    parser.add_argument("--methods", nargs="+", default=["ours", "celer", "skglm", "scikit-learn", "authors"])
    parser.add_argument("--normalize", default="column", choices=["column", "none"])
    parser.add_argument("--memory", type=int, default=480, help="MiB that ours may take")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds after which a method is stopped")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--smoke", action="store_true", help="the smallest form, for a test")
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
        return
    if arguments.smoke:
        arguments.problems, arguments.kinds, arguments.methods = ["mom-tiny"], ["path", "one"], ["ours", "scikit-learn"]
    from trajectories import make

    print("| store | what | method | wall s | CPU s | loading s | peak MB | passes | nonzero | relative gap | × |")
    print("|" + "---|" * 11)
    for name in arguments.problems:
        store = make(name, arguments.stores / f"{name}.zarr")
        passed = run(store, "decode", "one", arguments)
        cost = f"{passed['wall']:.1f} | {passed['cpu']:.1f} | within | {passed['peak'] / 1e6:.0f}"
        print(f"| {name} | – | one decoding pass | {cost} | 1 | | | |", flush=True)
        for kind in arguments.kinds:
            base, peers = None, {}
            for method in arguments.methods:
                # scikit-learn takes minutes for a single α; a path of 100 shows nothing new about the others.
                if (kind == "100" and method != "ours") or (kind != "one" and method in ("scikit-learn", "authors")):
                    continue
                found = run(store, method, kind, arguments)
                print(row(name, kind, method, found, base), flush=True)
                if method != "ours" and "wall" in found:
                    peers[method] = found["cpu"] + found.get("load_cpu", 0.0)
                if method == "ours" and "wall" in found:
                    base = found
                    spent = ", ".join(f"{part} {value:.1f}" for part, value in found.get("seconds", {}).items())
                    print(f"| {name} | {kind} | of these s (threads summed): {spent} | | | | | | | | |", flush=True)
            if base:
                put_lines(f"fit of `{name}`, {KINDS[kind]}", base, peers, passed["cpu"])


def put_lines(work: str, base: dict[str, Any], peers: dict[str, float], decoding: float) -> None:
    """Lines of the table: a fit, beside the best peer; and one of its passes, all work divided by their number."""
    limit = f"{decoding:.1f} CPU s, decoding once"
    best = min(peers, key=peers.__getitem__, default="")
    peer = f"{peers[best]:.1f} CPU s, {best}" if best else "–"
    put(work, f"{base['cpu']:.1f} CPU s", peer, limit, peers[best] / base["cpu"] if best else None)
    put(f"{work}, a pass", f"{base['cpu'] / base['passes']:.1f} CPU s", limit=limit)


def row(name: str, kind: str, method: str, found: dict[str, Any], base: dict[str, Any] | None) -> str:
    start = f"| {name} | {kind} | {method} | "
    if "wall" not in found:
        return start + f"{found.get('failed') or 'stopped after ' + str(found['stopped']) + ' s'} | | | | | | | |"
    loading = f"{found['load_wall']:.1f}" if "load_wall" in found else "within"
    cpu = found["cpu"] + found.get("load_cpu", 0.0)
    base_cpu = base["cpu"] if base and "cpu" in base else None
    times = f"{cpu / base_cpu:.1f}" if base_cpu else "1" if method == "ours" else ""
    passes = f"{found['passes']:.2f}" if "passes" in found else ""
    return (
        start + f"{found['wall']:.1f} | {found['cpu']:.1f} | {loading} | {found['peak'] / 1e6:.0f} | {passes} | "
        f"{found['nonzero']:,} | {found['gap']:.1e} | {times} |"
    )


if __name__ == "__main__":
    main()
