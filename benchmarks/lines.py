"""How a benchmark hands its lines of the first table of docs/performance.md to table.py, which prints them."""

from __future__ import annotations

import json
import os
from pathlib import Path

FILE = "BENCHMARK_LINES"
"""The environment variable that names the file which takes the lines."""


def put(work: str, ours: str, peer: str = "–", limit: str = "–", ratio: float | None = None) -> None:
    """Append a line, if somebody collects them.

    Args:
        work: What is done.
        ours: What it takes here, with its unit.
        peer: What it takes the best peer, and its name.
        limit: What bounds any way to do it, or what was aimed at, in italics.
        ratio: What the best peer takes, divided by what it takes here.
    """
    if os.environ.get(FILE):
        line = {"work": work, "ours": ours, "peer": peer, "limit": limit}
        with Path(os.environ[FILE]).open("a") as file:
            file.write(json.dumps(line | {"ratio": "–" if ratio is None else f"{ratio:.2f}"}) + "\n")
