"""Run plain SGD on a checkpoint and record every step into a trajectory store."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import SGD

from causalprune.checkpoint import Checkpoint, load_checkpoint
from causalprune.config import RecordConfig
from causalprune.data.batches import Batches
from causalprune.distributed import processes
from causalprune.errors import CausalpruneError, CorruptError, DataError, MismatchError, StorageError
from causalprune.paths import RunPaths
from causalprune.pruning.mask import Mask
from causalprune.quantities import format_bytes
from causalprune.recorder import TrajectoryRecorder, disable_dropout
from causalprune.reporting import Reporter
from causalprune.stages.artefacts import StageOutput, StageResult, check_distinct
from causalprune.stages.loading import set_up
from causalprune.stages.record_loop import DiscardingWriter, RecordLoop
from causalprune.stopping import stop_requests
from causalprune.store import RecordingInfo, RecordingReader, RecordingWriter, TrajectoryStore
from causalprune.store.estimate import estimate_bytes
from causalprune.store.files import locate
from causalprune.training.losses import LossFunction, loss_function
from causalprune.training.optimizers import restore_optimizer
from causalprune.urls import StoreUrl

SCALARS_PER_ROW = 6
"""Numbers stored beside the deltas of a row, 8 bytes each."""


@dataclass(frozen=True, kw_only=True)
class RecordResult(StageResult):
    """Result of record.

    Attributes:
        rows: T, rows recorded.
        columns: Unpruned parameters, the columns of the recording.
        raw_bytes: Size of the deltas as float32.
        stored_bytes: Size of the recording on disk; predicted by compressing one real step in a dry run.
        predicted_seconds: Time that a dry run predicts for all steps, from one; None for a real one.
        mean_loss_change: Mean ΔL over the rows.
        falling: Share of the rows in which the loss fell.
    """

    rows: int
    columns: int
    raw_bytes: int
    stored_bytes: int
    predicted_seconds: float | None
    mean_loss_change: float | None
    falling: float | None


def record(config: RecordConfig, reporter: Reporter | None = None) -> RecordResult:
    """Train on with plain SGD, recording (Δθ, ΔL) of every step, and write the store and the weights at the end.

    Args:
        config: Which checkpoint, how long, at which learning rate.
        reporter: Shows progress; silent when left out.

    Returns:
        The size of the recording.

    Raises:
        CausalpruneError: See :mod:`causalprune.errors` for the family.
    """
    reporter = reporter or Reporter()
    run = RunPaths(config.run)
    source, path, store_path = (
        config.checkpoint or run.pretrained,
        config.output or run.recorded,
        config.store or run.store,
    )
    check_distinct(path, source)
    start = load_checkpoint(source, remedy="run `causalprune pretrain` first, or name a --checkpoint")
    output = StageOutput("record", config, path, run.recorded, {"checkpoint": start.sha256})
    if config.dry_run:
        return _record(output, start, source, store_path, reporter)
    group = processes()
    location = locate(store_path)
    with output.exclusive():
        group.first(location.prepare)
        if output.finished() is not None and location.exists():
            reader = TrajectoryStore.open(store_path).recording()
            if reader.info.identity == output.identity and reader.finished:
                result = _result(output, reader, already_done=True)
                group.first(lambda: output.publish_again(result))
                return result
        return _record(output, start, source, store_path, reporter)


def _record(
    output: StageOutput, start: Checkpoint, source: Path, store_path: Path | StoreUrl, reporter: Reporter
) -> RecordResult:
    config: RecordConfig = output.config
    group = processes()
    device, data, model, mask = set_up(start, source, config)
    batches = Batches(
        data,
        "train",
        batch_size=config.batch_size,
        device=device,
        seed=config.seed,
        shuffle=True,
        augment=config.augment,
        num_workers=config.num_workers,
        group=group,
    )
    if mask.num_kept == 0:
        raise DataError(f"{source}", expected="a weight to record", found="all of them pruned")
    steps = config.steps or config.epochs * batches.steps_per_epoch
    rows = steps // config.stride
    # Two lags take the first row from the fit.
    needed = 3 if config.momentum else 2
    if rows < needed:
        raise DataError(
            "recording",
            expected=f"at least {needed} rows",
            found=f"{rows} from {steps} steps at stride {config.stride}",
            remedy="record more --epochs or --steps, or with a smaller --stride",
        )
    raw_bytes = rows * (mask.num_kept * 4 + SCALARS_PER_ROW * 8)
    predicted, seconds = _predict(config, model, mask, batches, loss_function(data.task), rows)
    if config.dry_run:
        return RecordResult(
            stage="record",
            inputs=output.inputs,
            outputs={"store": str(store_path), "checkpoint": str(output.path)},
            seconds=output.seconds,
            rows=rows,
            columns=mask.num_kept,
            raw_bytes=raw_bytes,
            stored_bytes=predicted,
            predicted_seconds=seconds * steps,
            mean_loss_change=None,
            falling=None,
        )
    optimizer = SGD(model.parameters(), lr=config.lr, momentum=config.momentum)
    saved = output.resume(reporter, partial(_goes_with, output, store_path))
    if saved is not None:
        model.load_state_dict(saved.weights)
        restore_optimizer(model, optimizer, saved.extra)
    group.require_agreement("saved state", saved and saved.info.digest)
    step = int(saved.info.position["steps"]) if saved is not None else 0
    writers: list[RecordingWriter] = []
    group.first(lambda: writers.append(_writer(output, store_path, start, saved, mask, rows, predicted)))
    writer: Any = writers[0] if writers else DiscardingWriter(mask.num_kept)
    recorder = TrajectoryRecorder(
        model,
        optimizer,
        writer,
        mask=mask,
        loss_change=config.loss_change,  # type: ignore[arg-type]
        stride=config.stride,
    )
    if saved is not None:
        recorder.restore_pending(saved.extra, saved.info.position["pending"])
    loop = RecordLoop(output, start, model, optimizer, mask, batches, recorder, loss_function(data.task))
    masks = mask.tensors() if mask.num_pruned else {}
    with stop_requests(config.stop_signals) as stop:
        with reporter.task("record", rows * config.stride) as bar, recorder:
            loop.run(step, rows * config.stride, stop, bar)
        header = replace(start.info, position={}, metrics={"rows": rows})

        def publish() -> None:
            sha256 = output.save(output.path, Checkpoint(header, model.state_dict(), masks))
            output.publish(_result(output, TrajectoryStore.open(store_path).recording()), sha256)

        group.first(publish)
    return _result(output, TrajectoryStore.open(store_path).recording())


def _check_position(saved: Checkpoint) -> None:
    position = saved.info.position
    counts = [position.get("steps"), position.get("rows")]
    pending = position.get("pending")
    row = {"loss_before": float, "lr": float, "epoch": int, "batch": int, "grad_norm": float, "steps": int}
    empty = pending == {} and "pending/delta" not in saved.extra
    whole = isinstance(pending, dict) and {k: type(v) for k, v in pending.items()} == row
    if not all(type(n) is int and n >= 0 for n in counts) or not (empty or (whole and "pending/delta" in saved.extra)):
        raise CorruptError("saved state", expected="a position in the recording", found=f"{position}"[:100])


def _goes_with(output: StageOutput, path: Path | StoreUrl, saved: Checkpoint) -> bool:
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
        return reader.info.identity == output.identity and reader.num_rows >= saved.info.position["rows"]
    except CausalpruneError:
        if output.config.overwrite:
            return False
        raise


def _writer(
    output: StageOutput,
    path: Path | StoreUrl,
    start: Checkpoint,
    saved: Checkpoint | None,
    mask: Mask,
    rows: int,
    predicted: int,
) -> RecordingWriter:
    """Open the recording that ``saved`` belongs to, or a new one."""
    config: RecordConfig = output.config
    if saved is not None:
        store = TrajectoryStore.open(path)
        return store.resume_recording(
            store.recordings[-1], rows=saved.info.position["rows"], break_lock=config.break_lock
        )
    location = locate(path)
    if location.exists() and not config.overwrite:
        store = TrajectoryStore.open(path)
        if store.recordings and store.recording().info.identity != output.identity:
            raise MismatchError(
                f"{path}",
                expected="no recording, or the interrupted one of this configuration",
                found=f"recording {store.recordings[-1]} of another",
                remedy="pass --overwrite to replace it, or choose another --store",
            )
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


def _predict(
    config: RecordConfig, model: nn.Module, mask: Mask, batches: Batches, compute_loss: LossFunction, rows: int
) -> tuple[int, float]:
    """Bytes of the recording and seconds of a step, from a real first step on a copy of the model."""
    trial = copy.deepcopy(model)
    trial.train()
    disable_dropout(trial)
    inputs, targets = next(iter(batches.epoch(0)))
    started = time.monotonic()
    compute_loss(trial(inputs), targets).backward()
    with torch.no_grad():
        compute_loss(trial(inputs), targets)
    seconds = time.monotonic() - started
    parameters = dict(trial.named_parameters(remove_duplicate=False))
    gradients = {entry.name: parameters[entry.name].grad for entry in mask.index}
    present = {n: torch.zeros_like(parameters[n]) if g is None else g for n, g in gradients.items()}
    delta = -config.lr * mask.index.flatten(present).cpu().numpy()[mask.numpy()]
    return estimate_bytes(delta, rows=rows, codec=config.codec) + rows * SCALARS_PER_ROW * 8, seconds


def _result(output: StageOutput, reader: RecordingReader, *, already_done: bool = False) -> RecordResult:
    change = reader.loss_change
    return RecordResult(
        stage="record",
        inputs=output.inputs,
        outputs={
            "store": str(output.config.store or RunPaths(output.config.run).store),
            "checkpoint": str(output.path),
        },
        already_done=already_done,
        seconds=output.seconds,
        rows=reader.num_rows,
        columns=reader.num_columns,
        raw_bytes=reader.raw_bytes,
        stored_bytes=reader.stored_bytes,
        predicted_seconds=None,
        mean_loss_change=float(change.mean()),
        falling=float((change < 0).mean()),
    )
