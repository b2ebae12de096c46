"""Record any training loop: a row of signed parameter deltas Δθ and a loss change ΔL for each optimizer step."""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from causalprune.base.compute.precision import rounds_factors
from causalprune.base.errors import UsageError
from causalprune.base.paths import StoreUrl
from causalprune.base.progress import logger
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex
from causalprune.training.loop_watch import LoopWatch
from causalprune.training.metrics import loss_value
from causalprune.training.new_store import new_store
from causalprune.training.optimizer_groups import OptimizerGroups, expected_change, gradient_norm, inner_optimizer
from causalprune.training.pass_state import PassState
from causalprune.training.ranks import DiscardingWriter, Ranks, require_whole
from causalprune.training.recorder_inputs import find_left_out, require_free, unscale, watch
from causalprune.training.step_losses import Measure, StepLosses
from causalprune.training.weight_deltas import WeightDeltas
from causalprune.trajectory import RecordingInfo, RecordingWriter
from causalprune.trajectory.schema import EXPECTED_ROWS

LossChange = Literal["same-batch", "next-batch"]


@dataclass
class _Row:
    """A row whose loss after its steps isn't known yet."""

    loss_before: float | torch.Tensor
    lr: float
    epoch: int
    batch: int
    grad_norm: float | torch.Tensor
    steps: int = 0
    delta: torch.Tensor | None = None
    declared: dict[str, Any] = field(default_factory=dict)


class Recorder:
    """Takes the optimizer's steps and writes Δθ and ΔL of ΔL_t = Σ_k γ_k Δθ_tk² to a trajectory store.

    Use it as a context manager, or :meth:`close` it in the end, and call :meth:`step` instead of ``optimizer.step()``.
    From the first row on, weights may change in :meth:`step` only.

    Both losses of a step are measured in the same state: the modules are in the same mode, and what the network draws,
    dropout of every kind or noise, it draws alike, from the generators of PyTorch, Python, NumPy and its own modules.
    The state is that in which the step's first forward pass through ``model`` began; if there was none, because the
    loop calls something else, the loss before the step is measured once more. The second measurement leaves no trace in
    buffers, such as averages of BatchNorm or vectors of spectral normalization, and draws nothing from the generators
    that the loop will draw from. Before the first step the same loss is measured again: when the two differ by more
    than rounding and a hundredth of η‖g‖², the network or ``measure`` can't be repeated, and is refused.

    On the CPU an error comes at once. On a GPU no step after the first waits for it: losses, norms and checks stay
    there and are read when their block of rows is written; an error comes before that block is committed.

    Args:
        model: What the loop calls. Its Linear and Conv weights are recorded, in the order of :class:`ParameterIndex`;
            their names don't change when ``torch.compile``, DataParallel or DistributedDataParallel wraps the network.
        optimizer: Any whose step needs no closure. γ has a causal reading for SGD only; a warning says so.
        store: Where to create a trajectory store, a path or ``s3://BUCKET/KEY``; or the writer of a recording in an
            existing store. Under DistributedDataParallel every process makes a recorder, and the first one writes.
        max_rows: How many rows are expected, so that a short recording takes less memory. More are recorded all the
            same; 0 if unknown.
        mask: Pruned parameters are set to 0.0 after each step and aren't stored. None keeps all but what
            ``torch.nn.utils.prune`` has pruned.
        loss_change: ``same-batch``: the loss of this minibatch after the step minus the loss before, at the cost of
            another forward pass; ``next-batch``: the loss of the next minibatch minus the loss of this one, where the
            network must draw nothing, because two minibatches can't share it.
        stride: Optimizer steps per row: Δθ is over all of them, ΔL on the minibatch of the first.
        columns: Which weights are recorded, by the name of the weight or of its layer, or patterns such as ``fc*``; all
            by default. The others are trained as ever, and never pruned by a criterion that reads the recording.
        codec: ``exact``, ``balanced`` or ``small``.
        batch_size: Only noted in the recording.
        seed: Only noted in the recording.
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
        >>> Store.open("trajectory.zarr").recording().read_rows(0, 20).shape
        (20, 4)
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
        columns: str | Sequence[str] = (),
        codec: str = "balanced",
        batch_size: int = 1,
        seed: int = 0,
        overwrite: bool = False,
        compress_threads: int | None = None,
    ) -> None:
        require_whole(model)
        self._optimizer = optimizer
        index = ParameterIndex.from_model(model)
        mask = mask or Mask.of_model(model, index)
        self._loss_change, self._stride = loss_change, stride
        resumes = isinstance(store, RecordingWriter) and not columns
        left_out = store.info.left_out if resumes else find_left_out(index, columns)  # type: ignore[union-attr]
        self._weights, state, ranks = WeightDeltas(model, mask, left_out), PassState(model), Ranks(model)
        self._groups = OptimizerGroups(optimizer, self._weights.parameters)
        if rounds_factors(self._weights.device.type):
            warnings.warn(
                "float32 products are rounded to TensorFloat-32 or bfloat16, which shows in ΔL: run the loop within "
                "causalprune.base.compute.precision.full_precision()",
                stacklevel=2,
            )
        require_free(self._weights.parameters.values(), store)
        # After everything that can fail.
        self.writer: RecordingWriter | DiscardingWriter
        if isinstance(store, (str, Path, StoreUrl)):
            info = RecordingInfo(
                **self._groups.described,
                loss_change=loss_change,
                stride=stride,
                batch_size=batch_size,
                seed=seed,
                start_weights=self._weights.digest(),
                left_out=left_out,
            )
            active = np.concatenate(
                [keep.numpy().reshape(-1) & (n not in left_out) for n, keep in mask.tensors().items()]
            )
            options: dict[str, Any] = {"codec": codec, "overwrite": overwrite}
            options |= {"max_rows": int(max_rows) or EXPECTED_ROWS, "compress_threads": compress_threads}
            made = ranks.first(lambda: new_store(store, index, info, active, **options))
            self.writer = made or DiscardingWriter(int(np.count_nonzero(active)))
            if made and (warning := info.update_rule.no_causal_reading(f"recording {made.path}")):
                logger.warning("%s", warning)
        else:
            self._groups.require_described_by(store)
            self.writer = store
        self._weights.hold()
        # A function, because the recording may be closed when the interpreter ends.
        self.writer.end_weights = self._weights.last_digest
        self._closed = False
        self._all_parameters = list(model.parameters())
        self._untrained = dict(self._weights.parameters)
        if self.writer.rows_appended:
            self._untrained = {name: self._untrained[name] for name in self.writer.untrained}
        self._started = self._has_skipped = False
        self._row: _Row | None = None
        self._measure: Measure | None = None
        self._watch = LoopWatch(model, inner_optimizer(optimizer), self._weights.parameters.values(), state)
        self._losses = StepLosses(self._watch, state, ranks)
        weakref.finalize(self, self._watch.close).atexit = False
        watch(self, self.writer, self._weights.parameters.values())

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
                be the same function of the weights as ``loss``.
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
        if scaler is not None:
            unscale(scaler, self._optimizer)
        self.begin_step(loss, measure, epoch=epoch, batch=batch)
        try:
            if scaler is None:
                self._optimizer.step()
            else:
                scaler.step(self._optimizer)
        except BaseException:
            self._drop_step()
            raise
        self._end_step()

    def begin_step(
        self, loss: torch.Tensor | None = None, measure: Measure | None = None, *, epoch: int = 0, batch: int = 0
    ) -> None:
        """The first half of :meth:`step`, for loops in which something else calls the optimizer; see there.

        Call it after the backward pass, then let ``optimizer.step()`` be called once, and call :meth:`end_step`. A step
        that has begun and is begun again, without an end, counts for nothing.
        """
        if self._watch.stepping:
            self._drop_step()
        value = None if loss is None else self._losses.value(loss)
        self._require_unchanged_weights()
        if self._row is not None and self._row.steps == self._stride:
            self.complete(_given(value))
        self._note_trained()
        self._groups.require_same()
        self._row = self._row or self._begin_row(value, measure, epoch, batch)
        measures = self._loss_change == "same-batch"
        self._losses.require_all_minibatches(measures=measures, given=value is not None)
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
            self._note_norms(self._row)
        self._end_step()

    def _end_step(self) -> None:
        if not self._watch.end_step():
            self._drop_step()
            if not self._has_skipped:
                self._has_skipped = True
                logger.warning("a step that the optimizer skipped makes no row; this is said once")
            return
        row = self._row
        assert row is not None
        self._started = True
        self._weights.after_step()
        row.steps += 1
        if row.steps < self._stride:
            return
        # On the CPU the difference goes straight into the writer's memory; from a GPU the writer copies it.
        row.delta = self._weights.row(
            torch.from_numpy(self.writer.row()) if self._weights.device.type == "cpu" else None
        )
        self._watch.keep_state = False
        if self._loss_change == "same-batch":
            assert self._measure is not None
            self.complete(self._losses.measured(self._measure))

    def _drop_step(self) -> None:
        """Forget a step that wasn't taken; a row that has no other step, too."""
        self._watch.end_step()
        if self._row is not None and not self._row.steps:
            self._row = self._measure = None
            self._watch.keep_state = False

    def _begin_row(self, value: float | torch.Tensor | None, measure: Measure | None, epoch: int, batch: int) -> _Row:
        row = _Row(math.nan, self._groups.lr, epoch, batch, math.nan, declared=self._groups.rates())
        self._note_norms(row)
        if self._loss_change == "same-batch":
            if measure is None:
                raise UsageError("Recorder.step", expected="measure, for same-batch", found="None")
            row.loss_before = self._losses.before(value, measure)
            if not self._started:
                change = expected_change(row.lr, row.grad_norm, row.declared)
                self._losses.require_repeatable(row.loss_before, measure, change)
        else:
            row.loss_before = _given(value)
            self._losses.require_no_draws()
        self._measure = measure
        return row

    def _note_norms(self, row: _Row) -> None:
        """Note the gradient of a row's first step."""
        row.grad_norm = gradient_norm(self._all_parameters)
        row.declared |= self._groups.norms()

    def _require_unchanged_weights(self) -> None:
        """Check that the weights are those after the last step; before the first one, note them."""
        if self._watch.unrecorded:
            raise UsageError(
                "Recorder.step",
                expected="to take every step of the optimizer",
                found="a call of optimizer.step()",
                remedy="leave it out, because Recorder.step calls it",
            )
        if self._started:
            # At the start of rows 1, 2, 4, 8 and so on.
            changed = self._weights.changed(thoroughly=self._row is None and not self.rows & (self.rows - 1))
            if changed is False:
                return
            error = UsageError(
                "weights",
                expected="those after the last recorded step",
                found="others",
                remedy="change weights in Recorder.step only, or go on in a new recording",
            )
            if not isinstance(changed, torch.Tensor):
                raise error
            self.writer.require_not(changed, error)
        else:
            self._weights.begin()

    def _note_trained(self) -> None:
        """Note which weights the coming step trains: those of the optimizer that have a gradient."""
        if not self._untrained:
            return
        trained = {id(p) for group in self._optimizer.param_groups for p in group["params"] if p.grad is not None}
        self._untrained = {name: p for name, p in self._untrained.items() if id(p) not in trained}
        total = len(self._weights.parameters)
        if len(self._untrained) == total:
            raise UsageError(
                "Recorder.step",
                expected="a recorded weight that is trained",
                found=f"{total} that are frozen, have no gradient or aren't given to the optimizer",
                remedy="call loss.backward() first, and look at requires_grad",
            )
        self.writer.untrained = tuple(self._untrained)

    def complete(self, loss_after: float | torch.Tensor | Measure) -> None:
        """Finish the current row with its loss after the step; only the last ``next-batch`` row needs this call.

        Args:
            loss_after: The loss of another minibatch, or what computes it: called without gradients, and nothing but
                the value remains of the forward pass.
        """
        if callable(loss_after):
            loss_after = self._losses.afterwards(loss_after)
        row, self._row, self._measure = self._row, None, None
        if row is None or row.delta is None:
            return
        self.writer.append(
            row.delta,
            loss_before=row.loss_before,
            loss_after=loss_after,
            lr=row.lr,
            epoch=row.epoch,
            batch=row.batch,
            grad_norm=row.grad_norm,
            **row.declared,
        )

    def pending(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """The row that still lacks its loss after the step, as tensors and JSON; empty between ``same-batch`` rows."""
        if self._row is None or self._row.delta is None:
            return {}, {}
        state = {k: v for k, v in vars(self._row).items() if k != "delta" and (v or k != "declared")}
        state |= {name: _number(value) for name, value in state.items() if isinstance(value, torch.Tensor)}
        if self._row.declared:
            state["declared"] = {name: _number(value) for name, value in self._row.declared.items()}
        return {"pending/delta": self._row.delta.to("cpu", copy=True)}, state

    def restore_pending(self, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        """Restore what :meth:`pending` returned."""
        if state:
            self._row = _Row(**state, delta=tensors["pending/delta"].to(self._weights.device))

    def close(self) -> None:
        """Store everything, mark the recording as complete, and release the store; once more does nothing.

        Raises:
            DataError: No row was recorded.
        """
        if not self._closed:
            self._closed = True
            self._watch.close()
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
            self._watch.close()
            self._closed = True
            self.writer.close()


def _number(value: float | torch.Tensor) -> float:
    """A value of a row, read from its device."""
    if not isinstance(value, torch.Tensor):
        return value
    return loss_value(value, "loss while recording", remedy="lower `lr` of the recording")


def _given(loss: float | torch.Tensor | None) -> float | torch.Tensor:
    if loss is None:
        raise UsageError("Recorder.step", expected="the loss, for next-batch", found="None")
    return loss
