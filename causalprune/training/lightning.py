"""A callback that records what Lightning's Trainer does; the extra ``lightning`` brings that library."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from causalprune.base.errors import UsageError
from causalprune.base.paths import StoreUrl
from causalprune.training.recorder import Recorder

try:
    from lightning.pytorch import Callback
except ModuleNotFoundError as error:
    raise ImportError("RecorderCallback needs Lightning: pip install '.[lightning]'") from error


class RecorderCallback(Callback):  # type: ignore[misc]
    """Records every optimizer step of ``Trainer.fit``, whatever accumulates, clips, scales or schedules it.

    Both losses of a step are measured by calling ``training_step`` once more for each of its minibatches, without
    gradients: two more forward passes than without the callback. What ``training_step`` logs by ``self.log`` isn't
    logged again; if it does something else that may be done only once, such as updating a metric, pass ``loss``.

    Args:
        store: Where to create a trajectory store.
        loss: ``loss(module, batch)``, the loss that ``training_step`` returns for a minibatch; None to ask that itself.
        options: Of :class:`causalprune.Recorder`, such as ``columns`` or ``stride``; ``same-batch`` only.

    Attributes:
        recorder: The recorder, from the beginning of the training on.

    Raises:
        UsageError: When the training begins: several optimizers, a module that calls its optimizer itself, and what
            :class:`causalprune.Recorder` refuses.

    Example:
        ``Trainer(callbacks=[RecorderCallback("trajectory.zarr", overwrite=True)]).fit(module, data)``
    """

    def __init__(
        self,
        store: str | Path | StoreUrl,
        *,
        loss: Callable[[Any, Any], torch.Tensor] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if options.get("loss_change", "same-batch") != "same-batch":
            raise UsageError("RecorderCallback", expected="`loss_change=same-batch`", found=options["loss_change"])
        self._store, self._loss, self._options = store, loss, options
        self.recorder: Recorder | None = None
        self._batches: list[tuple[Any, int]] = []
        self._stepping = False

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin the recording."""
        count = len(trainer.optimizers)
        if count != 1 or not pl_module.automatic_optimization:
            raise UsageError(
                "RecorderCallback",
                expected="one optimizer, which the Trainer calls",
                found=f"{count} optimizers" if count != 1 else "a module with automatic_optimization=False",
                remedy="call causalprune.Recorder's step() in training_step, in place of the optimizer's",
            )
        self.recorder = Recorder(trainer.strategy.model, trainer.optimizers[0], self._store, **self._options)
        self._batches, self._stepping = [], False

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Remember a minibatch of the coming step."""
        del trainer, pl_module
        assert self.recorder is not None
        if not self._batches:
            self.recorder.begin_pass()
        self._batches.append((batch, batch_idx))

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Measure the loss before the step."""
        del optimizer
        assert self.recorder is not None
        measure = partial(self._measure, trainer, pl_module, self._batches)
        self.recorder.begin_step(measure=measure, epoch=trainer.current_epoch, batch=self._batches[-1][1])
        self._stepping = True

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Record the step, if this minibatch was its last."""
        del trainer, pl_module, outputs, batch, batch_idx
        if self._stepping:
            assert self.recorder is not None
            self.recorder.end_step()
            self._batches, self._stepping = [], False

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Finish the recording."""
        del trainer, pl_module
        assert self.recorder is not None
        self.recorder.close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Keep the rows so far."""
        del trainer, pl_module
        if self.recorder is not None:
            self.recorder.__exit__(type(exception), exception, None)

    def _measure(self, trainer: Any, module: Any, batches: list[tuple[Any, int]]) -> torch.Tensor:
        """The loss whose gradient the step follows; Lightning divides by as many minibatches as it accumulates."""
        with _silent(module):
            losses = [self._loss_of(trainer, module, *batch) for batch in batches]
        count: int = trainer.accumulate_grad_batches
        return torch.stack(losses).sum() / count

    def _loss_of(self, trainer: Any, module: Any, batch: Any, number: int) -> torch.Tensor:
        loss: torch.Tensor
        if self._loss is not None:
            with trainer.precision_plugin.train_step_context():
                loss = self._loss(module, batch)
        else:
            takes_number = len(inspect.signature(module.training_step).parameters) > 1
            output = trainer.strategy.training_step(batch, *([number] if takes_number else []))
            loss = output["loss"] if isinstance(output, dict) else output
        return loss


@contextmanager
def _silent(module: Any) -> Iterator[None]:
    """Nothing that ``training_step`` logs within the body is logged."""
    names = ("log", "log_dict")
    for name in names:
        vars(module)[name] = lambda *_, **__: None
    try:
        yield
    finally:
        for name in names:
            del vars(module)[name]
