"""Records rows in processes to be killed: ``crashing_writer.py ROWS COLUMNS BLOCK_ROWS SYNC``, a path a line on stdin.

Each path is recorded by a fork of this process, which spares the imports. Answers, a line each: the fork's number,
``started`` when it begins to record and, asked by an empty line, its exit status. Like a stage, the fork keeps a
checkpoint (the number of rows) that it writes after each flush, and continues from there. SYNC 0 doesn't wait for the
disk: a killed process loses nothing that the kernel has.
"""

import os
import sys
from pathlib import Path

import numpy as np
from store_builders import INFO, append_rows, make_rows, make_store

import causalprune.trajectory.writer  # noqa: F401 -- before the fork, not in each
from causalprune.base.files import Disk
from causalprune.base.json_files import read_json, write_json
from causalprune.trajectory import Store


def record(path, values, block_rows):
    rows, columns = values.shape
    checkpoint = path.with_name("checkpoint.json")
    store = Store.open(path) if path.exists() else make_store(path, columns)
    if store.recordings:
        start = read_json(checkpoint)["rows"] if checkpoint.exists() else 0
        writer = store.resume_recording("000", rows=start)
    else:
        writer = store.create_recording(INFO, np.ones(columns, bool), max_rows=rows, block_rows=block_rows)
    print("started", flush=True)
    with writer:
        for row in range(writer.rows_appended, rows):
            append_rows(writer, values, row, row + 1)
            if row % 7 == 6:
                write_json(checkpoint, {"rows": writer.flush()})
        writer.finish()


def main(rows, columns, block_rows, sync):
    if not sync:
        Disk.fsync = staticmethod(lambda descriptor: None)
    values = make_rows(rows, columns)
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            status = 1
            try:
                record(Path(line.rstrip("\n")), values, block_rows)
                status = 0
            finally:
                os._exit(status)
        print(process, flush=True)
        # Until it is waited for, its number is its own: who kills it asks for the status afterwards.
        sys.stdin.readline()
        _, status = os.waitpid(process, 0)
        print(status, flush=True)


main(*map(int, sys.argv[1:]))
