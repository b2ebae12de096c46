"""The commit log of a recording: the only truth about which rows are recorded.

A line is a checksum in eight hexadecimal digits, a space, and a JSON object. The checksum is the CRC32C of the object's
bytes, continued from the line before (for the first line, from the recording's own checksum), so that no line can be
altered, removed, moved or taken from another recording unnoticed. Text after the last newline is an append that a
crash cut short, and is ignored.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import google_crc32c

from causalprune.base.errors import DataError
from causalprune.trajectory.layout import shard_name
from causalprune.trajectory.steps import STEP_FIELDS, Steps
from causalprune.trajectory.storage.location import Location, damaged
from causalprune.trajectory.zarr_files import canonical_bytes

MAX_LOG_BYTES = 2**32

_STEPS = b'"steps":{'


@dataclass(frozen=True)
class ShardFile:
    """Identifies the bytes of a shard.

    Attributes:
        size: Length in bytes.
        checksum: CRC32C of the whole file.
        index_checksum: CRC32C of the shard's index, its last four bytes.
        chunks_checksum: CRC32C of the table of the chunks' checksums; None for a shard of format version 1, which has
            no table. Without it, everything here depends on the chunks' lengths alone: a CRC that is continued over
            data and then over their own CRC has the same value whatever the data are.
    """

    size: int
    checksum: int
    index_checksum: int
    chunks_checksum: int | None = None

    def is_found(self, found: ShardFile) -> bool:
        """Whether a file, of which everything is known, is this one."""
        return found == (
            self if self.chunks_checksum is not None else replace(self, chunks_checksum=found.chunks_checksum)
        )

    def __str__(self) -> str:
        chunks = "" if self.chunks_checksum is None else f" ({self.chunks_checksum:08x} of its chunks')"
        return f"{self.size} bytes with CRC32C {self.checksum:08x}{chunks}"

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; :meth:`from_json` reads it back."""
        record = {"bytes": self.size, "crc32c": f"{self.checksum:08x}", "index_crc32c": f"{self.index_checksum:08x}"}
        chunks = {} if self.chunks_checksum is None else {"chunks_crc32c": f"{self.chunks_checksum:08x}"}
        return record | chunks

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> ShardFile:
        """Read what :meth:`to_json` wrote, or raise ``ValueError``."""
        size, chunks = record["bytes"], record.get("chunks_crc32c")
        if type(size) is not int or size < 0:
            raise ValueError(f"{size!r} bytes")
        chunks_checksum = None if chunks is None else int(chunks, 16)
        return cls(size, int(record["crc32c"], 16), int(record["index_crc32c"], 16), chunks_checksum)


@dataclass(frozen=True, eq=False)
class Commit:
    """The first ``rows`` rows of a shard, durably stored.

    Attributes:
        shard: Its number.
        rows: How many.
        file: The shard's bytes.
        steps: The scalars of these rows, perhaps unread; :attr:`read_steps` has them.
        untrained: Parameters that no step of the recording has trained up to here.
        weights: Hash of the weights after the last of these rows, by ``ParameterIndex.digest``; empty if unknown.
        noted: What else was noted about the recording up to here, JSON-ready; see :class:`RecordingReader`.
    """

    shard: int
    rows: int
    file: ShardFile
    steps: Steps | UnreadSteps
    untrained: tuple[str, ...] = ()
    weights: str = ""
    noted: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def read_steps(self) -> Steps:
        """The scalars of these rows, read from the line of the log if nobody needed them before.

        Raises:
            CorruptError: The line has others.
        """
        return self.steps if isinstance(self.steps, Steps) else self.steps.read(self.rows)


@dataclass(frozen=True, eq=False)
class UnreadSteps:
    """The scalars of a commit as its line has them: numbers are most of a log, and most readers need none of them.

    Attributes:
        text: JSON.
        source: The line, for the error message.
        declared: The scalars that rows have besides the usual ones.
    """

    text: bytes
    source: str
    declared: Sequence[str]

    def read(self, rows: int) -> Steps:
        """Read the scalars of so many rows.

        Raises:
            CorruptError: Something else.
        """
        try:
            return Steps.from_json(json.loads(self.text), rows, self.declared)
        except (ValueError, RecursionError) as error:
            raise damaged(self.source, expected="a valid commit", found=f"{error}"[:120]) from error


class CommitLog:
    """The commits of a recording, in memory and in its file.

    Attributes:
        commits: The last commit of each shard, in order; all but the last shard are full.
        pending: Rows and bytes announced to replace the last commit's file. The replacement may have happened or not.
            There are several if several writers, one after the other, were about to replace it.
        finished: Whether the recording is complete.
    """

    def __init__(self, location: Location, seed: int, block_rows: int, declared: Sequence[str] = ()) -> None:
        self._file = location.log()
        self.block_rows = block_rows
        self._declared = declared
        self.commits: list[Commit] = []
        self.pending: list[tuple[int, ShardFile]] = []
        self.finished = False
        self._location = location
        self._seed = seed
        self._chain = seed

    @classmethod
    def read(cls, location: Location, seed: int, block_rows: int, declared: Sequence[str] = ()) -> CommitLog:
        """Read the log.

        Args:
            location: The file.
            seed: The recording's checksum, which starts the chain of checksums.
            block_rows: B.
            declared: The scalars that rows have besides the usual ones.

        Raises:
            CorruptError: A line is damaged, missing or contradicts the others.
        """
        log = cls(location, seed, block_rows, declared)
        try:
            data = log._file.read(MAX_LOG_BYTES)
        except DataError as error:
            raise damaged(location, expected="a commit log", found=error.found) from error
        for number, line in enumerate(data.split(b"\n")[:-1], 1):
            try:
                log._take(line, number)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                where = f"{location} line {number}"
                raise damaged(where, expected="a valid commit", found=f"{error}"[:120]) from error
        return log

    def _take(self, line: bytes, number: int) -> None:
        text = line[9:]
        chain = google_crc32c.extend(self._chain, text)
        if line[:9] != b"%08x " % chain:
            raise ValueError(f"checksum {line[:8]!r} instead of {chain:08x}")
        self._chain = chain
        record, steps = _decode(text)
        if record["type"] == "writer":
            return
        if self.finished:
            raise ValueError("a line after the last one")
        if record["type"] == "finish":
            if type(record["rows"]) is not int or record["rows"] != self.rows:
                raise ValueError(f"{record['rows']!r} rows, where {self.rows} were committed")
            self.finished = True
            return
        shard, rows, file = record["shard"], record["rows"], ShardFile.from_json(record)
        if type(shard) is not int or type(rows) is not int or not 1 <= rows <= self.block_rows:
            raise ValueError(f"shard {shard!r} with {rows!r} rows")
        if record["file"] != shard_name(shard):
            raise ValueError(f"file {record['file']!r}")
        if record["type"] not in ("prepare", "commit"):
            raise ValueError(f"type {record['type']!r}")
        prepares = record["type"] == "prepare"
        if not (shard == len(self.commits) - 1 if prepares else self._is_next(shard, rows)):
            raise ValueError(f"shard {shard} out of order")
        if prepares:
            self.pending.append((rows, file))
        else:
            untrained = record.get("untrained", [])
            if not isinstance(untrained, list) or not all(isinstance(name, str) for name in untrained):
                raise ValueError(f"untrained {untrained!r}")
            weights = record.get("weights", "")
            if not isinstance(weights, str):
                raise ValueError(f"weights {weights!r}")
            noted = record.get("noted", {})
            if not isinstance(noted, dict):
                raise ValueError(f"noted {noted!r}")
            unread = UnreadSteps(steps, f"{self._location} line {number}", self._declared)
            self._apply(Commit(shard, rows, file, unread, tuple(untrained), weights, noted))

    def _is_next(self, shard: int, rows: int) -> bool:
        """Whether a commit can follow: of the shard after a full one, or of more rows of the last shard."""
        last = self.commits[-1] if self.commits else None
        if last is not None and shard == last.shard:
            return rows >= last.rows
        return shard == len(self.commits) and (last is None or last.rows == self.block_rows)

    def _apply(self, commit: Commit) -> None:
        del self.commits[commit.shard :]
        self.commits.append(commit)
        self.pending = []

    @property
    def rows(self) -> int:
        """T, the number of recorded rows."""
        return (len(self.commits) - 1) * self.block_rows + self.commits[-1].rows if self.commits else 0

    @property
    def untrained(self) -> tuple[str, ...]:
        """Parameters that none of these rows has trained."""
        return self.commits[-1].untrained if self.commits else ()

    @property
    def noted(self) -> dict[str, Any]:
        """What else was noted about these rows."""
        return self.commits[-1].noted if self.commits else {}

    @property
    def step_names(self) -> tuple[str, ...]:
        """Names of the rows' scalars, in the order of their array."""
        return (*STEP_FIELDS, *self._declared)

    def steps(self) -> Steps:
        """The scalars of all recorded rows."""
        return Steps.concatenate([commit.read_steps for commit in self.commits], self._declared)

    def candidates(self, shard: int) -> list[ShardFile]:
        """What the shard's file can be: the committed bytes, or those announced to replace them."""
        files = [self.commits[shard].file] if shard < len(self.commits) else []
        if shard == len(self.commits) - 1:
            files += [file for _, file in self.pending]
        return files

    def claim(self) -> None:
        """Take the log over from an earlier writer, where a lock alone can't keep writers apart.

        Raises:
            LockedError: Another one was faster.
        """
        if self._file.fenced:
            self._append(_writer_record())

    def append_prepare(self, shard: int, rows: int, file: ShardFile) -> None:
        """Announce, durably, that the file of the last commit's shard is about to be replaced."""
        self._append(_prepare_record(shard, rows, file))
        self.pending.append((rows, file))

    def append_commit(self, commit: Commit) -> None:
        """Record, durably, that a shard's file is in place."""
        self._append(_commit_record(commit))
        self._apply(commit)

    def rewrite(
        self, rows: int, file_of_last: ShardFile | None = None, *, finished: bool = False, weights: str = ""
    ) -> None:
        """Replace the file with one line per shard, in one atomic step.

        Where the log keeps writers apart, an unfinished log also gets a line that is unique to this writer, and what
        was announced for the last shard stays announced: another writer, which can't know yet that it has been
        replaced, may still do it.

        Args:
            rows: Rows to keep, at most as many as there are.
            file_of_last: The bytes of the last kept shard's file, if they differ from its commit.
            finished: Whether to mark the recording as complete.
            weights: Hash of the weights after the last row, if it is known.
        """
        kept = self.commits[: -(-rows // self.block_rows)]
        if kept:
            last = kept[-1]
            rest = rows - last.shard * self.block_rows
            file = file_of_last or last.file
            kept[-1] = replace(last, rows=rest, steps=last.read_steps.head(rest), file=file, weights=weights)
        records = [_commit_record(commit) for commit in kept]
        pending: list[tuple[int, ShardFile]] = []
        if finished:
            records.append({"type": "finish", "rows": rows})
        elif self._file.fenced:
            if kept and len(kept) == len(self.commits):
                before = self.commits[-1]
                announced = [(before.rows, before.file), *self.pending]
                pending = [(rows, file) for rows, file in announced if file != kept[-1].file]
            records += [_prepare_record(kept[-1].shard, rows, file) for rows, file in pending]
            records.append(_writer_record())
        lines, chain = [], self._seed
        for record in records:
            line, chain = _encode(record, chain)
            lines.append(line + "\n")
        self._file.replace("".join(lines).encode())
        self.commits, self.pending, self.finished, self._chain = kept, pending, finished, chain

    def require_mine(self) -> None:
        """Raise LockedError if another writer has changed the log since this one did."""
        self._file.require_mine()

    def _append(self, record: dict[str, Any]) -> None:
        line, chain = _encode(record, self._chain)
        self._file.append(line)
        self._chain = chain


def _decode(text: bytes) -> tuple[dict[str, Any], bytes]:
    """A line's object, and its steps as JSON, which aren't read: they are a flat object, the only one of that name."""
    begin = text.find(_STEPS)
    end = text.find(b"}", begin) + 1
    if begin >= 0 and text.find(_STEPS, end) < 0:
        with suppress(ValueError):
            record = json.loads(text[:begin] + b'"steps":null' + text[end:])
            if record.get("steps", end) is None:
                return record, text[begin + len(_STEPS) - 1 : end]
    record = json.loads(text)
    return record, json.dumps(record.get("steps")).encode()


def _encode(record: dict[str, Any], chain: int) -> tuple[str, int]:
    text = canonical_bytes(record)
    chain = google_crc32c.extend(chain, text)
    return f"{chain:08x} {text.decode()}", chain


def _writer_record() -> dict[str, Any]:
    return {"type": "writer", "token": secrets.token_hex(8)}


def _prepare_record(shard: int, rows: int, file: ShardFile) -> dict[str, Any]:
    return {"type": "prepare", "shard": shard, "rows": rows, "file": shard_name(shard), **file.to_json()}


def _commit_record(commit: Commit) -> dict[str, Any]:
    record = _prepare_record(commit.shard, commit.rows, commit.file)
    known = {"untrained": list(commit.untrained), "weights": commit.weights, "noted": commit.noted}
    return {**record, "type": "commit", "steps": commit.read_steps.to_json(), **{k: v for k, v in known.items() if v}}
