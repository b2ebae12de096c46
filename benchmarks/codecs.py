"""Codecs of the trajectory store: what mantissa bits do to γ, and what compressors cost and save.

    python benchmarks/codecs.py [--dataset mnist --data-root DIR] [--model lenet] [--rows 256]
    python benchmarks/codecs.py --smoke

The deltas are those of a real recording. Rounding alone decides what happens to γ: the Jaccard index of the Lasso's
support with that of float32, at two α, and the largest 1 − Spearman correlation of the KKT scores. Compression loses
nothing, and is measured in CPU seconds of one thread, median of the repetitions. ``in use`` names our own codecs. The
width of chunks changes no value, either.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from store import fits, real_recording, spearman, table

from causalprune.trajectory import RecordingReader, Store
from causalprune.trajectory.codec import BALANCED, EXACT, SMALL, Codec
from causalprune.trajectory.lifecycle import begin_recording
from causalprune.trajectory.maintenance import append_recording
from causalprune.trajectory.writer import RecordingWriter

BITS = (23, 12, 10, 8, 7, 5)
COMPRESSORS = (("lz4", 1), ("lz4", 5), ("lz4", 9), ("zstd", 1), ("zstd", 3))
SHUFFLES = ("bitshuffle", "shuffle")
RATIOS = (0.3, 0.1)
WIDTHS = (4096, 8192, 16384, 32768)


def rounded(path: Path, bits: int, target: Path) -> None:
    """The same recording with fewer mantissa bits."""
    source = Store.open(path)
    reader = source.recording()
    store = Store.create(target, index=source.index, model=source.model, start_sha256=source.start_sha256)
    codec = replace(EXACT, mantissa_bits=bits)
    with store.create_recording(reader.info, reader.active, max_rows=reader.num_rows, codec="exact") as writer:
        for first, block in reader.row_blocks():
            for row, delta in enumerate(block, first):
                codec.round(delta, writer.row())
                writer.append(writer.row(), **reader.steps.row(row))
        writer.finish()


def effect_of_rounding(path: Path, bits: tuple[int, ...], directory: Path) -> None:
    rows = []
    truth = {normalize: fits(path, RATIOS, normalize) for normalize in ("none", "column")}
    for kept in bits:
        target = directory / f"{kept}.zarr"
        rounded(path, kept, target)
        cells: list[object] = [kept]
        for normalize, found in truth.items():
            own = fits(target, RATIOS, normalize)
            overlaps = [len(a & b) / max(1, len(a | b)) for (a, _), (b, _) in zip(found, own, strict=True)]
            ranks = [1 - spearman(a, b) for (_, a), (_, b) in zip(found, own, strict=True)]
            cells += [" / ".join(f"{overlap:.3f}" for overlap in overlaps), f"{max(0.0, *ranks):.0e}"]
        rows.append(tuple(cells))
    table(
        f"Mantissa bits and γ: support (Jaccard) at α = {' / '.join(map(str, RATIOS))} of alpha_max, and ranking.",
        "| bits kept | support | ranking | support, unit norms | ranking, unit norms |",
        rows,
    )


def cpu_seconds(action: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        started = time.thread_time()
        action()
        times.append(time.thread_time() - started)
    return statistics.median(times)


def cost_of_compression(reader: RecordingReader, bits: tuple[int, ...], repeats: int, authors: float) -> None:
    shape, rows = reader.schema.shape, []
    block = reader.read_rows(0, min(reader.num_rows, shape.rows))
    width = min(shape.width, block.shape[1])
    chunks = [np.ascontiguousarray(block[:, i : i + width]) for i in range(0, block.shape[1] - width + 1, width)]
    size = sum(chunk.nbytes for chunk in chunks)
    names = {(c.mantissa_bits, c.compressor, c.level, c.shuffle): c for c in (EXACT, BALANCED, SMALL)}
    for kept, (compressor, level), shuffle in itertools.product(bits, COMPRESSORS, SHUFFLES):
        known = names.get((kept, compressor, level, shuffle))
        codec = known or Codec("", kept, compressor, level, shuffle, 2**20 if compressor == "zstd" else 0)
        values = [np.empty_like(chunk) for chunk in chunks]
        for chunk, out in zip(chunks, values, strict=True):
            codec.round(chunk, out)
        encoded = [np.frombuffer(b"".join(codec.encode(chunk)), np.uint8) for chunk in values]
        out = np.empty_like(chunks[0])
        encode = cpu_seconds(lambda: [codec.encode(chunk) for chunk in values], repeats)  # noqa: B023
        decode = cpu_seconds(lambda: [codec.decode(data, out, "") for data in encoded], repeats)  # noqa: B023
        share = sum(map(len, encoded)) / size
        rows.append(
            (
                kept,
                f"{compressor} {level}",
                shuffle,
                f"{share:.3f}",
                f"{share * 4 * block.shape[1] / authors:.3f}",
                f"{encode / size * 1e9:.2f}",
                f"{decode / size * 1e9:.2f}",
                known.name if known else "",
            )
        )
    table(
        f"Compression of {len(chunks)} chunks of {shape.rows} × {width}.",
        "| bits kept | compressor | first | bytes / raw | bytes / authors' | encode, CPU s/GB | decode, CPU s/GB "
        "| in use |",
        rows,
    )


def divided(path: Path, width: int, target: Path) -> RecordingReader:
    """The same recording as ``balanced``, in chunks of another width."""
    source = Store.open(path)
    reader = source.recording()
    Store.create(target, index=source.index, model=source.model, start_sha256=source.start_sha256)
    shape = replace(reader.schema.shape, width=min(width, reader.num_columns))
    layout = Store.open(target).layout.recording("000")
    begin_recording(layout, replace(reader.schema, codec=BALANCED, shape=shape), reader.active)
    made = RecordingReader(layout, "000", source.index)
    with RecordingWriter(made, made.read_log()) as writer:
        append_recording(reader, writer)
        writer.finish()
    return Store.open(target).recording()


def cost_of_width(path: Path, widths: tuple[int, ...], repeats: int, directory: Path) -> None:
    readers = {width: divided(path, width, directory / f"width-{width}.zarr") for width in widths}
    blocks = (("a chunk's", None), ("64k", 65536), ("8k", 8192))
    found: dict[tuple[int, str], list[float]] = {}
    for _ in range(repeats):
        for width, reader in readers.items():
            for name, block in blocks:
                started = time.thread_time()
                for _ in reader.column_blocks(block, prefetch=0):
                    pass
                seconds = time.thread_time() - started
                found.setdefault((width, name), []).append(seconds / (4 * reader.num_rows * reader.num_columns) * 1e9)
    rows = [
        (
            f"{reader.block_rows} × {width}",
            f"{reader.stored_bytes / (4 * reader.num_rows * reader.num_columns):.4f}",
            *(f"{statistics.median(found[width, name]):.2f}" for name, _ in blocks),
        )
        for width, reader in readers.items()
    ]
    heads = " | ".join(f"columns by {name}, CPU s/GB" for name, _ in blocks)
    table(
        "Reading balanced, checksums included, by the width of its chunks.", f"| chunk | bytes / raw | {heads} |", rows
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data-root", default="")
    parser.add_argument("--model", default="lenet")
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="the smallest form, for a test")
    options = parser.parse_args()
    bits, widths = BITS, WIDTHS
    if options.smoke:
        options.model, options.rows, options.repeats, bits = "mlp", 16, 1, (23, 10)
        widths = (8192, 16384)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        path = real_recording(directory, options.model, options)
        reader = Store.open(path).recording()
        torch.save(torch.from_numpy(reader.read_rows(0, 1)[0]) ** 2, directory / "0.pt")
        print(f"{options.model} on {options.dataset}, {reader.num_rows} × {reader.num_columns:,}")
        effect_of_rounding(path, bits, directory)
        cost_of_compression(reader, bits, options.repeats, (directory / "0.pt").stat().st_size)
        cost_of_width(path, widths, options.repeats, directory)


if __name__ == "__main__":
    main()
