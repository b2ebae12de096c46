"""The trajectory store against its peers: what recording costs, how small it is, how fast it reads.

    python benchmarks/store.py [overhead] [bytes] [reading] [memory] [zarr] [--dataset mnist --data-root DIR]
    python benchmarks/store.py --smoke

Peers, each measured in the same run: a loop that computes both losses and records nothing; the authors' way (one
``torch.save`` of the squared delta a step, in threads); ``pread`` and ``numpy.memmap`` of one raw file; the zarr
library, which writes and reads the same rows in the same shards.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lines import put
from recording_loops import Recorded, RecordedBeside, Rounds, Saved, Training, lenet, resnet18, tiny

from causalprune.commands.fit_gamma import fit_gamma
from causalprune.commands.pretrain import pretrain
from causalprune.commands.record.command import record
from causalprune.config.fit_gamma import FitGammaConfig
from causalprune.config.pretrain import PretrainConfig
from causalprune.config.record import RecordConfig
from causalprune.models.parameters import ParameterIndex
from causalprune.trajectory import RecordingInfo, RecordingReader, Store
from causalprune.trajectory.maintenance import recode

NORMALIZATIONS = ("none", "column")

NAMES = {"lenet": "LeNet", "mlp": "an MLP"}

KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**33)}
"""Tells glibc to keep freed memory. Otherwise PyTorch's activations are, or aren't, given back and faulted in again at
every step, by chance, and that difference is larger than what is to be measured."""


def table(title: str, header: str, rows: list[tuple[object, ...]]) -> None:
    print(f"\n{title}\n\n{header}\n|{'---|' * (header.count('|') - 1)}")
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |", flush=True)


# (a) overhead ---------------------------------------------------------------------------------------------------------


LOOPS = {
    "lenet-64": (lenet, (64, 1, 28, 28), 128, "LeNet, batch 64"),
    "lenet-256": (lenet, (256, 1, 28, 28), 64, "LeNet, batch 256"),
    "resnet18-32": (resnet18, (32, 3, 32, 32), 16, "ResNet18, batch 32"),
    "tiny": (tiny, (8, 1, 28, 28), 2, "one layer, batch 8"),
}
"""Network, minibatch, steps of a round (one to four shards), and what it is called."""

CASES = {"all": ["lenet-64", "lenet-256", "resnet18-32"], "one": ["lenet-64"]}
"""Loops with as many of PyTorch's threads as there are cores, and with one of them, so that a core is to spare."""


def overhead(names: list[str], rounds: int) -> None:
    """Print the lines of one process's loops, without the head of the table."""
    ways = {"nothing": Training, "causalprune": Recorded, "authors": Saved}
    cores = len(os.sched_getaffinity(0))
    if torch.get_num_threads() >= cores:
        # Where training waits for compression: what it would be if it didn't.
        ways["causalprune, one thread beside"] = RecordedBeside
    for name in names:
        network, shape, steps, _ = LOOPS[name]
        with tempfile.TemporaryDirectory() as directory:
            loops = {}
            for way, kind in ways.items():
                (Path(directory) / way).mkdir()
                loops[way] = kind(network, shape, steps * (rounds + 1), Path(directory) / way)
            found = Rounds(loops, steps, rounds)
            for loop in loops.values():
                loop.close()
        size = loops["nothing"].index.total
        title = f"{name} ({size / 1e6:.2f} M), {torch.get_num_threads()} of {cores} cores"
        for way in ways:
            extra = statistics.median(a - b for a, b in zip(found.cpu[way], found.cpu["nothing"], strict=True))
            behind = statistics.median(found.behind[way]) / statistics.median(found.wall["nothing"])
            cells = (
                title,
                way,
                f"{1000 * statistics.median(found.wall[way]):.1f}",
                found.overhead(way),
                f"{100 * behind:.1f} %",
                f"{1000 * extra:.1f}",
                f"{extra / (4 * size / 1e9):.2f}",
            )
            print("| " + " | ".join(cells) + " |", flush=True)
        own, authors, nothing = (
            1000 * statistics.median(found.wall[way]) for way in ("causalprune", "authors", "nothing")
        )
        spare = ", a core to spare" if torch.get_num_threads() < cores else ""
        put(
            f"step of {LOOPS[name][3]}{spare}, recorded",
            f"{own:.1f} ms, {found.overhead('causalprune')}",
            f"{authors:.1f} ms, authors",
            f"{nothing:.1f} ms, nothing recorded",
            authors / own,
        )


def overheads(loops: dict[str, list[str]], rounds: int) -> None:
    """The table of all cases, each in a process of its own, which begins with its threads and its way of freeing."""
    print(
        f"\nRecording, against the same loop that computes both losses; until all is stored; median of {rounds} rounds "
        "(range).\n\n| loop, threads of PyTorch | recorded by | ms/step | overhead | of it, waiting at end | "
        f"extra CPU ms/step | extra CPU s per raw GB |\n|{'---|' * 7}",
        flush=True,
    )
    for case, names in loops.items():
        threads = len(os.sched_getaffinity(0)) if case == "all" else 1
        command = [sys.executable, __file__, "--rounds", f"{rounds}", "--child", "overhead", ",".join(names)]
        subprocess.run(command, check=True, env={**os.environ, **KEEP_MEMORY, "OMP_NUM_THREADS": f"{threads}"})


# (b) bytes and what they cost in γ ------------------------------------------------------------------------------------


def real_recording(directory: Path, model: str, options: argparse.Namespace) -> Path:
    """A recording of plain SGD on real data, as float32."""
    run = directory / model
    hidden = {"hidden": "100"} if model == "mlp" else {}
    pretrain(
        PretrainConfig(
            run=run, model=model, dataset=options.dataset, data_root=options.data_root, epochs=1, lr=0.01, **hidden
        )
    )
    record(RecordConfig(run=run, steps=options.rows, data_root=options.data_root, codec="exact"))
    return run / "trajectory.zarr"


def without_rows(path: Path, target: Path, dropped: set[int]) -> None:
    """The same recording without some of its rows."""
    source = Store.open(path)
    reader = source.recording()
    store = Store.create(target, index=source.index, model=source.model, start_sha256=source.start_sha256)
    with store.create_recording(reader.info, reader.active, max_rows=reader.num_rows, codec="exact") as writer:
        for first, block in reader.row_blocks():
            for row, delta in enumerate(block, first):
                if row not in dropped:
                    names = ("loss_before", "loss_after", "lr", "epoch", "batch", "grad_norm")
                    writer.append(delta, **{name: reader.steps[name][row].item() for name in names})
        writer.finish()


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.stats import rankdata

    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def fits(path: Path, ratios: tuple[float, ...], normalize: str) -> list[tuple[set[int], np.ndarray]]:
    found = []
    for ratio in ratios:
        name = f"{normalize}-{ratio:g}"
        fit_gamma(FitGammaConfig(store=path, name=name, alpha_ratio=ratio, normalize=normalize))
        arrays = Store.open(path).recording().read_fit(name).arrays
        found.append((set(np.flatnonzero(arrays["gamma"]).tolist()), np.abs(arrays["dual_correlation"])))
    return found


def sizes(options: argparse.Namespace, directory: Path) -> None:
    rows: list[tuple[object, ...]] = []
    ratios = (0.3, 0.1)
    for model in options.models.split(","):
        exact = real_recording(directory, model, options)
        reader = Store.open(exact).recording()
        with tempfile.TemporaryDirectory() as saved:
            torch.save(torch.from_numpy(reader.read_rows(0, 1)[0]) ** 2, f"{saved}/0.pt")
            authors = reader.num_rows * Path(f"{saved}/0.pt").stat().st_size
        truth = {normalize: fits(exact, ratios, normalize) for normalize in NORMALIZATIONS}
        title = f"{model} {options.dataset}, {reader.num_rows} × {reader.num_columns:,}"
        rows.append((title, "authors' files", "1.000", *["–"] * 2 * len(truth)))
        sizes_of = [" / ".join(str(len(support)) for support, _ in found) for found in truth.values()]
        cells = [cell for numbers in sizes_of for cell in (f"of {numbers}", "0")]
        rows.append((title, "exact", f"{reader.stored_bytes / authors:.3f}", *cells))
        variants: list[tuple[str, Path]] = []
        for codec in ("balanced", "small"):
            path = directory / f"{model}-{codec}.zarr"
            shutil.copytree(exact, path, ignore=shutil.ignore_patterns("fits"))
            recode(Store.open(path), "000", codec)
            variants.append((codec, path))
        rng = np.random.default_rng(0)
        for number in range(options.drops):
            dropped = set(rng.choice(reader.num_rows, max(1, reader.num_rows // 100), replace=False).tolist())
            path = directory / f"{model}-dropped-{number}.zarr"
            without_rows(exact, path, dropped)
            variants.append((f"exact, {len(dropped)} random rows left out", path))
        for name, path in variants:
            stored = Store.open(path).recording().stored_bytes
            cells = []
            for normalize, found in truth.items():
                overlaps, ranks = [], []
                for (support, dual), (own, own_dual) in zip(found, fits(path, ratios, normalize), strict=True):
                    overlaps.append(len(support & own) / len(support | own))
                    ranks.append(1 - spearman(dual, own_dual))
                cells += [" / ".join(f"{overlap:.3f}" for overlap in overlaps), f"{max(ranks):.0e}"]
            rows.append((title, name, f"{stored / authors:.3f}", *cells))
            if name == "balanced":
                work = f"bytes of a recording of {NAMES.get(model, model)} on {options.dataset}, `balanced`"
                put(work, f"{stored / authors:.3f}", "1.000, authors' files", ratio=authors / stored)
            shutil.rmtree(path)
    table(
        "Bytes, and what they cost in γ: Jaccard of the Lasso's support with float32's, at α = "
        f"{' / '.join(map(str, ratios))} of alpha_max, and the largest 1 − Spearman of the dual correlations.",
        "| recording | stored as | bytes / authors' | support | ranking | support, unit norms | ranking, unit norms |",
        rows,
    )


# (c) reading ----------------------------------------------------------------------------------------------------------


def forget(*paths: Path) -> None:
    """Drop files from the page cache."""
    for path in paths:
        for file in [path] if path.is_file() else path.rglob("*"):
            if file.is_file():
                descriptor = os.open(file, os.O_RDONLY)
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(descriptor)


def best(
    action: Callable[[], object], size: int, repeats: int, prepare: Callable[[], None] | None = None
) -> tuple[float, float]:
    """The least seconds and CPU seconds, of all threads, a byte."""
    times = []
    for _ in range(repeats):
        if prepare is not None:
            prepare()
        times.append(measured(action))
    return min(wall for wall, _ in times) / size, min(cpu for _, cpu in times) / size


def drain(blocks: Iterator[object]) -> None:
    for _ in blocks:
        pass


def pread_columns(path: Path, rows: int, columns: int, width: int) -> Iterator[np.ndarray]:
    """Blocks of columns of one raw row-major file: a ``pread`` a row, into one buffer."""
    descriptor = os.open(path, os.O_RDONLY)
    out = np.empty((rows, width), np.float32)
    for start in range(0, columns, width):
        stop = min(start + width, columns)
        for row in range(rows):
            os.preadv(descriptor, [out[row, : stop - start].data], 4 * (row * columns + start))
        yield out
    os.close(descriptor)


def memmap_columns(path: Path, rows: int, columns: int, width: int) -> Iterator[np.ndarray]:
    raw = np.memmap(path, np.float32, "r", shape=(rows, columns))
    for start in range(0, columns, width):
        yield np.array(raw[:, start : start + width])


def authors_columns(directory: Path, rows: int, width: int) -> Iterator[np.ndarray]:
    """One block: every step's file is loaded, and a slice of it kept."""
    yield np.stack([torch.load(directory / f"{row}.pt")[:width].numpy() for row in range(rows)])


def reading(options: argparse.Namespace, directory: Path) -> None:
    exact = options.store or real_recording(directory, "lenet", options)
    directory.mkdir(exist_ok=True)
    balanced = directory / "balanced.zarr"
    shutil.copytree(exact, balanced)
    recode(Store.open(balanced), "000", "balanced")
    raw, saved = directory / "raw.bin", directory / "saved"
    saved.mkdir()
    readers: dict[str, RecordingReader] = {
        "balanced": Store.open(balanced).recording(),
        "exact": Store.open(exact).recording(),
    }
    reader = readers["balanced"]
    rows, columns = reader.num_rows, reader.num_columns
    with raw.open("wb") as file:
        for first, block in reader.row_blocks():
            file.write(block.data)
            for row, delta in enumerate(block, first):
                torch.save(torch.from_numpy(delta) ** 2, saved / f"{row}.pt")
    total = 4 * rows * columns
    own = "balanced, 2 threads"
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for width in (65536, 8192):
        costs = {"pread of one raw file": best(lambda w=width: drain(pread_columns(raw, rows, columns, w)), total, 3)}
        for name, source in readers.items():
            for threads in (0, 2):
                action = lambda r=source, w=width, n=threads: drain(r.column_blocks(w, prefetch=n))  # noqa: E731
                costs[f"{name}, {threads or 1} thread{'s' if threads else ''}"] = best(action, total, 3)
        action = lambda w=width: drain(authors_columns(saved, rows, w))  # noqa: E731
        costs["authors' files"] = best(action, 4 * rows * width, 2)
        found[f"{width // 1024}k columns, warm"] = costs
    by_memmap = lambda: drain(memmap_columns(raw, rows, columns, 65536))  # noqa: E731
    found["64k columns, cold"] = {
        "np.memmap of one raw file": best(by_memmap, total, 2, lambda: forget(raw)),
        own: best(lambda: drain(reader.column_blocks(65536)), total, 2, lambda: forget(balanced)),
    }
    lines: list[tuple[object, ...]] = []
    for title, costs in found.items():
        for name, (wall, cpu) in costs.items():
            times = [f"{theirs / ours:.2f}" for theirs, ours in zip((wall, cpu), costs[own], strict=True)]
            lines.append((title, name, f"{1e-6 / wall:.0f}", f"{cpu * 1e9:.2f}", *times))
        speeds = {name: 1e-6 / wall for name, (wall, _) in costs.items()}
        cold = title.endswith("cold")
        peer, bound = ("np.memmap of one raw file", "") if cold else ("authors' files", "pread of one raw file")
        limit = f"{speeds[bound]:.0f} MB/s, {bound}" if bound else "–"
        ratio = speeds[own] / speeds[peer]
        put(f"reading {title}", f"{speeds[own]:.0f} MB/s", f"{speeds[peer]:.0f} MB/s, {peer}", limit, ratio)
    table(
        f"Reading {rows} × {columns:,}; MB/s of float32, CPU seconds of all threads; the last columns are what the "
        "line takes, in time and in CPU time, divided by what balanced takes with 2 threads.",
        "| what | from | MB/s | CPU s/GB | times | CPU, times |",
        lines,
    )
    shards = sum(1 for path in balanced.rglob("c.*.0") if path.parent.name == "delta")
    files = sum(1 for path in balanced.rglob("*") if path.is_file())
    print(f"\nFiles: {files} for {shards} flushes; the authors' way: {rows}.")


# (d) memory -----------------------------------------------------------------------------------------------------------


def memory(directory: Path, columns: int) -> None:
    """In processes of their own, whose peak resident memory the kernel reports."""
    peaks: dict[str, str] = {}
    rows: list[tuple[object, ...]] = []
    path = directory / "large.zarr"
    for task in ("idle", "write", "read", "compact"):
        command = [sys.executable, __file__, "--columns", f"{columns}", "--child", task, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peak, seconds = done.stdout.split()
        peaks[task] = f"{int(peak) / 1000:.0f} MB"
        rows.append((task, f"{int(peak) / 1000:.0f}", f"{float(seconds):.1f}"))
    stored = Store.open(path).recording().stored_bytes
    size = f"{columns / 1e6:g} M columns × 64 rows"
    table(
        f"{size} ({256 * columns / 1e9:.1f} GB; stored as {stored / 1e9:.2f} GB); peak resident memory of the process.",
        "| task | MB | seconds |",
        rows,
    )
    for task in ("write", "read"):
        put(f"memory to {task} {size}", peaks[task], limit=f"{peaks['idle']}, idle")


def child(task: str, path: Path, columns: int) -> None:
    import resource

    height = 64
    started = time.perf_counter()
    if task == "write":
        entry = {"name": "w", "shape": [columns], "filter_axis": 0}
        store = Store.create(path, index=ParameterIndex.from_json([entry]), model={}, start_sha256="")
        info = RecordingInfo(lr=0.1, batch_size=1, seed=0)
        rng = np.random.default_rng(0)
        with store.create_recording(info, np.ones(columns, bool), max_rows=height) as writer:
            for row in range(height):
                rng.standard_normal(columns, np.float32, writer.row())
                writer.append(writer.row(), loss_before=1.0, loss_after=0.5, lr=0.1, epoch=0, batch=row, grad_norm=1.0)
            writer.finish()
    elif task == "read":
        drain(Store.open(path).recording().column_blocks())
        drain(Store.open(path).recording().row_blocks(prefetch=1))
    elif task == "compact":
        recode(Store.open(path), "000", "small")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // 1000, time.perf_counter() - started)


# (e) the zarr library -------------------------------------------------------------------------------------------------

ZARR_ROWS = 256
"""Four shards of 64 rows."""


class ZarrWay:
    """The rows by the zarr library, in an array like our own: the same shards, chunks and codecs.

    Rows are collected for a shard, because zarr would read and write a shard anew for each of them. It rounds nothing:
    it is given rounded rows. It doesn't sync what it wrote.
    """

    def __init__(self, like: Path, path: Path) -> None:
        self._like, self._path = like, path

    def write(self, rows: np.ndarray, _: np.ndarray) -> None:
        import zarr

        model = zarr.open_array(self._like / "recordings/000/delta", mode="r")
        array = zarr.from_array(self._path, data=model, write_data=False)
        block = np.empty((64, rows.shape[1]), np.float32)
        for row in range(ZARR_ROWS):
            block[row % 64] = rows[row % len(rows)]
            if row % 64 == 63:
                array[row - 63 : row + 1] = block

    def read_columns(self) -> Iterator[np.ndarray]:
        import zarr

        array = zarr.open_array(self._path, mode="r")
        width = array.chunks[1]
        return (array[:, first : first + width] for first in range(0, array.shape[1], width))

    def read_rows(self) -> Iterator[np.ndarray]:
        import zarr

        array = zarr.open_array(self._path, mode="r")
        return (array[first : first + 64] for first in range(0, array.shape[0], 64))


class OurWay:
    """The rows by our own writer and reader."""

    def __init__(self, path: Path, codec: str) -> None:
        self._path, self._codec = path, codec

    def write(self, _: np.ndarray, rows: np.ndarray) -> None:
        height, width = ZARR_ROWS, rows.shape[1]
        index = ParameterIndex.from_json([{"name": "w", "shape": [width], "filter_axis": 0}])
        store = Store.create(self._path, index=index, model={}, start_sha256="")
        info = RecordingInfo(lr=0.1, batch_size=1, seed=0)
        active = np.ones(width, bool)
        with store.create_recording(info, active, max_rows=height, codec=self._codec, block_rows=64) as writer:
            for row in range(height):
                scalars = {"loss_before": 1.0, "loss_after": 0.5, "lr": 0.1, "epoch": 0, "batch": row, "grad_norm": 1.0}
                writer.append(rows[row % len(rows)], **scalars)
            writer.finish()

    def read_columns(self) -> Iterator[object]:
        return Store.open(self._path).recording().column_blocks()

    def read_rows(self) -> Iterator[object]:
        return Store.open(self._path).recording().row_blocks(prefetch=1)


def measured(action: Callable[[], object]) -> tuple[float, float]:
    """Seconds and CPU seconds."""
    started, started_cpu = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - started, time.process_time() - started_cpu


def import_seconds(module: str) -> float:
    """CPU seconds of a Python that imports NumPy and a module."""
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    subprocess.run([sys.executable, "-c", f"import numpy, {module}"], check=True)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def against_zarr(options: argparse.Namespace, directory: Path) -> None:
    import zarr

    from causalprune.trajectory.codec import find_codec

    zarr.config.set({"threading.max_workers": os.cpu_count()})
    directory.mkdir(exist_ok=True)
    lines: list[tuple[object, ...]] = []
    width = options.columns or 250_000
    rows = np.random.default_rng(0).standard_normal((64, width), np.float32) * np.float32(1e-4)
    for codec in ("exact", "balanced"):
        rounded = np.empty_like(rows)
        find_codec(codec).round(rows, rounded)
        found: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for number in range(options.repeats + 1):
            paths = {who: directory / f"{codec}-{number}-{who}" for who in ("model", "causalprune", "zarr")}
            # It also warms both up; the first repetition isn't counted.
            OurWay(paths["model"], codec).write(rounded, rows)
            ways = {
                "causalprune": OurWay(paths["causalprune"], codec),
                "zarr": ZarrWay(paths["model"], paths["zarr"]),
            }
            for what in ("write", "read_columns", "read_rows"):
                for who in sorted(ways, reverse=bool(number % 2)):
                    act = getattr(ways[who], what)
                    times = measured(partial(act, rounded, rows) if what == "write" else lambda act=act: drain(act()))
                    if number:
                        found.setdefault((what, who), []).append(times)
            ours = zarr.open_array(paths["causalprune"] / "recordings/000/delta", mode="r")
            theirs = zarr.open_array(paths["zarr"], mode="r")
            assert ours.metadata.codecs == theirs.metadata.codecs
            assert np.array_equal(ours[100:140], theirs[100:140])
            for path in paths.values():
                shutil.rmtree(path)
        megabytes = 4 * ZARR_ROWS * width / 1e6
        for what, title in (
            ("write", "write, row by row"),
            ("read_columns", "read all rows of a chunk's columns"),
            ("read_rows", "read a shard's rows"),
        ):
            for who in ("causalprune", "zarr"):
                own, others = found[what, who], found[what, "causalprune"]
                wall, cpu = (statistics.median(column) for column in zip(*own, strict=True))
                ratios = sorted(mine[1] / theirs[1] for mine, theirs in zip(own, others, strict=True))
                cells = (f"{wall:.2f}", f"{cpu:.2f}", f"{megabytes / wall:.0f}")
                ratio = f"{statistics.median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})"
                lines.append((codec, title, who, *cells, ratio if who == "zarr" else ""))
            if codec == "balanced":
                ours, zarrs = (statistics.median(cpu for _, cpu in found[what, who]) for who in ("causalprune", "zarr"))
                work = f"{title}, {ZARR_ROWS} × {width:,}"
                put(work, f"{ours:.2f} CPU s", f"{zarrs:.2f} CPU s, zarr", ratio=zarrs / ours)
    table(
        f"{ZARR_ROWS} rows × {width:,} columns of float32, normally distributed; shards of 64 rows, chunks of 64 × "
        f"8,192, Blosc, CRC32C; zarr {zarr.__version__}; warm; medians of {options.repeats} (range).",
        "| codec | what | by | s | CPU s | MB/s | CPU s, zarr / causalprune |",
        lines,
    )
    alone = import_seconds("sys")
    modules = ("causalprune.trajectory.store", "zarr")
    costs = [f"{module} {import_seconds(module) - alone:.2f} CPU s" for module in modules]
    print(f"\nImporting, on top of NumPy: {', '.join(costs)}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="overhead, bytes, reading, memory, zarr; all when left out")
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data-root", default="")
    parser.add_argument("--loops", choices=LOOPS, nargs="+", help="of the overhead")
    parser.add_argument("--rounds", type=int, default=5, help="of the overhead")
    parser.add_argument("--smoke", action="store_true", help="the smallest form of the overhead, for a test")
    parser.add_argument("--models", default="lenet,mlp", help="of the recordings for bytes")
    parser.add_argument("--rows", type=int, default=512, help="rows of the real recordings")
    parser.add_argument("--drops", type=int, default=2, help="recordings with 1 %% of the rows left out")
    parser.add_argument("--store", type=Path, help="a float32 recording to read, instead of a new one")
    parser.add_argument("--repeats", type=int, default=3, help="of the comparison with zarr; 1 takes 20 s")
    parser.add_argument("--columns", type=int, help="of the synthetic recordings [25 M for memory, 250,000 for zarr]")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child and options.child[0] == "overhead":
        overhead(options.child[1].split(","), options.rounds)
        return
    if options.child:
        child(options.child[0], Path(options.child[1]), options.columns or 25_000_000)
        return
    parts = options.parts or ["overhead", "bytes", "reading", "memory", "zarr"]
    loops = {case: [n for n in names if not options.loops or n in options.loops] for case, names in CASES.items()}
    if options.smoke:
        parts, loops, options.rounds = ["overhead"], {"one": ["tiny"]}, 1
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {len(os.sched_getaffinity(0))} cores")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        if "overhead" in parts:
            overheads({case: names for case, names in loops.items() if names}, options.rounds)
        if "bytes" in parts:
            sizes(options, directory / "bytes")
        if "reading" in parts:
            reading(options, directory / "reading")
        if "memory" in parts:
            memory(directory, options.columns or 25_000_000)
        if "zarr" in parts:
            against_zarr(options, directory / "zarr")


if __name__ == "__main__":
    main()
