"""Where the time of recording and of reading goes: CPU seconds of one thread, stage by stage, per GB of float32.

    python benchmarks/stages.py [--network resnet18] [--codec balanced] [--level 1]
    python benchmarks/stages.py --smoke

Each stage is what the recorder or the reader does with a row or a chunk, by itself, in its order, on the rows of real
SGD steps; minima of the repetitions. What compresses and decompresses is Blosc's; no way through that is faster.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import google_crc32c
import numpy as np
import torch
from lines import put
from recording_loops import lenet, resnet18, tiny
from store import table
from torch import nn

from causalprune.models.parameters import ParameterIndex
from causalprune.trajectory.codec import find_codec
from causalprune.trajectory.schema import BlockShape
from causalprune.trajectory.shard import PIECE_ROWS

NETWORKS = {
    "lenet": (lenet, (64, 1, 28, 28), "a LeNet"),
    "resnet18": (resnet18, (32, 3, 32, 32), "a ResNet18"),
    "tiny": (tiny, (8, 1, 28, 28), "one layer"),
}


def rows_of(network: nn.Module, inputs: torch.Tensor, index: ParameterIndex, out: np.ndarray) -> None:
    """Fill ``out`` (n, P) with Δθ of SGD's steps; the first four are repeated, weighted anew."""
    parameters = dict(network.named_parameters())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    targets = torch.arange(len(inputs)) % 10
    for number, row in enumerate(out):
        if number >= 4:
            np.multiply(out[number % 4], np.float32(1 + number / 128), out=row)
            continue
        before = index.flatten(parameters)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs), targets).backward()
        optimizer.step()
        torch.sub(index.flatten(parameters), before, out=torch.from_numpy(row))


def measure(options: argparse.Namespace, folder: Path) -> None:
    make, shape, title = NETWORKS[options.network]
    torch.manual_seed(0)
    network = make()
    index, codec = ParameterIndex.from_model(network), find_codec(options.codec)
    codec = replace(codec, level=options.level or codec.level)
    block = BlockShape.choose(index.total, 512)
    rows = np.empty((block.rows, index.total), np.float32)
    rows_of(network, torch.randn(shape), index, rows)
    parameters = dict(network.named_parameters())
    before, after = torch.zeros(index.total), torch.empty(index.total)
    row = torch.from_numpy(np.zeros(index.total, np.float32))
    # Whole chunks, as many as make 64 MB.
    size = 4 * block.rows * block.width
    count = max(1, min(index.total // block.width, 2**26 // size))
    width = min(block.width, index.total)
    parts = [rows[:, n * width : (n + 1) * width] for n in range(count)]
    chunks = [np.empty((block.rows, width), np.float32) for _ in parts]

    def pieces(action: Callable[[np.ndarray, np.ndarray], object]) -> None:
        for part, chunk in zip(parts, chunks, strict=True):
            for first in range(0, block.rows, PIECE_ROWS):
                action(part[first : first + PIECE_ROWS], chunk[first : first + PIECE_ROWS])

    pieces(codec.round)
    encoded = [b"".join(codec.encode(chunk)) for chunk in chunks]
    arrays = [np.frombuffer(data, np.uint8) for data in encoded]
    path, target = folder / "shard", np.zeros((block.rows, count * width), np.float32)

    def write() -> None:
        with path.open("wb", buffering=0) as file:
            for data in encoded:
                file.write(data)

    def read() -> None:
        with path.open("rb", buffering=0) as file:
            for data in arrays:
                file.readinto(np.empty_like(data))

    def place() -> None:
        for number, chunk in enumerate(chunks):
            target[:, number * width : (number + 1) * width] = chunk

    out = np.empty_like(chunks[0])
    all_chunks, all_columns = sum(chunk.nbytes for chunk in chunks), 4 * index.total
    stages: dict[str, list[tuple[str, Callable[[], object], int]]] = {
        "record": [
            ("flatten the weights", lambda: index.flatten(parameters, out=after), all_columns),
            ("subtract those before", lambda: torch.sub(after, before, out=row), all_columns),
            ("round", lambda: pieces(codec.round), all_chunks),
            ("look for NaN", lambda: pieces(lambda part, _: np.isfinite(part).all()), all_chunks),
            ("compress", lambda: [codec.encode(chunk) for chunk in chunks], all_chunks),
            ("checksum of the shard", lambda: [google_crc32c.value(data) for data in encoded], all_chunks),
            ("write to the file", write, all_chunks),
        ],
        "read": [
            ("read from the file, cached", read, all_chunks),
            ("checksum, decompress", lambda: [codec.decode(data, out, "") for data in arrays], all_chunks),
            ("look for NaN, the first time", lambda: [np.isfinite(chunk).all() for chunk in chunks], all_chunks),
            ("put into place", place, all_chunks),
        ],
    }
    lines: list[tuple[object, ...]] = []
    for what, own in stages.items():
        times = []
        for name, action, bytes_of in own:
            taken = []
            for _ in range(options.repeats):
                started = time.thread_time()
                action()
                taken.append((time.thread_time() - started) / bytes_of * 1e9)
            times.append(min(taken))
            lines.append((what, name, f"{times[-1]:.2f}"))
        lines.append((what, "all", f"{sum(times):.2f}"))
        verb = "compressing" if what == "record" else "decompressing"
        bound = times[[name for name, *_ in own].index("compress" if what == "record" else "checksum, decompress")]
        work = f"to {what} rows of {title}, all stages, one thread"
        put(work, f"{sum(times):.2f} CPU s/GB", limit=f"{bound:.2f} CPU s/GB, {verb} alone")
    share = sum(map(len, encoded)) / all_chunks
    how = f"{options.codec} by {codec.compressor} {codec.level}"
    table(
        f"{title}, chunks of {block.rows} × {width:,}, {how}: {share:.3f} of the bytes.",
        "| what | stage | CPU s/GB |",
        lines,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="resnet18")
    parser.add_argument("--codec", default="balanced")
    parser.add_argument("--level", type=int, help="of the compressor [the codec's]")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--smoke", action="store_true", help="the smallest form, for a test")
    options = parser.parse_args()
    if options.smoke:
        options.network, options.repeats = "tiny", 1
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        measure(options, Path(folder))


if __name__ == "__main__":
    main()
