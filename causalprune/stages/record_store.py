"""The recording that ``record`` writes into: a new one, the interrupted one, or a finished one to compare with."""

from __future__ import annotations

from pathlib import Path

from causalprune.checkpoint import Checkpoint
from causalprune.config import RecordConfig
from causalprune.errors import CausalpruneError, CorruptError, MismatchError, StorageError
from causalprune.pruning.mask import Mask
from causalprune.quantities import format_bytes
from causalprune.reporting import logger
from causalprune.stages.artefacts import StageOutput
from causalprune.store import RecordingInfo, RecordingReader, RecordingWriter, TrajectoryStore
from causalprune.store.comparing import ComparingWriter
from causalprune.store.files import locate
from causalprune.urls import StoreUrl


def goes_with(output: StageOutput, path: Path | StoreUrl, saved: Checkpoint) -> bool:
    """Whether the store has the rows that a saved state has seen.

    Raises:
        CausalpruneError: The store is damaged, and no leave to overwrite it.
    """
    try:
        store = TrajectoryStore.open(path) if locate(path).exists() else None
        if store is None or not store.recordings:
            return False
        reader = store.recording()
        _check_position(saved)
        if output.config.overwrite and reader.finished and reader.fits:
            # Its last rows would be recorded anew, and its fits be those of others.
            return False
        return reader.info.identity == output.identity and reader.num_rows >= saved.info.position["rows"]
    except CausalpruneError:
        if output.config.overwrite:
            return False
        raise


def _check_position(saved: Checkpoint) -> None:
    position = saved.info.position
    counts = [position.get("steps"), position.get("rows")]
    pending = position.get("pending")
    row = {"loss_before": float, "lr": float, "epoch": int, "batch": int, "grad_norm": float, "steps": int}
    empty = pending == {} and "pending/delta" not in saved.extra
    whole = isinstance(pending, dict) and {k: type(v) for k, v in pending.items()} == row
    if not all(type(n) is int and n >= 0 for n in counts) or not (empty or (whole and "pending/delta" in saved.extra)):
        raise CorruptError("saved state", expected="a position in the recording", found=f"{position}"[:100])


def open_writer(
    output: StageOutput,
    path: Path | StoreUrl,
    start: Checkpoint,
    saved: Checkpoint | None,
    mask: Mask,
    rows: int,
    predicted: int,
) -> RecordingWriter | ComparingWriter:
    """Open the recording that ``saved`` belongs to, or a new one.

    A finished recording of the very same configuration, whose checkpoint is missing, stays as it is with its fits: the
    rows are only compared with it. Nothing that is finished or has a fit is deleted without leave to overwrite it.

    Args:
        output: The stage's output.
        path: The store.
        start: The checkpoint that the recording starts from.
        saved: The state to go on from.
        mask: Which parameters are recorded.
        rows: How many rows there will be.
        predicted: Bytes that they will take.

    Raises:
        MismatchError: Something else is recorded there.
        StorageError: Too little space.
        CausalpruneError: See :class:`TrajectoryStore`.
    """
    config: RecordConfig = output.config
    location = locate(path)
    done = 0 if saved is None else saved.info.position["rows"]
    if location.exists() and not config.overwrite:
        store = TrajectoryStore.open(path)
        last = store.recording() if store.recordings else None
        if last is not None and last.info.identity != output.identity:
            raise _another(path, "no recording, or the interrupted one of this configuration", last, "of another")
        if last is not None and last.finished:
            logger.info("%s is finished: recording once more, for its missing checkpoint, and comparing", path)
            store.recover(break_lock=config.break_lock)
            return ComparingWriter(last, config.codec, done)
        for reader in [] if saved is not None else [store.recording(name) for name in store.recordings]:
            if reader.finished or reader.fits:
                fits = ", ".join(reader.fits)
                what = f"with the fits {fits}" if fits else "that is finished"
                raise _another(path, "nothing finished or fitted in a store that is recorded anew", reader, what)
    if saved is not None:
        store = TrajectoryStore.open(path)
        return store.resume_recording(store.recordings[-1], rows=done, break_lock=config.break_lock)
    free = location.free_bytes()
    if free is not None and predicted > free and not config.force:
        raise StorageError(
            f"disk of {path}",
            expected=f"about {format_bytes(predicted)} for {rows} rows",
            found=f"{format_bytes(free)} free",
            remedy="record fewer steps, with a --stride or --codec small, or pass --force",
        )
    if location.exists():
        TrajectoryStore.delete(path, break_lock=config.break_lock)
    store = TrajectoryStore.create(
        path,
        index=mask.index,
        model=start.info.model.to_json(),
        start_sha256=start.sha256,
        break_lock=config.break_lock,
    )
    info = RecordingInfo(
        optimizer="sgd",
        lr=config.lr,
        momentum=config.momentum,
        loss_change=config.loss_change,  # type: ignore[arg-type]
        stride=config.stride,
        batch_size=config.batch_size,
        seed=config.seed,
        start_sha256=start.sha256,
        identity=output.identity,
    )
    return store.create_recording(info, mask.numpy(), max_rows=rows, codec=config.codec, break_lock=config.break_lock)


def _another(path: Path | StoreUrl, expected: str, reader: RecordingReader, what: str) -> MismatchError:
    return MismatchError(
        f"{path}",
        expected=expected,
        found=f"recording {reader.name} {what}",
        remedy="pass --overwrite to replace it, or choose another --store",
    )
