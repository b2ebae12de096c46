"""Record any training loop: a row of signed parameter deltas Δθ and a loss change ΔL for each optimizer step."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from causalprune.base.errors import UsageError
from causalprune.base.paths import StoreUrl
from causalprune.models.mask import Mask
from causalprune.models.prunable import log_not_prunable
from causalprune.training.columns import Columns
from causalprune.training.held.rows import HeldRows, describe_held
from causalprune.training.loop_watch import LoopWatch
from causalprune.training.new_recording import (
    claim,
    new_recording,
    require_unclaimed,
    what_to_record,
)
from causalprune.training.optimizer_groups import OptimizerGroups, inner_optimizer, take_step, unscale
from causalprune.training.options import DEFAULT_HOLD_SHARE
from causalprune.training.pass_state import PassState
from causalprune.training.ranks import Ranks, Writer, require_whole
from causalprune.training.row import Row, checked_thoroughly, row_memory
from causalprune.training.step_losses import Measure, StepLosses, warn_of_rounded_products
from causalprune.training.unmoved_weights import UntrainedWeights, VanishedDeltas
from causalprune.training.weight_deltas import WeightDeltas
from causalprune.trajectory import RecordingInfo, RecordingWriter
from causalprune.trajectory.schema import LossChange


class Recorder:
    """Takes the optimizer's steps and writes Δθ and ΔL of ΔL_t = Σ_k γ_k Δθ_tk² to a trajectory store.

    Use it as a context manager, or :meth:`close` it in the end, and call :meth:`step` instead of ``optimizer.step()``.
    From the first row on, weights may change in :meth:`step` only.

    Both losses of a step are measured in the same state: the modules are in the same mode, and what the network draws,
    dropout of every kind or noise, it draws alike, from the generators of PyTorch, Python, NumPy and its own modules.
    The state is that in which the step's first forward pass through ``model`` began, or :meth:`begin_pass` was called.
    If there was neither, the loss before the step is measured once more, and a network that draws is refused. The
    second measurement leaves no trace in buffers, such as averages of BatchNorm or vectors of spectral normalization,
    and draws nothing from the generators that the loop will draw from. Before the first step the same loss is measured
    again, and on a CPU before rows 1, 2, 4, 8 and so on, too: when the two differ by more than rounding and a hundredth
    of η‖g‖², the network or ``measure`` can't be repeated, and is refused.

    On the CPU an error comes at once. On a GPU no step after the first waits for it: losses, norms and checks stay
    there and are read when their block of rows is written; an error comes before that block is committed.

    Args:
        model: What the loop calls. The weights of its Linear, Conv, attention and recurrent layers are recorded, in the
            order of :class:`ParameterIndex`, and a line of the log says what isn't; their names don't change when
            ``torch.compile``, DataParallel or DistributedDataParallel wraps the network.
        optimizer: Any whose step needs no closure. γ has a causal reading for SGD only; a warning says so.
        store: Where to create a trajectory store, a path or ``s3://BUCKET/KEY``; or the writer of a recording in an
            existing store. Under DistributedDataParallel every process makes a recorder, and the first one writes,
            unless ``columns_by_rank``.
        max_rows: How many rows are expected, so that a short recording takes less memory. More are recorded all the
            same; 0 if unknown.
        mask: Pruned parameters are set to 0.0 after each step, as by :meth:`causalprune.Mask.hold`, and aren't stored.
            None keeps all but what ``torch.nn.utils.prune`` has pruned. Its list of parameters is what is recorded.
        prune: Patterns of names of further parameters to record, so that they can be pruned: embeddings, bare
            parameters, such as ``("tokens.weight", "places")``.
        loss_change: ``same-batch``: the loss of this minibatch after the step minus the loss before, at the cost of
            another forward pass; ``next-batch``: the loss of the next minibatch minus the loss of this one, where the
            network must draw nothing, because two minibatches can't share it.
        stride: Optimizer steps per row: Δθ is over all of them, ΔL on the minibatch of the first.
        columns: Which weights are recorded, by the name of the weight or of its layer, or patterns such as ``fc*``; all
            by default. Or a share of each layer's, such as ``0.1``, drawn at random
            (:class:`causalprune.trajectory.columns.sample.ColumnSample`); or both, ``("fc*", 0.1)``. The others are
            trained as ever, and never pruned by a criterion that reads the recording.
        columns_seed: Another one draws others. Recordings can be merged or compared if they have the same columns.
        columns_by_rank: Under DistributedDataParallel, whether each process compresses and writes its own columns, into
            the same file as ever, on a disk that all see. A block of rows is committed when all have. For a new store;
            a writer has its ``partners`` already.
        codec: ``exact``, bit for bit; ``balanced``, Δθ to 11 significant bits; or ``small``, to 8.
        batch_size: Only noted in the recording.
        seed: Only noted in the recording.
        hold: Whether the network stays as it is, bit for bit, from now on. The optimizer takes no step; each row is a
            step −ηg of the recorded weights alone that is tried on copies of them, and its losses are computed by
            ``measure`` in float64, where the network can (:mod:`causalprune.training.held.steps`). The buffers are put
            back, too. For plain SGD with the other options at their defaults, and for :meth:`step` only.
        hold_share: η‖g‖² of a held step, as a share of the loss.
        overwrite: Whether to replace a store that is there already, also one that an earlier recorder of this process
            has left open. If the constructor fails, no new store is left behind.
        compress_threads: Threads that compress a new store's rows; None for as many as the machine spares
            (:class:`RecordingWriter`).

    Raises:
        UsageError: A store that is there already; an optimizer that needs a closure, or that doesn't train the model;
            sharded parameters; a pattern that matches nothing; a model that another open recorder has.

    Example:
        >>> import torch
        >>> from causalprune import Recorder, Store
        >>> model = torch.nn.Linear(4, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> criterion = torch.nn.MSELoss()
        >>> with Recorder(model, optimizer, "trajectory.zarr") as recorder:
        ...     for inputs, targets in [(torch.randn(8, 4), torch.randn(8, 1)) for _ in range(20)]:
        ...         loss = criterion(model(inputs), targets)
        ...         optimizer.zero_grad()
        ...         loss.backward()
        ...         recorder.step(loss, lambda: criterion(model(inputs), targets))
        >>> recording = Store.open("trajectory.zarr").recording()
        >>> recording.read_rows(0, 20).shape, recording.loss_change.shape  # Δθ and ΔL
        ((20, 4), (20,))
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        store: str | Path | StoreUrl | RecordingWriter,
        *,
        max_rows: int = 0,
        mask: Mask | None = None,
        loss_change: LossChange = "same-batch",
        stride: int = 1,
        columns: str | float | Sequence[str | float] = (),
        columns_seed: int = 0,
        columns_by_rank: bool = False,
        prune: str | Sequence[str] = (),
        codec: str = "balanced",
        batch_size: int = 1,
        seed: int = 0,
        hold: bool = False,
        hold_share: float = DEFAULT_HOLD_SHARE,
        overwrite: bool = False,
        compress_threads: int | None = None,
    ) -> None:
        if columns_by_rank and not isinstance(store, (str, Path, StoreUrl)):
            raise UsageError(
                "`columns_by_rank`",
                expected="the path of a new store",
                found="the writer of a recording",
                remedy="pass `partners` to what makes the writer, and leave `columns_by_rank` out",
            )
        require_whole(model)
        mask = what_to_record(model, mask, prune)
        index = mask.index
        chosen, ranks = Columns.of(mask, columns, columns_seed, store), Ranks(model)
        if columns_by_rank:
            chosen = chosen.divided(ranks, max_rows)
        self._optimizer, self._loss_change, self._stride = optimizer, loss_change, stride
        self._weights = WeightDeltas(model, mask, inner_optimizer(optimizer), chosen)
        state = PassState(model)
        self._groups = groups = OptimizerGroups(optimizer, self._weights.parameters)
        described = describe_held(groups.described, hold_share, stride, loss_change) if hold else groups.described
        warn_of_rounded_products(self._weights.device)
        parameters = self._weights.parameters
        require_unclaimed(parameters.values(), store)
        # After everything that can fail.
        self.writer: Writer
        if isinstance(store, (str, Path, StoreUrl)):
            described |= {"loss_change": loss_change, "stride": stride, "batch_size": batch_size, "seed": seed}
            what: dict[str, Any] = {"left_out": chosen.left_out, "sample": chosen.sample}
            info = RecordingInfo(**described, start_weights=self._weights.digest(), **what)
            options: dict[str, Any] = {"max_rows": max_rows, "codec": codec, "overwrite": overwrite}
            self.writer = new_recording(store, index, chosen, info, ranks, compress_threads=compress_threads, **options)
            if isinstance(self.writer, RecordingWriter):
                log_not_prunable(model, index, "not recorded and not prunable")
        else:
            groups.require_described_by(store)
            self.writer = store
        self._weights.hold()
        # A function, because the recording may be closed when the interpreter ends.
        self.writer.end_weights = self._weights.last_digest
        self._all_parameters = list(model.parameters())
        self._untrained = UntrainedWeights(optimizer, parameters, self.writer)
        self._vanished = VanishedDeltas(parameters, self._weights.mask, chosen.own)
        self._row: Row | None = None
        self._rows_begun = 0
        self._closed = False
        self._watch = LoopWatch(model, inner_optimizer(optimizer), parameters.values(), state)
        weakref.finalize(self, self._watch.close).atexit = False
        self._losses = losses = StepLosses(self._watch, state, ranks, loss_change)
        self._held = HeldRows(model, self._weights, hold_share, self._watch, losses, self.writer) if hold else None
        claim(self, self.writer, parameters.values())

    @property
    def rows(self) -> int:
        """Number of complete rows so far."""
        return self.writer.rows_appended

    def step(
        self,
        loss: torch.Tensor | None = None,
        measure: Measure | None = None,
        *,
        epoch: int = 0,
        batch: int = 0,
        scaler: GradScaler | None = None,
    ) -> None:
        """Take and record one optimizer step; call it after ``loss.backward()``.

        Args:
            loss: Loss of the minibatch before the step, a scalar, not scaled; of all minibatches whose gradients were
                added up. Without it ``measure`` measures this loss, too, at the cost of one more pass.
            measure: Evaluates the loss of the whole step; called without gradients, for ``same-batch`` only. It must
                be the function of the weights whose gradient the step follows: under autocast if that was, and divided
                by the number of minibatches if their losses were.
            epoch: Only noted in the recording.
            batch: Number of the minibatch in the epoch, only noted in the recording.
            scaler: Takes the step, as in ``scaler.step(optimizer)``; ``scaler.update()`` is left to the loop. A step
                that it skips, because a gradient isn't finite, makes no row.

        Raises:
            UsageError: The weights changed since the last step, other than by it; no recorded weight has a gradient;
                gradients of more minibatches than are measured; a loss that can't be measured again, or isn't a scalar;
                other parameter groups than at the beginning.
            DataError: A loss or a delta isn't finite.
        """
        unscale(self._optimizer, scaler)
        if self._held is not None:
            value = self._check_step(loss)
            self._untrained.before_step()
            self._held.append(value, measure, epoch, batch)
            return
        self.begin_step(loss, measure, epoch=epoch, batch=batch)
        try:
            take_step(self._optimizer, scaler)
        except BaseException:
            self._drop_step()
            raise
        self._end_step()

    def begin_pass(self) -> None:
        """Say that a step's first forward pass begins, in a loop that calls something else than ``model``.

        Such as a part of it, ``model.forward`` or ``functional_call``. What the network draws from here on it draws
        alike when the losses are measured. Not needed where the loop calls ``model``, nor where nothing is drawn.
        """
        self._watch.begin_pass()

    def begin_step(
        self, loss: torch.Tensor | None = None, measure: Measure | None = None, *, epoch: int = 0, batch: int = 0
    ) -> None:
        """The first half of :meth:`step`, for loops in which something else calls the optimizer; see there.

        Call it after the backward pass, then let ``optimizer.step()`` be called once, and call :meth:`end_step`. A step
        that has begun and is begun again, without an end, counts for nothing. For Lightning there is
        :class:`causalprune.training.lightning.RecorderCallback`, which does all this.
        """
        if self._held is not None:
            self._held.refuse_halves()
        if self._watch.stepping:
            self._drop_step()
        value = self._check_step(loss)
        if self._row is not None and self._row.steps == self._stride:
            self.complete(self._losses.given(value))
        self._untrained.before_step()
        self._groups.require_same()
        self._row = self._row or self._begin_row(value, measure, epoch, batch)
        self._losses.require_all_minibatches(given=value is not None)
        self._watch.keep_state = True
        self._watch.begin_step()

    def end_step(self) -> None:
        """The second half of :meth:`step`, for loops in which something else calls the optimizer.

        Gradients may have been clipped since :meth:`begin_step`. If the optimizer wasn't called, there is no row.

        Raises:
            UsageError: No step has begun.
            DataError: As :meth:`step`.
        """
        if not self._watch.stepping or self._row is None:
            raise UsageError("Recorder.end_step", expected="Recorder.begin_step before", found="none")
        if not self._row.steps:
            self._row.note_gradient(self._groups, self._all_parameters)
        self._end_step()

    def _end_step(self) -> None:
        if not self._watch.end_step():
            self._drop_step()
            self._watch.warn_of_skipped()
            return
        row = self._row
        assert row is not None
        self._weights.after_step()
        row.steps += 1
        if row.steps < self._stride:
            return
        row.delta = self._weights.row(row_memory(self.writer, self._weights.device))
        if self._stride == 1:
            self._vanished.count(self.writer, row.delta)
        self._watch.keep_state = False
        if self._loss_change == "same-batch":
            assert row.measure is not None
            self.complete(self._losses.measured(row.measure))

    def _drop_step(self) -> None:
        """Forget a step that wasn't taken; a row that has no other step, too."""
        self._watch.end_step()
        if self._row is not None and not self._row.steps:
            self._row = None
            self._watch.keep_state = False

    def _check_step(self, loss: torch.Tensor | None) -> float | torch.Tensor | None:
        """The value of the given loss, if nothing but recorded steps has changed the weights."""
        value = None if loss is None else self._losses.value(loss)
        self._watch.require_all_recorded()
        self._weights.before_step(self.writer, begins_row=self._row is None)
        return value

    def _begin_row(self, value: float | torch.Tensor | None, measure: Measure | None, epoch: int, batch: int) -> Row:
        row = Row.begun(self._groups, self._all_parameters, epoch, batch)
        # A norm that is a tensor is still on its device, for which the check would wait. Rows are counted from here on,
        # because all processes have to check together, and only the first one's writer knows of earlier rows.
        checks = not self._weights.started
        checks |= not isinstance(row.grad_norm, torch.Tensor) and checked_thoroughly(self._rows_begun)
        self._rows_begun += 1
        row.loss_before = self._losses.before(value, measure, row.expected_change if checks else None)
        row.measure = measure
        return row

    def complete(self, loss_after: float | torch.Tensor | Measure) -> None:
        """Finish the current row with its loss after the step; only the last ``next-batch`` row needs this call.

        Args:
            loss_after: The loss of another minibatch, or what computes it: called without gradients, and nothing but
                the value remains of the forward pass.
        """
        if callable(loss_after):
            loss_after = self._losses.afterwards(loss_after)
        row, self._row = self._row, None
        if row is not None and row.delta is not None:
            row.append_to(self.writer, loss_after)

    def pending(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """The row that still lacks its loss after the step, as tensors and JSON; empty between ``same-batch`` rows."""
        return ({}, {}) if self._row is None or self._row.delta is None else self._row.saved()

    def restore_pending(self, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        """Restore what :meth:`pending` returned."""
        if state:
            self._row = Row.restored(tensors, state, self._weights.device)

    def close(self) -> None:
        """Store everything, mark the recording as complete, and release the store; once more does nothing.

        Raises:
            DataError: No row was recorded.
        """
        if not self._closed:
            self._release()
            self._vanished.warn(self.writer)
            try:
                self.writer.finish()
            finally:
                self.writer.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._release()
            self.writer.close()

    def _release(self) -> None:
        self._closed = True
        self._watch.close()
        if self._held is not None:
            self._held.close()
