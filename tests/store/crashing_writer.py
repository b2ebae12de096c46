"""Records rows in a process of its own, to be killed: ``crashing_writer.py STORE ROWS COLUMNS BLOCK_ROWS``.

Like a stage, it keeps a checkpoint (the number of rows) that it writes after each flush, and continues from there.
"""

import sys
from pathlib import Path

import numpy as np
from store_builders import INFO, append_rows, make_rows, make_store

from causalprune.files import read_json, write_json
from causalprune.store import TrajectoryStore


def main(path, rows, columns, block_rows):
    checkpoint = path.with_name("checkpoint.json")
    store = TrajectoryStore.open(path) if path.exists() else make_store(path, columns)
    if store.recordings:
        start = read_json(checkpoint)["rows"] if checkpoint.exists() else 0
        writer = store.resume_recording("000", rows=start)
    else:
        writer = store.create_recording(INFO, np.ones(columns, bool), max_rows=rows, block_rows=block_rows)
    values = make_rows(rows, columns)
    print("started", flush=True)
    with writer:
        for row in range(writer.rows_appended, rows):
            append_rows(writer, values, row, row + 1)
            if row % 7 == 6:
                write_json(checkpoint, {"rows": writer.flush()})
        writer.finish()


main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
