"""``record``: run plain SGD on a checkpoint and record each step in a trajectory store."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch.optim import SGD

from causalprune.base.compute.precision import full_precision
from causalprune.base.compute.runtime import processes
from causalprune.base.paths import RunPaths
from causalprune.base.progress import SILENT, Reporter
from causalprune.commands._checkpoint_output import CheckpointOutput
from causalprune.commands._network import among, described_rest, set_up
from causalprune.commands._output import StageResult, check_pair_distinct
from causalprune.commands.record.layers import LayersToKeep
from causalprune.commands.record.loop import RecordLoop
from causalprune.commands.record.prediction import (
    SCALARS_PER_ROW,
    first_gradient,
    record_batches,
    recorded_columns,
    recorded_rows,
    require_recordable,
)
from causalprune.commands.record.store import RecordStore
from causalprune.config.record import RecordConfig
from causalprune.models.checkpoint import Checkpoint
from causalprune.models.prunable import lacking_layers
from causalprune.training.logs.log import Log, write_layers
from causalprune.training.logs.rows import LoggedRows
from causalprune.training.optimizers import restore_optimizer
from causalprune.training.recorder import Recorder
from causalprune.trajectory import RecordingReader, RecordingWriter


@dataclass(frozen=True, kw_only=True)
class RecordResult(StageResult):
    """Result of record.

    Attributes:
        rows: T, rows recorded.
        columns: Columns of the recording: the unpruned parameters, or a share of them.
        share: That share, of each layer; 1 for all.
        raw_bytes: Size of the deltas as float32.
        stored_bytes: Size of the recording on disk; a dry run predicts it by compressing one real step.
        statistics_bytes: Size of the layers' statistics beside it; a dry run says how large before compression.
        predicted_seconds: Time for all steps, which a dry run predicts from one; else None.
        mean_loss_change: Mean ΔL over the rows.
        falling: Share of the rows in which the loss fell.
        not_prunable: What of the network isn't recorded, in words; empty if all of it is, or if nobody knows.
    """

    rows: int
    columns: int
    raw_bytes: int
    stored_bytes: int
    predicted_seconds: float | None = None
    mean_loss_change: float | None = None
    falling: float | None = None
    statistics_bytes: int = 0
    not_prunable: str = ""
    share: float = 1.0


def record(config: RecordConfig, reporter: Reporter = SILENT) -> RecordResult:
    """Continue to train with plain SGD, record (Δθ, ΔL) of each step, and write the weights at the end.

    Args:
        config: Which checkpoint, how long, at which learning rate.
        reporter: Shows progress; silent when left out.

    Returns:
        The size of the recording.

    Raises:
        CausalpruneError: See :mod:`causalprune.base.errors` for the family.
    """
    run = RunPaths(config.run)
    source = config.checkpoint or run.pretrained
    output = CheckpointOutput(stage="record", config=config, default=run.recorded)
    check_pair_distinct(output.path, source)
    start = output.load_checkpoint(source, made_by="pretrain")
    store = RecordStore(output, config.store or run.store)
    output.outputs = {"store": store.path, "checkpoint": output.path}
    if config.dry_run:
        return _record(output, store, start, source, reporter)
    with output.exclusive():
        processes().first(store.location.prepare)
        finished = output.finished()
        if store.open() and finished is not None:
            reader = store.reader()
            if reader.info.identity in (output.identity, finished.identity) and reader.finished:
                return output.publish(
                    _result(output, reader, finished.metrics.get("not_prunable", ""), already_done=True)
                )
        return _record(output, store, start, source, reporter)


@full_precision()
def _record(
    output: CheckpointOutput, store: RecordStore, start: Checkpoint, source: Path, reporter: Reporter
) -> RecordResult:
    config: RecordConfig = output.config
    group = processes()
    device, data, model, mask = set_up(start, source, config)
    mask = mask.among(model, config.prune)
    start = among(start, mask.index)
    output.warn(reporter, *lacking_layers(mask.index, model, f"{source}"))
    rest = described_rest(model, mask.index)
    batches = record_batches(config, model, data, device, group)
    require_recordable(model, mask, f"{source}")
    steps, rows = recorded_rows(config, batches)
    task = replace(data.task, label_smoothing=config.label_smoothing)
    columns = recorded_columns(config, mask)
    gradient = first_gradient(config, model, columns, batches, task)
    predicted, seconds = gradient.stored_bytes(config, rows), gradient.step_seconds
    kept_layers = LayersToKeep(config, model, mask, data, device) if config.layer_statistics else None
    statistics_bytes = kept_layers.predicted_bytes() if kept_layers else 0
    if config.dry_run:
        return RecordResult(
            **output.common(),
            rows=rows,
            columns=columns.num_kept,
            share=config.columns,
            raw_bytes=rows * (columns.num_kept * 4 + SCALARS_PER_ROW * 8),
            stored_bytes=predicted,
            predicted_seconds=seconds * steps,
            statistics_bytes=statistics_bytes,
            not_prunable=rest,
        )
    optimizer = SGD(model.parameters(), lr=config.lr, momentum=config.momentum)
    saved = output.resume(reporter, store.goes_with)
    if saved is not None:
        model.load_state_dict(saved.weights)
        restore_optimizer(model, optimizer, saved.extra)
    group.require_agreement("saved state", saved and saved.info.digest)
    step = int(saved.info.position["steps"]) if saved is not None else 0
    writer = store.open_writer(start, saved, mask, columns, rows, predicted, statistics_bytes)
    recorder = Recorder(
        model,
        optimizer,
        writer,  # type: ignore[arg-type]
        mask=mask,
        loss_change=config.loss_change,  # type: ignore[arg-type]
        stride=config.stride,
        hold=config.hold,
        hold_share=config.hold_share,
        columns=config.columns,
        columns_seed=config.columns_seed,
    )
    if saved is not None:
        recorder.restore_pending(saved.extra, saved.info.position["pending"])
        if step == rows * config.stride:
            # No step is left that would tell.
            end_weights = mask.index.digest(model.state_dict())
            writer.end_weights = lambda: end_weights
    # Rows that are only repeated, for a lost checkpoint, leave the log that they have.
    (writes,) = group.any(isinstance(writer, RecordingWriter))
    open_log = output.open_log(anew=saved is None and writes)
    log, loop = Log(), RecordLoop(output, start, model, optimizer, mask, batches, recorder, task)

    def begin_log() -> None:
        nonlocal log
        if open_log is not None and isinstance(writer, RecordingWriter):
            # What the store has already is logged anew.
            log = open_log(0)
            write_layers(log, mask)
            loop.logged = LoggedRows(log, writer, config.stride)

    def save() -> None:
        if loop.logged is not None:
            loop.logged.update()
        log.close()
        # For a criterion that doesn't read the recording.
        untrained = {"untrained": list(writer.untrained)} if writer.untrained else {}
        header = replace(start.info, position={}, metrics={"rows": rows, **untrained, "not_prunable": rest})
        recorded = Checkpoint(header, model.state_dict(), mask if mask.num_pruned else None)
        if kept_layers and isinstance(writer, RecordingWriter):
            # A signal, or the end of a job's time, doesn't cost the steps.
            loop.save(rows * config.stride)
            writer.keep_layer_statistics(*kept_layers.measure(recorded, output.stop))
        output.save(recorded)

    if open_log is not None:
        group.first(begin_log)
    try:
        with reporter.task("record", rows * config.stride) as bar, log, recorder:
            loop.run(step, rows * config.stride, bar)
            # Before the recorder marks the recording as finished, so that no crash leaves one without its checkpoint.
            writer.flush()
            group.first(save)
    except Exception:
        store.withdraw()
        raise
    # The other processes read the recording when the first one has finished it.
    group.first(store.reader)
    return output.publish(_result(output, store.reader(), rest))


def _result(
    output: CheckpointOutput, reader: RecordingReader, rest: str, *, already_done: bool = False
) -> RecordResult:
    change = reader.loss_change
    return RecordResult(
        **output.common(already_done=already_done),
        rows=reader.num_rows,
        columns=reader.num_columns,
        share=1.0 if reader.info.sample is None else reader.info.sample.share,
        raw_bytes=reader.raw_bytes,
        stored_bytes=reader.stored_bytes,
        mean_loss_change=float(change.mean()),
        falling=float((change < 0).mean()),
        statistics_bytes=reader.layer_statistics_bytes,
        not_prunable=rest,
    )
