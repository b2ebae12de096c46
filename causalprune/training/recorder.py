"""Record any training loop: a row of signed parameter deltas Δθ and a loss change ΔL for each optimizer step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from torch.optim import Optimizer

from causalprune.base.errors import UsageError
from causalprune.base.paths import StoreUrl
from causalprune.models.mask import Mask
from causalprune.models.modes import frozen_batch_statistics
from causalprune.models.parameters import ParameterIndex
from causalprune.training.metrics import loss_value
from causalprune.training.new_store import new_store
from causalprune.trajectory import RecordingInfo, RecordingWriter
from causalprune.trajectory.schema import EXPECTED_ROWS
from causalprune.trajectory.steps import STEP_EXTRAS

LossChange = Literal["same-batch", "next-batch"]
Measure = Callable[[], torch.Tensor]


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
    Parameters may change in :meth:`step` only. Dropout must be off (:func:`disable_dropout`), because it would differ
    between the two losses of a step; dropout outside dropout modules goes unnoticed. BatchNorm normalizes the second
    forward pass by the statistics of the minibatch, and its running averages stay as they are.

    Args:
        model: Its Linear and Conv weights are recorded, in the order of :class:`ParameterIndex`.
        optimizer: With one parameter group; a fit is meaningful for SGD only.
        store: Where to create a trajectory store, a path or ``s3://BUCKET/KEY``; or the writer of a recording in an
            existing store.
        max_rows: How many rows are expected, so that a short recording takes less memory. More are recorded all the
            same; 0 if unknown.
        mask: Pruned parameters are set to 0.0 after each step and aren't stored. None keeps all.
        loss_change: ``same-batch``: the loss of this minibatch after the step minus the loss before, at the cost of
            another forward pass; ``next-batch``: the loss of the next minibatch minus the loss of this one.
        stride: Optimizer steps per row: Δθ is over all of them, ΔL on the minibatch of the first.
        codec: ``exact``, ``balanced`` or ``small``.
        batch_size: Only noted in the recording.
        seed: Only noted in the recording.
        overwrite: Whether to replace a store that is there already, also one that an earlier recorder of this process
            has left open. If the constructor fails, no new store is left behind.

    Raises:
        UsageError: Several parameter groups, active dropout, or a store that is there already.
        DataError: A loss or a delta isn't finite.

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
        overwrite: bool = False,
    ) -> None:
        if len(optimizer.param_groups) != 1:
            raise UsageError("Recorder", expected="one parameter group", found=f"{len(optimizer.param_groups)} groups")
        self._model, self._optimizer = model, optimizer
        self._index = ParameterIndex.from_model(model)
        self._mask = mask or Mask.all(self._index)
        self._loss_change, self._stride = loss_change, stride
        parameters = dict(model.named_parameters(remove_duplicate=False))
        self._parameters = {entry.name: parameters[entry.name] for entry in self._index}
        device = next(iter(self._parameters.values())).device
        self._active: torch.Tensor | None = None
        if self._mask.num_kept < self._index.total:
            self._active = self._mask.keep.nonzero()[:, 0].to(device)
            self._flat = torch.empty(self._index.total, dtype=torch.float32, device=device)
        self._hold = self._mask.bind(model)
        self._before = torch.empty(self._mask.num_kept, dtype=torch.float32, device=device)
        self._after = torch.empty_like(self._before)
        # Behind everything that can fail.
        if isinstance(store, (str, Path, StoreUrl)):
            group = optimizer.param_groups[0]
            info = RecordingInfo(
                optimizer=type(optimizer).__name__.lower(),
                lr=float(group["lr"]),
                momentum=float(group.get("momentum", 0.0)),
                loss_change=loss_change,
                stride=stride,
                batch_size=batch_size,
                seed=seed,
                extra={name: group[name] for name in STEP_EXTRAS if group.get(name)},
            )
            expected = int(max_rows) or EXPECTED_ROWS
            store = new_store(
                store, self._index, info, self._mask.numpy(), max_rows=expected, codec=codec, overwrite=overwrite
            )
        self.writer = store
        self._closed = False
        self._hold()
        self._read_weights(self._before)
        self._row: _Row | None = None
        self._measure: Measure | None = None

    @property
    def rows(self) -> int:
        """Number of complete rows so far."""
        return self.writer.rows_appended

    def step(self, loss: torch.Tensor, measure: Measure | None = None, *, epoch: int = 0, batch: int = 0) -> None:
        """Take and record one optimizer step; call it after ``loss.backward()``.

        Args:
            loss: Loss of the minibatch before the step, a scalar.
            measure: Computes the same loss again; called without gradients, for ``same-batch`` only.
            epoch: Only noted in the recording.
            batch: Number of the minibatch in the epoch, only noted in the recording.
        """
        value = _finite(loss)
        if self._row is not None and self._row.steps == self._stride:
            self.complete(value)
        if self._row is None:
            if self._loss_change == "same-batch" and measure is None:
                raise UsageError("Recorder.step", expected="measure, for same-batch", found="None")
            if any(isinstance(m, _DropoutNd) and m.training and m.p > 0 for m in self._model.modules()):
                raise UsageError(
                    "dropout",
                    expected="off while recording, because it differs between the two losses of a step",
                    found="on",
                    remedy="call causalprune.training.recorder.disable_dropout(model)",
                )
            gradients = [p.grad for p in self._model.parameters() if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients).item()
            lr = float(self._optimizer.param_groups[0]["lr"])
            self._row, self._measure = _Row(value, lr, epoch, batch, norm), measure
        self._optimizer.step()
        self._hold()
        self._row.steps += 1
        if self._row.steps < self._stride:
            return
        self._read_weights(self._after)
        # On the CPU the difference goes straight into the writer's memory; from a GPU the writer copies it. The two
        # buffers swap roles, because new memory for each row would cost more than the subtraction.
        on_cpu = self._before.device.type == "cpu"
        out = torch.from_numpy(self.writer.row()) if on_cpu else self._before
        self._row.delta = torch.sub(self._after, self._before, out=out)
        self._before, self._after = self._after, self._before
        if self._loss_change == "same-batch":
            assert self._measure is not None
            with torch.no_grad(), frozen_batch_statistics(self._model):
                self.complete(_finite(self._measure()))

    def complete(self, loss_after: float) -> None:
        """Finish the current row with its loss after the step; only the last ``next-batch`` row needs this call."""
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
            self._row = _Row(**state, delta=tensors["pending/delta"].to(self._before.device))

    def close(self) -> None:
        """Store everything, mark the recording as complete, and release the store; once more does nothing.

        Raises:
            DataError: No row was recorded.
        """
        if not self._closed:
            self._closed = True
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
            self._closed = True
            self.writer.close()

    def _read_weights(self, out: torch.Tensor) -> None:
        if self._active is None:
            self._index.flatten(self._parameters, out=out)
        else:
            torch.index_select(self._index.flatten(self._parameters, out=self._flat), 0, self._active, out=out)


def disable_dropout(model: nn.Module) -> None:
    """Put each dropout module into evaluation mode; the other modules keep their mode."""
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.eval()


def _finite(loss: torch.Tensor) -> float:
    return loss_value(loss, "loss while recording", remedy="lower `lr` of the recording")
