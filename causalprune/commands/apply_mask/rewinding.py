"""The checkpoint to which ``apply-mask --rewind`` returns, and the proof that it is the right one."""

from __future__ import annotations

from pathlib import Path

from causalprune.base.errors import MismatchError
from causalprune.base.paths import RunPaths
from causalprune.commands.provenance.lineage import checkpoints_by_hash, earlier_files
from causalprune.config.apply_mask import ApplyMaskConfig
from causalprune.models.checkpoint import Checkpoint, load_checkpoint
from causalprune.trajectory import RecordingReader

_NAME_IT = "name the checkpoint to go back to as `rewind_from`"


def load_earlier(
    config: ApplyMaskConfig, run: RunPaths, source: Path, checkpoint: Checkpoint, reader: RecordingReader | None
) -> Checkpoint | None:
    """Load the checkpoint whose weights the pruned network gets; None without rewinding.

    Args:
        config: To which moment to return, and perhaps to which file.
        run: Where the earlier checkpoints are unless one is named.
        source: Path of ``checkpoint``.
        checkpoint: The network to prune.
        reader: The recording, if the criterion needs one.

    Raises:
        MismatchError: With ``--rewind recording``: not the checkpoint from which the recording started. With ``--rewind
            pretrained`` and no file named: no proof that ``checkpoint`` comes from it. A named file needs no proof.
        DataError: No such file.
    """
    if config.rewind == "none":
        return None
    if config.rewind == "recording":
        return _start_of_recording(config, run, source, checkpoint, reader)
    earlier = load_checkpoint(config.rewind_from or run.pretrained, remedy=_NAME_IT)
    if config.rewind_from is None:
        _require_ancestor(earlier, run, source, checkpoint)
    return earlier


def _start_of_recording(
    config: ApplyMaskConfig, run: RunPaths, source: Path, checkpoint: Checkpoint, reader: RecordingReader | None
) -> Checkpoint:
    start = ""
    if checkpoint.info.stage == "record":
        start = checkpoint.info.inputs["checkpoint"]
    elif reader is not None:
        start = reader.info.start_sha256
    if config.rewind_from is not None:
        candidates = [config.rewind_from]
    elif start:
        candidates = [path for path in (run.trained, run.pretrained) if path.exists()] or [run.pretrained]
    else:
        raise MismatchError(
            f"{source}",
            expected="the end of a recording, to go back to its start",
            found=f"a checkpoint of {checkpoint.info.stage}",
            remedy=_NAME_IT,
        )
    for path in candidates:
        earlier = load_checkpoint(path, remedy=_NAME_IT)
        if earlier.sha256 == start or not start:
            return earlier
    found = checkpoints_by_hash(run, source).get(start)
    raise MismatchError(
        f"{candidates[-1]}",
        expected=f"what the recording started from, {start[:12]}…",
        found=f"another, {earlier.sha256[:12]}…",
        remedy=f"pass `rewind_from={found}`" if found else _NAME_IT,
    )


def _require_ancestor(earlier: Checkpoint, run: RunPaths, source: Path, checkpoint: Checkpoint) -> None:
    """Follow the hashes of the inputs from ``checkpoint`` back to ``earlier``, through the files that exist."""
    sha256, at = checkpoint.sha256, source
    if sha256 == earlier.sha256:
        return
    for earlier_hash, named_by in earlier_files(checkpoint, run, source):
        sha256, at = earlier_hash, named_by
        if sha256 == earlier.sha256:
            return
    first = checkpoints_by_hash(run, source).get(sha256)
    raise MismatchError(
        f"{run.pretrained}",
        expected=f"what {source} comes from",
        found=f"another: that comes from {first}"
        if first
        else f"no proof: {at} was made from {sha256[:12]}…, which isn't there",
        remedy=f"pass `rewind_from={first}`" if first else _NAME_IT,
    )
