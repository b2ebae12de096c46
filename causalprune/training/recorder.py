"""Record any training loop: a row of signed parameter deltas Δθ and a loss change ΔL for each optimizer step."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from causalprune.base.compute.precision import rounds_factors
from causalprune.base.errors import UsageError
from causalprune.base.paths import StoreUrl
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex
from causalprune.training.held_steps import HeldSteps
from causalprune.training.loop_watch import LoopWatch
from causalprune.training.metrics import loss_value
from causalprune.training.new_store import new_store
from causalprune.training.options import DEFAULT_HOLD_SHARE
from causalprune.training.pass_state import PassState
from causalprune.training.vanished_deltas import VanishedDeltas
from causalprune.training.weight_deltas import WeightDeltas
from causalprune.trajectory import RecordingInfo, RecordingWriter
from causalprune.trajectory.schema import EXPECTED_ROWS
from causalprune.trajectory.steps import HOLD_SHARE, ROUNDINGS, STEP_EXTRAS, UpdateRule

LossChange = Literal["same-batch", "next-batch"]
Measure = Callable[[], torch.Tensor]

REPEATABLE_SHARE = 0.01
"""By how much of η‖g‖², the change that a step of SGD brings about, the same loss may differ when it is measured
twice."""

ROUNDING = ROUNDINGS * torch.finfo(torch.float32).eps
"""By how much it may differ in any case, relative to a loss above 1."""


@dataclass
class _Row:
    """A row whose loss after its steps isn't known yet."""

    loss_before: float
    lr: float
    epoch: int
    batch: int
    grad_norm: float
    steps: int = 0
    delta: torch.Tensor | None = None


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
    than rounding and :data:`REPEATABLE_SHARE` of η‖g‖², the network or ``measure`` can't be repeated, and is refused.

    Args:
        model: What the loop calls. Its Linear and Conv weights are recorded, in the order of :class:`ParameterIndex`;
            their names don't change when ``torch.compile``, DataParallel or DistributedDataParallel wraps the network.
        optimizer: With one parameter group; a fit is meaningful for SGD only.
        store: Where to create a trajectory store, a path or ``s3://BUCKET/KEY``; or the writer of a recording in an
            existing store.
        max_rows: How many rows are expected, so that a short recording takes less memory. More are recorded all the
            same; 0 if unknown.
        mask: Pruned parameters are set to 0.0 after each step and aren't stored. None keeps all but what
            ``torch.nn.utils.prune`` has pruned.
        loss_change: ``same-batch``: the loss of this minibatch after the step minus the loss before, at the cost of
            another forward pass; ``next-batch``: the loss of the next minibatch minus the loss of this one, where the
            network must draw nothing, because two minibatches can't share it.
        stride: Optimizer steps per row: Δθ is over all of them, ΔL on the minibatch of the first.
        codec: ``exact``, ``balanced`` or ``small``.
        batch_size: Only noted in the recording.
        seed: Only noted in the recording.
        hold: Whether the network stays as it is, bit for bit, from now on. The optimizer takes no step; each row is a
            step −ηg of the recorded weights alone that is tried on copies of them, and its losses are computed by
            ``measure`` in float64, where the network can (:mod:`causalprune.training.held_steps`). The buffers are put
            back, too. For plain SGD with the other options at their defaults.
        hold_share: η‖g‖² of a held step, as a share of the loss.
        overwrite: Whether to replace a store that is there already, also one that an earlier recorder of this process
            has left open. If the constructor fails, no new store is left behind.

    Raises:
        UsageError: Several parameter groups, or a store that is there already.

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
        codec: str = "balanced",
        batch_size: int = 1,
        seed: int = 0,
        hold: bool = False,
        hold_share: float = DEFAULT_HOLD_SHARE,
        overwrite: bool = False,
    ) -> None:
        if len(optimizer.param_groups) != 1:
            raise UsageError("Recorder", expected="one parameter group", found=f"{len(optimizer.param_groups)} groups")
        self._model, self._optimizer = model, optimizer
        self._index = ParameterIndex.from_model(model)
        self._mask = mask or Mask.of_model(model, self._index)
        self._loss_change, self._stride = loss_change, stride
        group = optimizer.param_groups[0]
        extra = {name: group[name] for name in STEP_EXTRAS if group.get(name)}
        rule = UpdateRule(
            optimizer=type(optimizer).__name__.lower(),
            momentum=float(group.get("momentum", 0.0)),
            stride=stride,
            loss_change=loss_change,
            **extra,
        )
        if hold:
            _require_holdable(rule, hold_share)
            extra = {HOLD_SHARE: float(hold_share)}
        self._weights, self._state = WeightDeltas(model, self._mask), PassState(model)
        if rounds_factors(self._weights.device.type):
            warnings.warn(
                "float32 products are rounded to TensorFloat-32 or bfloat16, which shows in ΔL: run the loop within "
                "causalprune.base.compute.precision.full_precision()",
                stacklevel=2,
            )
        # After everything that can fail.
        if isinstance(store, (str, Path, StoreUrl)):
            info = RecordingInfo(
                optimizer=rule.optimizer,
                lr=float(group["lr"]),
                momentum=rule.momentum,
                loss_change=loss_change,
                stride=stride,
                batch_size=batch_size,
                seed=seed,
                start_weights=self._weights.digest(),
                extra=extra,
            )
            expected = int(max_rows) or EXPECTED_ROWS
            store = new_store(
                store, self._index, info, self._mask.numpy(), max_rows=expected, codec=codec, overwrite=overwrite
            )
        self.writer = store
        self._weights.hold()
        self._held = HeldSteps(model, self._weights.parameters, self._mask, hold_share) if hold else None
        if hold:
            self._weights.begin()
        self._vanished = VanishedDeltas(self._weights.parameters, self._mask)
        # A function, because the recording may be closed when the interpreter ends.
        self.writer.end_weights = self._weights.last_digest
        self._closed = False
        self._all_parameters = list(model.parameters())
        self._untrained = dict(self._weights.parameters)
        if self.writer.rows_appended:
            self._untrained = {name: self._untrained[name] for name in self.writer.untrained}
        self._started = False
        self._row: _Row | None = None
        self._measure: Measure | None = None
        self._watch = LoopWatch(model, optimizer, self._weights.parameters.values(), self._state)
        weakref.finalize(self, self._watch.close).atexit = False

    @property
    def rows(self) -> int:
        """Number of complete rows so far."""
        return self.writer.rows_appended

    def step(self, loss: torch.Tensor, measure: Measure | None = None, *, epoch: int = 0, batch: int = 0) -> None:
        """Take and record one optimizer step; call it after ``loss.backward()``.

        Args:
            loss: Loss of the minibatch before the step, a scalar; of all minibatches whose gradients were added up.
            measure: Computes the same loss again; called without gradients, for ``same-batch`` only.
            epoch: Only noted in the recording.
            batch: Number of the minibatch in the epoch, only noted in the recording.

        Raises:
            UsageError: The weights changed since the last step, other than by it; no recorded weight has a gradient;
                gradients of more minibatches than are measured; or a loss that can't be measured again.
            DataError: A loss or a delta isn't finite.
        """
        value = _finite(loss)
        self._require_unchanged_weights()
        if self._row is not None and self._row.steps == self._stride:
            self.complete(value)
        self._note_trained()
        row = self._row or self._begin(value, measure, epoch, batch)
        self._require_one_minibatch()
        if self._held is not None:
            self._try(self._held, row)
            return
        self._row, self._started, self._watch.keep_state = row, True, True
        with self._watch.own_step():
            self._optimizer.step()
        self._weights.after_step()
        row.steps += 1
        if row.steps < self._stride:
            return
        row.delta = self._weights.row(self._memory())
        if self._stride == 1 and not self.rows & (self.rows - 1):
            self._vanished.count(self.writer, row.delta)
        self._watch.keep_state = False
        if self._loss_change == "same-batch":
            assert self._measure is not None
            self.complete(self._measured(self._measure))

    def _try(self, held: HeldSteps, row: _Row) -> None:
        """Record a step that is taken back."""
        assert self._measure is not None
        self._started = True
        with self._watch.own_step():
            step = held.take(self._measure, self._measured, draws=self._state.drew(), out=self._memory())
        if held.precision != "float64":
            self.writer.noted = {**self.writer.noted, "precision": held.precision}
        self._measure = None
        self.writer.append(**vars(step), epoch=row.epoch, batch=row.batch)

    def _memory(self) -> torch.Tensor | None:
        """The writer's memory of the coming row; None on a GPU, from which the writer copies the row."""
        return torch.from_numpy(self.writer.row()) if self._weights.device.type == "cpu" else None

    def _begin(self, value: float, measure: Measure | None, epoch: int, batch: int) -> _Row:
        """Begin a row, before its first step."""
        gradients = [p.grad for p in self._all_parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients).item()
        lr = float(self._optimizer.param_groups[0]["lr"])
        if self._loss_change == "same-batch":
            if measure is None:
                raise UsageError("Recorder.step", expected="measure, for same-batch", found="None")
            if not self._watch.forwards:
                self._state.save()
                value = self._measured(measure)
            if not self._started:
                change = lr * norm**2 if self._held is None else self._held.share * abs(value)
                self._require_repeatable(value, measure, change)
        elif self._watch.forwards and self._state.drew():
            raise UsageError(
                "network",
                expected="one that draws no random numbers, which the two losses of a next-batch row can't share",
                found="one that does",
                remedy="use `loss_change=same-batch`, or in a loop of your own, "
                "causalprune.models.modes.disable_dropout(model)",
            )
        self._measure = measure
        return _Row(value, lr, epoch, batch, norm)

    def _measured(self, measure: Measure) -> float:
        """A loss in the saved state; nothing but the value remains of the pass."""
        with torch.no_grad(), self._watch.measuring(), self._state.repeated():
            value = _finite(measure())
        if self._watch.other_mode:
            raise UsageError(
                "measure",
                expected="the same loss as before the step",
                found="modules in another mode",
                remedy="call neither train() nor eval() in it",
            )
        return value

    def _require_repeatable(self, value: float, measure: Measure, change: float) -> None:
        again = self._measured(measure)
        if abs(again - value) > max(REPEATABLE_SHARE * change, ROUNDING * max(1.0, abs(value))):
            raise UsageError(
                "loss while recording",
                expected=f"{value:.9g} again when it is measured a second time without a step",
                found=f"{again:.9g}",
                remedy="let `measure` compute the same loss of the same minibatch, with the same autocast and scale, "
                "and the network draw from generators of PyTorch, Python or NumPy",
            )

    def _require_one_minibatch(self) -> None:
        """Refuse gradients of more passes than the loss is measured by."""
        watch = self._watch
        measured = watch.measured if self._loss_change == "same-batch" else 1
        if watch.backwards > 1 and measured < min(watch.backwards, watch.forwards or watch.backwards):
            remedy = "pass the sum of their losses, and a `measure` that computes it from all of them"
            raise UsageError(
                "Recorder.step",
                expected="the loss of all minibatches whose gradients were added up",
                found=f"{watch.backwards} backward passes and a loss of {measured} forward passes",
                remedy=remedy if watch.forwards else "let the loop call the model that Recorder was made with",
            )

    def _require_unchanged_weights(self) -> None:
        """Check that the weights are those after the last step; before the first one, note them."""
        if self._watch.unrecorded:
            raise UsageError(
                "Recorder.step",
                expected="to take every step of the optimizer",
                found="a call of optimizer.step()",
                remedy="leave it out, because Recorder.step calls it",
            )
        if self._started or self._held is not None:
            # At the start of rows 1, 2, 4, 8 and so on.
            self._weights.require_unchanged(thoroughly=self._row is None and not self.rows & (self.rows - 1))
        else:
            self._weights.begin()

    def _note_trained(self) -> None:
        """Note which weights the coming step trains: those of the optimizer that have a gradient."""
        if not self._untrained:
            return
        trained = {id(p) for group in self._optimizer.param_groups for p in group["params"] if p.grad is not None}
        self._untrained = {name: p for name, p in self._untrained.items() if id(p) not in trained}
        if len(self._untrained) == len(self._index):
            raise UsageError(
                "Recorder.step",
                expected="a Linear or Conv weight that is trained",
                found=f"{len(self._index)} that are frozen, have no gradient or aren't given to the optimizer",
                remedy="call loss.backward() first, and look at requires_grad",
            )
        self.writer.untrained = tuple(self._untrained)

    def complete(self, loss_after: float | Measure) -> None:
        """Finish the current row with its loss after the step; only the last ``next-batch`` row needs this call.

        Args:
            loss_after: The loss of another minibatch, or what computes it: called without gradients, and nothing but
                the value remains of the forward pass.
        """
        if callable(loss_after):
            self._state.save()
            loss_after = self._measured(loss_after)
        row, self._row, self._measure = self._row, None, None
        if row is None or row.delta is None:
            return
        noted = {name: value for name, value in vars(row).items() if name not in ("delta", "steps")}
        self.writer.append(row.delta, loss_after=loss_after, **noted)

    def pending(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """The row that still lacks its loss after the step, as tensors and JSON; empty between ``same-batch`` rows."""
        if self._row is None or self._row.delta is None:
            return {}, {}
        state = {k: v for k, v in vars(self._row).items() if k != "delta"}
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
            self._release()
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
            self._closed = True
            self.writer.close()

    def _release(self) -> None:
        self._watch.close()
        if self._held is not None:
            self._held.put_back()


def _require_holdable(rule: UpdateRule, share: float) -> None:
    """Refuse what no step that is taken back can be.

    Raises:
        UsageError: Another optimizer than plain SGD, a stride, ``next-batch`` losses, or a share out of range.
    """
    if not 0 < share < 1:
        raise UsageError("`hold_share`", expected="a number in (0, 1)", found=f"{share}")
    found = rule.against_gradients() or ("" if rule.loss_change == "same-batch" else f"{rule.loss_change} losses")
    if found:
        raise UsageError(
            "`hold`",
            expected="plain SGD with `stride=1, loss_change=same-batch`, because every step is taken back",
            found=found,
            remedy="in a loop of your own pass torch.optim.SGD(model.parameters()), which takes no step",
        )


def _finite(loss: torch.Tensor) -> float:
    return loss_value(loss, "loss while recording", remedy="lower `lr` of the recording")
