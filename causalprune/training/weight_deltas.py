"""The recorded weights, flat: what a row of steps does to them, and whether anything else has changed them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.optim import Optimizer

from causalprune.base.errors import UsageError
from causalprune.models.mask import Mask
from causalprune.models.wrappers import named_parameters
from causalprune.training.columns import Columns
from causalprune.training.ranks import Writer
from causalprune.training.row import checked_thoroughly
from causalprune.trajectory.row_block import on_device


class WeightDeltas:
    """Reads the weights after each step, and subtracts those before the row.

    Args:
        model: The network; its pruned weights are set to zero by ``hold``, and after each step.
        mask: Which weights are kept.
        optimizer: What takes the steps.
        columns: Which weights have a column, and which columns are read.

    Attributes:
        parameters: The parameters with columns, by name.
        mask: Which of their weights have one.
        own: The columns that are read; None for all.
        device: Where they are.
        hold: Sets the pruned weights to zero.
        started: Whether the first step has been taken.
    """

    def __init__(self, model: nn.Module, mask: Mask, optimizer: Optimizer, columns: Columns) -> None:
        named = named_parameters(model)
        self.hold = mask.bind(model, optimizer)
        self._whole = mask
        self._others = {name: named[name] for name in columns.left_out}
        self.own = columns.own
        if columns.left_out:
            mask = mask.only([entry.name for entry in mask.index if entry.name not in columns.left_out])
        # Whether what is read is all that steps change, so that the weights as a whole are known from it.
        self._reads_all = self.own is None and columns.sample is None
        if columns.sample is not None:
            drawn = Mask.from_numpy(self._whole.index, columns.active)
            mask = drawn.only([entry.name for entry in mask.index])
        self.mask = mask
        self._index = mask.index
        self.parameters = {entry.name: named[entry.name] for entry in mask.index}
        first = next(iter(self.parameters.values()))
        self.device = first.device
        # Differences of float64 weights are formed before they are rounded to float32.
        dtype = torch.float64 if first.dtype == torch.float64 else torch.float32
        self._active: torch.Tensor | None = None
        count = mask.num_kept
        if count < mask.index.total or self.own is not None:
            positions = mask.keep.nonzero()[:, 0][self.own or slice(None)]
            self._active, count = positions.to(self.device), len(positions)
            self._flat = torch.empty(mask.index.total, dtype=dtype, device=self.device)
        self._before = torch.empty(count, dtype=dtype, device=self.device)
        self._after = torch.empty_like(self._before)
        self._last = self._before
        self.started = self._stays = False
        self._versions: list[int] = []
        self._other_versions: list[int] = []

    def digest(self) -> str:
        """Hash of all weights as they are, by ``ParameterIndex.digest``; pruned ones count as 0."""
        return self._whole.index.digest(self._kept(self.parameters | self._others))

    def last_digest(self) -> str:
        """Hash of all weights after the last step, whatever became of them since.

        Empty before the first step, and if weights that aren't read have changed since.
        """
        if not self._versions or self._other_versions != _versions(self._others):
            return ""
        if not self._reads_all:
            same = self._versions == _versions(self.parameters) and not bool(self._changed(thoroughly=True))
            return self.digest() if same else ""
        flat = self._last
        if self._active is not None:
            flat = torch.zeros_like(self._flat).index_copy_(0, self._active, self._last)
        return self._whole.index.digest(self._index.split(flat) | self._kept(self._others))

    def _kept(self, parameters: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Weights as they are, but 0 where they are pruned."""
        if not self._whole.num_pruned:
            return dict(parameters)
        keeps = self._whole.tensors()
        return {name: p.detach().where(keeps[name].to(p.device), 0.0) for name, p in parameters.items()}

    def stay(self) -> None:
        """Read the weights, which no step changes from now on."""
        self._stays = True
        self._begin()

    def before_step(self, writer: Writer, *, begins_row: bool) -> None:
        """Check that the weights are those after the last step; before the first one, read them.

        Args:
            writer: Refuses weights on a GPU before it commits the coming row, so that nobody waits for them here.
            begins_row: Whether the step is the first one of the coming row.

        Raises:
            UsageError: They are others.
        """
        if self.started or self._stays:
            self._require_unchanged(writer, thoroughly=begins_row and checked_thoroughly(writer.rows_appended))
        else:
            self._begin()
        self.hold.before_step()

    def after_step(self) -> None:
        """Read the weights after a step of the optimizer."""
        self.started = True
        self.hold()
        self._read(self._after)
        self._note(self._after)

    def row(self, out: torch.Tensor | None) -> torch.Tensor:
        """Δθ (own columns,) of the steps since the row began, which ends.

        Args:
            out: Where to put it, float32; None for a tensor that is valid until the next step.
        """
        # The two buffers swap roles, because new memory for each row would cost more than the subtraction.
        delta = torch.sub(self._after, self._before, out=self._before if out is None else out)
        self._before, self._after = self._after, self._before
        return delta

    def _begin(self) -> None:
        self._read(self._before)
        self._note(self._before)

    def _require_unchanged(self, writer: Writer, *, thoroughly: bool) -> None:
        changed = self._changed(thoroughly)
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
        writer.require_not(changed, error)

    def _changed(self, thoroughly: bool) -> torch.Tensor | bool:
        """Whether the weights are others than after the last step; on a GPU a tensor.

        Args:
            thoroughly: Compare them; otherwise only if PyTorch has counted a change. It counts none to ``data``.
        """
        if not thoroughly and self._versions == _versions(self.parameters):
            return False
        now = torch.empty_like(self._last)
        self._read(now)
        if on_device(now):
            return ((now != self._last) & ~(now.isnan() & self._last.isnan())).any()
        return not torch.equal(now, self._last) and not torch.equal(now.nan_to_num(), self._last.nan_to_num())

    def _read(self, out: torch.Tensor) -> None:
        if self._active is None:
            self._index.flatten(self.parameters, out=out)
        else:
            torch.index_select(self._index.flatten(self.parameters, out=self._flat), 0, self._active, out=out)

    def _note(self, weights: torch.Tensor) -> None:
        self._last = weights
        self._versions, self._other_versions = _versions(self.parameters), _versions(self._others)


def _versions(parameters: Mapping[str, torch.Tensor]) -> list[int]:
    """How often PyTorch has counted a change of each."""
    return [parameter._version for parameter in parameters.values()]
