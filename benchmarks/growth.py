"""What grows with rows, cells and memory, and what the command line takes to start.

    python benchmarks/growth.py verify        # CPU seconds of `store verify` and `info` for 4,000 to 200,000 rows
    python benchmarks/growth.py sweep         # what a sweep adds to a cell, with 500 and with 2,000 cells
    python benchmarks/growth.py start         # CPU seconds of commands, beside those of the imports that they need
    python benchmarks/growth.py memory        # the least --memory of fit-gamma, and what it takes then
    python benchmarks/growth.py --smoke       # all of it, as small as it gets

CPU seconds are those of the process and its children, medians of ``--repeats``. ``verify`` leaves imports out: the
process has them before the first measurement. Files go into a temporary directory.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from lines import put

from causalprune.models.parameters import ParameterIndex
from causalprune.trajectory import RecordingInfo, Store


def make_store(path: Path, rows: int, columns: int, seed: int = 0) -> None:
    """A finished recording whose loss changes are explained by 40 of its columns, and by noise."""
    rng = np.random.default_rng(seed)
    index = ParameterIndex.from_json([{"name": "layer.weight", "shape": [columns], "filter_axis": 0}])
    store = Store.create(path, index=index, model={"name": "none"}, start_sha256="")
    info = RecordingInfo(lr=0.01, batch_size=1, seed=seed)
    scale = np.float32(1e-3) * np.exp(rng.standard_normal(columns, dtype=np.float32))
    cause = rng.choice(columns, min(40, columns), replace=False)
    block = rng.standard_normal((64, columns), dtype=np.float32) * scale
    with store.create_recording(info, np.ones(columns, bool), max_rows=rows) as writer:
        for row in range(rows):
            # Drawing 64 rows once and weighting them anew takes a tenth of the time, and no two rows are equal.
            delta = block[row % 64] * np.float32(rng.uniform(0.5, 2))
            change = -float(np.square(delta[cause] / scale[cause], dtype=np.float64).sum()) + rng.standard_normal()
            after = 10 + 1e-3 * change
            scalars = {"lr": 0.01, "epoch": row // 100, "batch": row % 100, "grad_norm": rng.random()}
            writer.append(delta, loss_before=10.0, loss_after=after, **scalars)  # type: ignore[arg-type]
        writer.finish()


def cpu_seconds(work: Callable[[], Any], repeats: int) -> float:
    def once() -> float:
        before = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        work()
        after = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(a.ru_utime + a.ru_stime - b.ru_utime - b.ru_stime for a, b in zip(after, before, strict=True))

    return statistics.median(once() for _ in range(repeats))


def print_table(head: list[str], rows: list[list[str]]) -> None:
    print(f"\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def verify(folder: Path, arguments: argparse.Namespace) -> None:
    from causalprune.commands.info.command import info
    from causalprune.commands.store import store_verify
    from causalprune.config.info import InfoConfig
    from causalprune.config.store import StoreVerifyConfig

    lines, before = [], 0.0
    sizes = [100, 200] if arguments.smoke else [4_000, 16_000, 50_000, 200_000]
    for rows in [sizes[0], *sizes]:
        path = folder / f"rows-{rows}"
        if not path.exists():
            make_store(path, rows, 300)
        checked = cpu_seconds(partial(store_verify, StoreVerifyConfig(store=path)), arguments.repeats)
        described = cpu_seconds(partial(info, InfoConfig(path=path)), arguments.repeats)
        ratio = f"{checked / before:.1f}" if before else ""
        lines.append([f"{rows:,}", f"{checked:.2f}", ratio, f"{described:.2f}"])
        before = checked
    # The first measurement only warms up.
    lines = lines[1:]
    lines[0][2] = ""
    print_table(["rows", "store verify, CPU s", "× the line before", "info, CPU s"], lines)
    # The rows for which an aim is set.
    rows, seconds, *_ = lines[-2]
    put(f"`store verify`, {rows} rows", f"{seconds} CPU s", limit="*10 s*")
    put(f"`info`, {lines[-1][0]} rows", f"{lines[-1][-1]} CPU s", limit="*0.5 CPU s*")


def sweep(folder: Path, arguments: argparse.Namespace) -> None:
    from causalprune.base.json_files import seal, write_json
    from causalprune.base.paths import RunPaths
    from causalprune.commands.sweep import command
    from causalprune.commands.sweep.table import ResultTable
    from causalprune.config.run import RunConfig
    from causalprune.config.sweep import SweepConfig

    layer = {"name": "layer.weight", "shape": [100, 100], "total": 10_000, "kept": 1_000, "sparsity": 0.9}
    gamma = {"correlation": list(range(50)), "log10_edges": [n / 8 for n in range(40)], "positive": list(range(40))}
    measured = {
        "metric": "top1",
        "score": 0.9,
        "dense": 0.95,
        "guessing": 0.5,
        "layers": [layer] * 10,
        "iterations_log": [gamma],
    }

    def stub(point: Any, steps: Any, reporter: Any, *, keep: bool) -> str:
        del reporter
        line = {"cell": point.cell, "kept": keep, "measured": measured | {"seconds": 0.0}, "mask_sha256": ""}
        write_json(steps.paths.cell(point.cell), seal(line))
        return "top1 0.9"

    command.measure_cell = stub  # What is measured is everything around a cell.
    lines = []
    for cells in [5, 10] if arguments.smoke else [500, 2_000]:
        run = folder / f"cells-{cells}"
        base = RunConfig(dataset="breast-cancer", model="mlp", hidden="16")
        values = tuple(n / 20 for n in range(20 if cells > 10 else 5))
        config = SweepConfig(base=base, sparsity=values, criterion=("magnitude",), seeds=cells // len(values), run=run)
        started = time.monotonic()
        spent = cpu_seconds(partial(command.sweep, config), 1)
        wall = time.monotonic() - started
        reading = cpu_seconds(lambda: ResultTable(RunPaths(run).sweep).rows(), 1)  # noqa: B023
        lines.append([f"{cells:,}", f"{1e3 * spent / cells:.1f}", f"{1e3 * wall / cells:.1f}", f"{reading:.2f}"])
    print_table(["cells", "CPU ms a cell", "ms a cell", "reading all rows, CPU s"], lines)
    cells, spent_each, _, reading_all = lines[-1]
    put(f"overhead of a sweep's cell, {cells} cells", f"{spent_each} CPU ms", limit="*10 ms*")
    put(f"reading a sweep's table, {cells} cells", f"{reading_all} CPU s", limit="*2 s*")


def start(folder: Path, arguments: argparse.Namespace) -> None:
    store = folder / "start.zarr"
    make_store(store, 10, 10)
    python, line = [sys.executable], [sys.executable, "-m", "causalprune"]
    commands = {
        "import typer, rich": [*python, "-c", "import typer, rich"],
        "causalprune --help": [*line, "--help"],
        "causalprune info STORE": [*line, "info", str(store)],
        "causalprune store verify STORE": [*line, "store", "verify", str(store)],
        "import torch, torchvision": [*python, "-c", "import torch, torchvision"],
        "causalprune pretrain --epochs 0": [*line, "pretrain", "--epochs", "0", "--dataset", "breast-cancer"],
    }
    # In turn, so that what else the machine does concerns all alike.
    found: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(arguments.repeats):
        for name, words in commands.items():
            quiet = partial(subprocess.run, [*words, *(["--run", f"{folder}/run-{number}"] * ("pretrain" in words))])
            found[name].append(cpu_seconds(partial(quiet, capture_output=True, check=True), 1))
    first = statistics.median(found["import typer, rich"])
    lines = [
        [name, f"{statistics.median(values):.2f}", f"{statistics.median(values) / first:.1f}"]
        for name, values in found.items()
    ]
    print_table(["what", "CPU s", "× import typer, rich"], lines)
    took = {name: statistics.median(values) for name, values in found.items()}
    imports = {name: f"{took[name]:.2f} CPU s, {name}" for name in ("import typer, rich", "import torch, torchvision")}
    for name in ("causalprune --help", "causalprune info STORE", "causalprune store verify STORE"):
        put(f"`{name}`", f"{took[name]:.2f} CPU s", limit=imports["import typer, rich"])
    last = "causalprune pretrain --epochs 0"
    put(f"`{last}`", f"{took[last]:.2f} CPU s", limit=imports["import torch, torchvision"])


_CHILD = """
import re, sys
from pathlib import Path
from causalprune_cli.main import main
code = main(sys.argv[1:])
print(code, re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def memory(folder: Path, arguments: argparse.Namespace) -> None:
    shapes = [(64, 300)] if arguments.smoke else [(4_000, 65_000), (256, 1_000_000)]
    lines = []
    for rows, columns in shapes:
        store = folder / f"memory-{rows}"
        make_store(store, rows, columns)

        def fit(limit: str) -> tuple[str, dict[str, Any], int]:
            words = ["fit-gamma", "--store", str(store), "--memory", limit, "--overwrite", "--json", "--quiet"]  # noqa: B023
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            command = [sys.executable, "-c", _CHILD, *words, "--run", str(folder / "run")]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            result, _, last = done.stdout.strip().rpartition("\n")
            return done.stderr, json.loads(result) if result else {}, 1024 * int(last.split()[1])

        said, _, _ = fit("32MB")
        least = re.search(r"expected at least ([\d.]+) ([kMG]B)", said)
        assert least, said
        limit = float(least[1]) * {"kB": 1e3, "MB": 1e6, "GB": 1e9}[least[2]]
        said, result, peak = fit(f"{least[1]}{least[2]}")
        assert result, said
        evidence = result["metrics"]["evidence"]
        raw = f"{4 * rows * columns / 1e9:.2f}"
        numbers = [f"{limit / 1e6:.0f}", f"{peak / 1e6:.0f}", f"{peak / limit:.2f}", f"{evidence['passes']:.1f}"]
        lines.append([f"{rows:,} × {columns:,}", raw, *numbers])
        put(
            f"memory of a fit, {rows:,} × {columns:,}",
            f"{peak / 1e6:.0f} MB",
            limit=f"{limit / 1e6:.0f} MB, said to suffice",
        )
    print_table(["rows × columns", "GB as float32", "said to suffice, MB", "peak, MB", "peak / said", "passes"], lines)


PARTS = {"verify": verify, "sweep": sweep, "start": start, "memory": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="|".join(PARTS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--smoke", action="store_true")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.repeats = 1
    with tempfile.TemporaryDirectory() as folder:
        for part in arguments.parts or PARTS:
            PARTS[part](Path(folder), arguments)


if __name__ == "__main__":
    main()
