"""File names of a run directory, and addresses in object storage."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from causalprune.base.errors import UsageError, masked
from causalprune.base.registry import nearest

DEFAULT_FIT = "default"
"""Name of a fit unless the user chooses one."""

FIRST_RECORDING = "000"
"""Name of a store's first recording."""


class RunPaths:
    """The files of a run directory, or of one iteration in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pretrained = root / "pretrained.safetensors"
        """Checkpoint of the dense network."""
        self.trained = root / "trained.safetensors"
        """Checkpoint of an iteration's training, from which its recording starts."""
        self.store = root / "trajectory.zarr"
        """Trajectory store."""
        self.recorded = root / "recorded.safetensors"
        """Checkpoint after the recording."""
        self.pruned = root / "pruned.safetensors"
        """Checkpoint with the mask applied."""
        self.repaired = root / "repaired.safetensors"
        """Checkpoint with the kept weights set anew."""
        self.final = root / "final.safetensors"
        """Checkpoint of the trained, pruned network."""
        self.log = root / "log.jsonl"
        """What happened when: one JSON object per line."""
        self.run_config = root / "run.json"
        """Resolved configuration of ``causalprune run``."""
        self.discarded = root / "discarded.json"
        """What is left of the store of an iteration that was discarded."""

    @property
    def dense(self) -> Path:
        """The network before the recording: the pretrained one or, in the folder of an iteration, the trained one."""
        return self.trained if self.trained.exists() and not self.pretrained.exists() else self.pretrained

    def exported(self, suffix: str) -> Path:
        """The exported network."""
        return self.root / f"exported{suffix}"

    def artifacts(self) -> tuple[Path, ...]:
        """What the stages write here, in their order. The store is a directory, everything else a checkpoint."""
        return (self.pretrained, self.trained, self.store, self.recorded, self.pruned, self.repaired, self.final)

    def result(self, stage: str) -> Path:
        """Result of a stage that writes its output to the run directory."""
        return self.root / "results" / f"{stage}.json"

    def iteration(self, number: int) -> RunPaths:
        """The folder of iteration ``number`` (from 0)."""
        return RunPaths(self.root / f"iteration-{number:03d}")

    @property
    def sweep(self) -> SweepPaths:
        """The files of a sweep."""
        return SweepPaths(self.root / "sweep")

    def iterations(self) -> list[RunPaths]:
        """The folders of the iterations that exist, in order."""
        return [RunPaths(p) for p in sorted(self.root.glob("iteration-[0-9][0-9][0-9]")) if p.is_dir()]


class SweepPaths:
    """The files of a sweep. A cell or a step is named by a hash of everything that determines it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.grid = root / "grid.json"
        """The cells, in the order of the table."""
        self.table = root / "results.jsonl"
        """The results as JSON lines; in the order of the grid once the sweep is done."""
        self.processes = root / "processes"
        """The processes that work there."""

    def cell(self, cell: str) -> Path:
        """What was measured in a cell; exists once the cell is done."""
        return self.root / "cells" / f"{cell}.json"

    def measured(self) -> set[str]:
        """The cells that are done; the folder is listed, because a file server may deny a file that is new."""
        return {path.stem for path in (self.root / "cells").glob("[!.]*.json")}

    def mask(self, cell: str) -> Path:
        """Which weights a cell kept."""
        return self.root / "cells" / f"{cell}.mask.safetensors"

    def work(self, cell: str) -> Path:
        """Steps that only this cell needs."""
        return self.root / "cells" / cell

    def shared(self, step: str) -> Path:
        """A step that several cells may need."""
        return self.root / "shared" / step


def progress_path(output: Path) -> Path:
    """Where the stage that writes ``output`` saves its state, to resume from."""
    return output.with_name(output.name + ".progress")


def fallback_path(output: Path) -> Path:
    """Where the previous saved state is kept, in case the last one is damaged."""
    return output.with_name(output.name + ".progress.previous")


_NEAR = 0.65
"""How much alike names are where one is taken for the other's misspelling: more than ``recorded`` and ``repaired``."""

_NETWORK, _MASK = ".safetensors", ".mask"


def logs_path(output: Path) -> Path:
    """Folder of the log of the stage that writes a network: ``logs/final`` beside ``final.safetensors``."""
    return output.parent / "logs" / output.name.removesuffix(_NETWORK)


def mask_path(network: Path) -> Path:
    """Where the mask of a network's file lies: ``final.mask.safetensors`` beside ``final.safetensors``."""
    name = network.name
    if name.endswith(_NETWORK):
        return network.with_name(name.removesuffix(_NETWORK) + _MASK + _NETWORK)
    return network.with_name(name + _MASK)


def is_mask_path(path: Path) -> bool:
    """Whether a file of this name would be the mask of another."""
    return path.name.removesuffix(_NETWORK).endswith(_MASK)


def replaced_mask_path(network: Path) -> Path:
    """Where the mask of the network that is being replaced is kept until the new one is there."""
    mask = mask_path(network)
    return mask.with_name(mask.name + ".previous")


def result_path(run: RunPaths, stage: str, output: Path, default_output: Path) -> Path:
    """The JSON result of a stage: in ``results/`` for the default output, otherwise beside the output."""
    return run.result(stage) if output == default_output else output.with_name(output.name + ".json")


def fit_result_path(
    run: RunPaths, store: Path | StoreUrl | None, stage: str, fit: str, recording: str = FIRST_RECORDING
) -> Path:
    """The result of a stage that concerns a fit: one file per fit and recording.

    Args:
        run: The run directory, which holds the results of its own store and of stores in object storage.
        store: The store that the user named, if any. The result of one on a disk lies beside it.
        stage: ``fit-gamma`` or ``diagnose``.
        fit: Name of the fit.
        recording: Name of its recording.
    """
    # Names of fits and recordings contain no @.
    label = fit if recording == FIRST_RECORDING else f"{fit}@{recording}"
    if isinstance(store, Path):
        kind = "" if stage == "fit-gamma" else f".{stage}"
        return store.with_name(f"{store.name}.{label}{kind}.json")
    if store is not None:
        label += f"@{store.name[-40:]}-{hashlib.sha256(str(store).encode()).hexdigest()[:8]}"
    return run.result(stage if label == DEFAULT_FIT else f"{stage}.{label}")


def real_path(path: Path) -> Path:
    """Where a path leads, through symbolic links; one that leads nowhere, or in a circle, ends there."""
    # Not Path.resolve, which Python 3.12 and older let raise RuntimeError for a circle.
    return Path(os.path.realpath(path))


def meant_path(path: Path, pattern: str = "*") -> str:
    """The remedy for a path that leads nowhere: what has nearly that name beside it; empty if nothing has.

    Args:
        path: The path. If its folder isn't there, that may be what is misspelled.
        pattern: What may have been meant beside it, as of :meth:`pathlib.Path.glob`. Masks never are.
    """
    folder = path.parent
    with suppress(OSError):
        if folder.is_dir():
            beside = [other for other in sorted(folder.glob(pattern)) if not other.name.startswith(".")]
            names = {other.stem: other for other in beside if not is_mask_path(other)}
            meant = names.get(nearest(path.stem, names, cutoff=_NEAR))
        else:
            names = {other.name: other / path.name for other in sorted(folder.parent.glob("*"))}
            names = {name: other for name, other in names.items() if other.exists()}
            meant = names.get(nearest(folder.name, names, cutoff=_NEAR))
        return f"did you mean {meant}?" if meant is not None else ""
    return ""


def store_of_iteration(path: Path) -> str:
    """The remedy for a run directory whose own store is missing: that of an iteration of ``run``; empty without one."""
    run = RunPaths(path.parent)
    stores = [part.store for part in run.iterations() if part.store.is_dir()] if path == run.store else []
    return f"name the store of an iteration, such as {stores[-1]}" if stores else ""


@contextmanager
def utf8_path(path: Path) -> Iterator[str]:
    """While the body runs, a name of an existing file for libraries that take only UTF-8: usually its own."""
    with path.open("rb") as file:
        yield str(path) if os.fsencode(path).decode(errors="replace") == str(path) else f"/proc/self/fd/{file.fileno()}"


def lock_path(output: Path) -> Path:
    """The lock of a stage that writes ``output``."""
    return output.with_name(f".{output.name}.lock")


EXPECTED = "a path or s3://BUCKET/KEY"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{2,62}")
_LONGEST_KEY = 900
"""In bytes. S3 allows 1024; a store needs some of them for the names of its own files."""


@dataclass(frozen=True)
class StoreUrl:
    """The address of a store in object storage.

    Attributes:
        bucket: Name of the bucket.
        key: Prefix of the keys of its objects, without a slash at either end.
    """

    bucket: str
    key: str

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


def parse_place(text: str) -> Path | StoreUrl:
    """Read a path, or an address in object storage if the text has a scheme.

    Raises:
        UsageError: Another scheme than ``s3``, or no bucket and key that objects can have.
    """
    if not _SCHEME.match(text):
        return Path(text)
    scheme, _, address = text.partition("://")
    bucket, _, key = address.partition("/")
    key = key.rstrip("/")
    if expected := _place_flaw(scheme, bucket, key):
        raise UsageError("`store`", expected=expected, found=repr(masked(text))[:120])
    return StoreUrl(bucket, key)


def _place_flaw(scheme: str, bucket: str, key: str) -> str:
    """What was expected of the part of an address that objects can't have; empty if all parts are right."""
    if scheme != "s3" or not bucket or not key:
        return EXPECTED
    if not _BUCKET.fullmatch(bucket):
        return "a bucket name of 3 to 63 characters: letters, digits, and from the second on also . - and _"
    if set(key.split("/")) & {"", ".", ".."}:
        return "a key without empty parts, . and .. between its slashes"
    if re.search(r"[\x00-\x1f\x7f]", key):
        return "a key without control characters"
    return f"a key of at most {_LONGEST_KEY} bytes" if len(key.encode()) > _LONGEST_KEY else ""


def is_url_taken_for_path(path: Path) -> bool:
    """Whether a path was made from a URL, which lost a slash that way."""
    return bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)))
