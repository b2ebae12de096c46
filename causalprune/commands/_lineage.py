"""What a checkpoint comes from: the proof that it goes with a recording, and whether its inputs are still there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from causalprune.base.errors import MismatchError
from causalprune.base.json_files import sha256_file
from causalprune.base.paths import RunPaths
from causalprune.models.checkpoint import Checkpoint, read_checkpoint_info
from causalprune.trajectory import RecordingReader


def foreign_weights(reader: RecordingReader, checkpoint: Checkpoint, run: RunPaths, source: Path) -> str:
    """Why a checkpoint isn't known to be one that a recording started from or ended with, or made from one of them.

    Args:
        reader: The recording.
        checkpoint: The network; it has the parameters of the recording.
        run: Where its ancestors may be.
        source: Its path.

    Returns:
        In words what is found instead; ``unknown`` if the recording doesn't say which weights it was made with; empty
        if there is proof.
    """
    weights, files = reader.known_weights, reader.known_checkpoints
    if not weights and not files:
        return "unknown"
    if weights & {checkpoint.weights_digest, *checkpoint.info.ancestors} or checkpoint.sha256 in files:
        return ""
    # Checkpoints of version 0.1 don't know the weights of their ancestors, but the hash of the file before.
    if files and any(sha256 in files for sha256, _ in earlier_files(checkpoint, run, source)):
        return ""
    if reader.finished or reader.end_weights:
        return "others"
    return "others (what an unfinished recording ended with isn't known)"


def earlier_files(checkpoint: Checkpoint, run: RunPaths, source: Path) -> Iterator[tuple[str, Path]]:
    """Hashes of the files that a checkpoint was made from, each with the file that names it, as far as they exist."""
    at, info = source, checkpoint.info
    files: dict[str, Path] | None = None
    while sha256 := info.inputs.get("checkpoint", ""):
        yield sha256, at
        files = checkpoints_by_hash(run, source) if files is None else files
        if sha256 not in files:
            return
        at = files.pop(sha256)
        info = read_checkpoint_info(at)


def checkpoints_by_hash(run: RunPaths, source: Path) -> dict[str, Path]:
    """Files that may be checkpoints, by their hash: in the run directory, in its iterations and beside ``source``."""
    folders = dict.fromkeys([run.root, *(part.root for part in run.iterations()), source.parent])
    paths = [path for folder in folders for path in sorted(folder.glob("*.safetensors"))]
    return {sha256_file(path): path for path in reversed(paths) if path.is_file() and not path.name.startswith(".")}


def require_own_weights(
    reader: RecordingReader, checkpoint: Checkpoint, run: RunPaths, source: Path, *, allow_others: bool
) -> str:
    """Check that a recording is one of the checkpoint's own weights.

    Returns:
        What to warn of; empty if there is proof.

    Raises:
        MismatchError: It isn't, and ``allow_others`` is False.
    """
    found = foreign_weights(reader, checkpoint, run, source)
    if found == "unknown":
        return f"recording {reader.path} doesn't say of which weights it is: nothing proves that they are {source}'s"
    if found and not allow_others:
        raise MismatchError(
            f"{source}",
            expected=f"the weights that recording {reader.path} started or ended with, or some made from them",
            found=found,
            remedy="name a checkpoint and a store that belong together, or pass `allow_other_weights`",
        )
    return f"recording {reader.path} is of other weights than {source}'s" if found else ""
