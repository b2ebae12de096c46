"""What a checkpoint comes from: the proof that it goes with a recording, and whether its inputs are still there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from causalprune.base.errors import CorruptError, DataError, MismatchError
from causalprune.base.json_files import sha256_file
from causalprune.base.paths import RunPaths, is_mask_path
from causalprune.commands._output import read_result
from causalprune.models.checkpoint import Checkpoint, CheckpointInfo, read_checkpoint_info
from causalprune.trajectory import RecordingReader, Store


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
    found = reader.foreign({checkpoint.weights_digest, *checkpoint.info.ancestors}, {checkpoint.sha256})
    files = reader.known_checkpoints
    # Checkpoints of version 0.1 don't know the weights of their ancestors, but the hash of the file before.
    if found and files and any(sha256 in files for sha256, _ in earlier_files(checkpoint, run, source)):
        return ""
    return found


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
    networks = [path for path in paths if path.is_file() and not (path.name.startswith(".") or is_mask_path(path))]
    return {sha256_file(path): path for path in reversed(networks)}


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


def has_stale_statistics(info: CheckpointInfo) -> bool:
    """Whether running statistics of batch normalization, if there is any, are of other weights than the checkpoint's.

    So they are after a mask that changed weights, until a training or a repair adapts them.
    """
    said = info.metrics.get("stale_statistics")
    if said is not None or info.stage != "apply-mask":
        return bool(said)
    # Earlier versions didn't say.
    before: float = info.metrics.get("sparsity_before", 0.0)
    return info.index.total - sum(info.kept.values()) > round(before * info.index.total)


def adapted_by(info: CheckpointInfo, run: RunPaths) -> str:
    """The stage that adapted the kept weights after the last mask: ``repair`` or ``posttrain``; empty if none did.

    Args:
        info: Header of a pruned network.
        run: Where its ancestors may be.
    """
    if info.stage == "posttrain" and not info.metrics.get("best_epoch"):
        headers, made_from = _headers(run), info.inputs.get("checkpoint", "")
        before = next((at for at, header in headers.items() if recorded_hash(at, header) == made_from), None)
        return "" if before is None else adapted_by(headers[before], run)
    return {"apply-mask": "", "repair": "repair"}.get(info.stage, "posttrain")


def stale_checkpoints(run: RunPaths) -> dict[Path, str]:
    """The checkpoints of a run directory that no longer follow from what lies there, each with the reason.

    The hashes in the headers and in the result files tell; nothing large is read.
    """
    headers = _headers(run)
    files = {recorded_hash(path, info): path for path, info in headers.items()}
    found: dict[Path, str] = {}
    for path, parent in _parents(run):
        if path not in headers:
            continue
        inputs = headers[path].inputs
        made_from = inputs.get("checkpoint", "")
        if files.get(made_from) in found:
            found[path] = f"it follows from {files[made_from]}, which is stale"
        elif made_from and made_from not in files and parent in headers:
            found[path] = f"it was made from another {parent.name} than {parent} is now"
        elif "fit" in inputs and inputs["fit"] not in _fits(path.with_name(run.store.name), inputs["fit"]):
            found[path] = "it was made of another fit than those that are in the store now"
    return found


def stale_warnings(run: RunPaths, source: Path) -> list[str]:
    """What to say of a checkpoint of a run directory that is stale; nothing of another one."""
    reasons = {path.resolve(): reason for path, reason in stale_checkpoints(run).items()}
    reason = reasons.get(source.resolve())
    return [stale_line(source, reason)] if reason else []


def stale_line(path: Path, reason: str) -> str:
    """A stale checkpoint in one line."""
    return f"{path} is stale: {reason}; run the stage that wrote it again with --overwrite"


def recorded_hash(path: Path, info: CheckpointInfo) -> str:
    """The hash of a checkpoint as its result file has it; hashing a large file would take longer than users wait."""
    part = RunPaths(path.parent)
    stage = {
        part.pretrained: "pretrain",
        part.recorded: "record",
        part.pruned: "apply-mask",
        part.repaired: "repair",
        part.final: "posttrain",
    }
    # The training of an iteration isn't the posttrain of the run directory.
    result = path.with_name(path.name + ".json") if path == part.trained else part.result(stage[path])
    written = read_result(result)
    # A result file of version 0.1 doesn't say of which file it is.
    if written.get("sha256") and written.get("header", info.checksum) == info.checksum:
        return str(written["sha256"])
    return sha256_file(path)


def _parents(run: RunPaths) -> Iterator[tuple[Path, Path]]:
    """Every checkpoint with the one from which its stage makes it unless told otherwise, the earliest first."""
    before = run.pretrained
    for part in run.iterations():
        yield part.trained, before
        yield part.recorded, part.trained
        yield part.pruned, part.recorded
        yield part.repaired, part.pruned
        before = part.repaired if part.repaired.exists() else part.pruned
    yield run.recorded, run.dense
    yield run.pruned, run.recorded
    yield run.repaired, run.pruned
    yield run.final, run.pruned if run.pruned.exists() else before


def _headers(run: RunPaths) -> dict[Path, CheckpointInfo]:
    """The header of each checkpoint of a run directory that can be read."""
    parts = [run, *run.iterations()]
    return {path: info for part in parts for path in part.artifacts() if (info := _header(path)) is not None}


def _header(path: Path) -> CheckpointInfo | None:
    try:
        return read_checkpoint_info(path) if path.is_file() else None
    except (CorruptError, DataError):
        return None


def _fits(store: Path, unknown: str) -> set[str]:
    """Digests of all fits of a store; just the wanted one where there is no store to ask."""
    try:
        opened = Store.open(store)
        readers = [opened.recording(name) for name in opened.recordings]
        return {reader.read_fit(name).digest for reader in readers for name in reader.fits}
    except (CorruptError, DataError):
        return {unknown}
