"""How every stage iterates over a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import torch

from causalprune.base.compute.inputs import Inputs, mapped
from causalprune.base.compute.runtime import Processes, keyed_seed
from causalprune.base.errors import DataError, MismatchError, UsageError
from causalprune.data.augmentation import CropFlip, to_device
from causalprune.data.datasets import DataSet, check_augmentation
from causalprune.data.images import ImageFiles
from causalprune.data.loading import BatchJob, load_batches
from causalprune.data.names import Augmentation
from causalprune.data.tasks.task import Batch

ALONE = Processes()

IMAGE_DIMENSIONS = 4
"""Of a batch of images, (B, C, H, W)."""


class Batches:
    """Batches of one split, normalized, on a device.

    The order of epoch e depends on (seed, e) alone, and the augmentation of a batch on (seed, e, step) alone.
    Therefore an interrupted epoch resumes bit for bit without replaying anything, the number of workers has no effect
    on the batches, and the global random state is never used. Random choices are drawn on the CPU, so that every
    device sees the same samples.

    Args:
        data: The data set.
        split: ``train``, ``validation`` or ``test``.
        batch_size: Samples per batch; the last batch of an epoch may be smaller.
        smallest: Least samples that a process can do with, 2 for batch normalization. If the last batch of an epoch
            has fewer for one of the processes, its samples join the batch before.
        device: Device of the batches. Splits in memory are copied there once, as they are stored.
        seed: Seed of the order and the augmentation.
        shuffle: Whether to draw a new order in each epoch, instead of the order of the split.
        augment: ``none``, ``crop``, ``crop-flip``, or ``auto`` for the usual augmentation of the data set. Images in
            memory are padded and cropped (:class:`~causalprune.data.augmentation.CropFlip`); image files get a random
            resized crop (:class:`~causalprune.data.augmentation.RandomCrops`).
        num_workers: Number of worker processes for image files that don't fit in memory.
        group: The processes that share each batch; this one gets its part.
        channels_last: Whether the channels of a pixel lie side by side in the memory of (B, C, H, W) inputs, an order
            in which a CPU takes less time for convolutions. Their values and their shape are the same.

    Attributes:
        steps_per_epoch: Number of batches in an epoch.

    Raises:
        UsageError: Features can't be cropped, or ``batch_size`` is too small for ``smallest``.
        DataError: The split has no sample, or too few for ``smallest``.
    """

    def __init__(
        self,
        data: DataSet,
        split: str,
        *,
        batch_size: int,
        device: torch.device | str,
        seed: int,
        shuffle: bool = True,
        augment: str = "none",
        num_workers: int = 0,
        group: Processes = ALONE,
        smallest: int = 1,
        channels_last: bool = False,
    ) -> None:
        check_augmentation(augment, data.input_shape)
        self._split = data.split(split)
        self._augmentation = data.augmentation if augment == "auto" else cast(Augmentation, augment)
        self._batch_size, self._num_workers = batch_size, num_workers
        self._seed, self._shuffle, self._group = seed, shuffle, group
        self._channels_last = channels_last
        self._device = torch.device(device)
        normalization = None if data.normalization is None else data.normalization.to(self._device)
        self._normalization = cast(Callable[[Inputs], Inputs] | None, normalization)
        target = data.task.target_normalization
        self._target_normalization = None if target is None else target.to(self._device)
        count = len(self._split)
        if count == 0:
            raise DataError(f"{split} split", expected="at least one sample", found="none")
        self.steps_per_epoch = -(-count // batch_size)
        if smallest > 1:
            self._require(smallest * group.count, split)
            self.steps_per_epoch -= 0 < count % batch_size < smallest * group.count

    def weight(self, step: int) -> float:
        """Weight n_r·R/n of the mean over this process's part of a batch, in the mean over the R processes.

        With these weights, the mean over the processes equals the mean over the n samples of the batch. A process
        without a sample of its own gets one with weight 0.
        """
        length = self._batch_length(step)
        part = self._group.share(length)
        share: int = part.stop - part.start
        return share * self._group.count / length

    def _require(self, samples: int, split: str) -> None:
        why = "each process needs 2, to normalize by the batch"
        if self._batch_size < samples:
            raise UsageError("`batch_size`", expected=f"at least {samples}: {why}", found=f"{self._batch_size}")
        if len(self._split) < samples:
            expected = f"at least {samples} samples: {why}"
            raise DataError(f"{split} split", expected=expected, found=f"{len(self._split)}")

    def _batch_length(self, step: int) -> int:
        begin = step * self._batch_size
        return len(self._split) - begin if step == self.steps_per_epoch - 1 else self._batch_size

    def _indices(self, order: torch.Tensor, step: int) -> torch.Tensor:
        begin = step * self._batch_size
        return order[begin : begin + self._batch_length(step)]

    def _part(self, step: int) -> slice:
        part = self._group.share(self._batch_length(step))
        return part if part.stop > part.start else slice(0, 1)

    def order(self, epoch: int) -> torch.Tensor:
        """(N,) int64: the positions in the split, in the order of epoch ``epoch``."""
        count = len(self._split)
        if not self._shuffle:
            return torch.arange(count)
        return torch.randperm(count, generator=_generator(self._seed, "order", epoch))

    def epoch(self, epoch: int, start: int = 0, every: int = 1) -> Iterator[Batch]:
        """Iterate over epoch ``epoch`` from batch ``start``, taking one batch of ``every``.

        Yields:
            Normalized float32 inputs, (B, C, H, W) or (B, F), or int64 tokens, or several inputs; and targets: int64
            labels (B,), for a regression standardized float32 values (B, K), or what another task has.

        Raises:
            MismatchError: The epoch has no batch ``start``.
            CausalpruneError: An image file can't be decoded, or a worker died.
        """
        if not 0 <= start <= self.steps_per_epoch:
            raise MismatchError(
                f"epoch {epoch}", expected=f"at most {self.steps_per_epoch} steps", found=f"a start at step {start}"
            )
        walk = self._from_files if isinstance(self._split.inputs, ImageFiles) else self._from_memory
        for inputs, targets in walk(epoch, range(start, self.steps_per_epoch, every), self.order(epoch)):
            if self._target_normalization is not None:
                targets = self._target_normalization(targets.reshape(len(targets), -1))
            if self._normalization is not None:
                inputs = self._normalization(inputs)
            if self._channels_last:
                inputs = mapped(_channels_last, inputs)
            yield inputs, targets

    def _from_memory(self, epoch: int, steps: range, order: torch.Tensor) -> Iterator[Batch]:
        all_inputs, all_targets = self._split.on(self._device)
        order = order.to(self._device)
        for step in steps:
            part = self._part(step)
            indices = self._indices(order, step)[part]
            inputs, targets = _chosen(all_inputs, indices), all_targets[indices]
            if self._augmentation != "none":
                assert isinstance(inputs, torch.Tensor)
                generator = _generator(self._seed, "augment", epoch, step)
                size = (inputs.shape[2], inputs.shape[3])
                # Drawn for the whole batch, so that it doesn't matter how many processes share it.
                drawn = CropFlip.draw(self._augmentation, self._batch_length(step), size, generator)
                inputs = drawn[part](inputs)
            yield inputs, targets

    def _from_files(self, epoch: int, steps: range, order: torch.Tensor) -> Iterator[Batch]:
        files, targets = cast(ImageFiles, self._split.inputs), self._split.targets
        jobs = [
            BatchJob(
                self._indices(order, step),
                self._augmentation,
                keyed_seed(self._seed, "augment", epoch, step),
                self._part(step),
            )
            for step in steps
        ]
        pin = self._device.type == "cuda"
        batches = load_batches(files, jobs, num_workers=self._num_workers, pin_memory=pin)
        for job, images in zip(jobs, batches, strict=True):
            labels = targets[job.indices[job.part]]
            yield images.to(self._device, non_blocking=True), to_device(labels, self._device)


def _chosen(inputs: Inputs, indices: torch.Tensor) -> Inputs:
    return mapped(lambda part: part[indices], inputs)


def _channels_last(part: torch.Tensor) -> torch.Tensor:
    # A copy: `contiguous` leaves a single channel as it is, and convolutions go by the strides.
    return part.clone(memory_format=torch.channels_last) if part.dim() == IMAGE_DIMENSIONS else part


def _generator(*keys: int | str) -> torch.Generator:
    return torch.Generator().manual_seed(keyed_seed(*keys))
