"""Batches of image files that don't fit in memory, decoded by the workers of a DataLoader."""

from __future__ import annotations

import atexit
import multiprocessing
import multiprocessing.process
import signal
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch.utils.data import DataLoader, Dataset

from causalprune.base.errors import CausalpruneError, StorageError
from causalprune.base.signals import POSSIBLE_STOP_SIGNALS, parse_signals
from causalprune.data.augmentation import RandomCrops
from causalprune.data.images import ImageFiles
from causalprune.data.names import Augmentation

_workers: weakref.WeakSet[multiprocessing.process.BaseProcess] = weakref.WeakSet()


@dataclass(frozen=True)
class BatchJob:
    """One batch, and everything that determines its content.

    Attributes:
        indices: (B,) int64 positions in the split.
        augmentation: The augmentation of the images.
        seed: Seed of the augmentation.
        part: Which of the images to decode.
    """

    indices: torch.Tensor
    augmentation: Augmentation
    seed: int
    part: slice


def load_batches(
    files: ImageFiles, jobs: Sequence[BatchJob], *, num_workers: int, pin_memory: bool
) -> Iterator[torch.Tensor]:
    """Decode batches in the order of ``jobs``; each depends on its job alone, not on the number of workers.

    Args:
        files: The images of the split.
        jobs: What to decode.
        num_workers: Number of worker processes; 0 decodes in this process, with threads.
        pin_memory: Whether to put batches into pinned memory, from which a GPU copies faster.

    Yields:
        (B, C, H, W) uint8 on the CPU.

    Raises:
        CausalpruneError: An image can't be decoded.
        StorageError: A worker died.
    """
    loader = DataLoader(
        _DecodedBatches(files, jobs),
        batch_size=None,
        sampler=range(len(jobs)),
        num_workers=num_workers,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        # Without its own generator, the loader would draw a seed for its workers from the global one.
        generator=torch.Generator(),
    )
    before = set(multiprocessing.active_children())
    batches = iter(loader)
    _workers.update(set(multiprocessing.active_children()) - before)
    try:
        for _ in jobs:
            try:
                batch = next(batches)
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                raise StorageError(
                    "data loader",
                    expected=f"{num_workers} workers",
                    found=" ".join(str(error).split())[:200],
                    remedy="use fewer `num_workers`, or give them more (shared) memory",
                ) from error.with_traceback(None)
            if isinstance(batch, CausalpruneError):
                raise batch
            yield batch
    finally:
        # The loader ends its workers when it is collected; the traceback of an error must not keep it alive.
        del batches


class _DecodedBatches(Dataset[torch.Tensor | CausalpruneError]):
    def __init__(self, files: ImageFiles, jobs: Sequence[BatchJob]) -> None:
        self._files, self._jobs = files, jobs

    def __getitem__(self, number: int) -> torch.Tensor | CausalpruneError:
        job = self._jobs[number]
        transform = None
        if job.augmentation != "none":
            generator = torch.Generator().manual_seed(job.seed)
            # Drawn for the whole batch, so that it doesn't matter which process decodes which part.
            drawn = RandomCrops.draw(job.augmentation, len(job.indices), self._files.shape[1:], generator)
            transform = replace(drawn, uniform=drawn.uniform[job.part], flip=drawn.flip[job.part])
        try:
            return self._files.read(job.indices[job.part], transform)
        except CausalpruneError as error:
            # Returned, because the loader would wrap a raised error in a traceback of the worker.
            return error


def _start_worker(_: int) -> None:
    # A batch system signals every process of a job. The main process decides when to stop; its workers end with it.
    for number in parse_signals(",".join(POSSIBLE_STOP_SIGNALS)):
        signal.signal(number, signal.SIG_IGN)


@atexit.register
def _end_workers() -> None:
    # The workers of a loader that is still alive at exit are ended by multiprocessing, with a SIGTERM that they ignore,
    # and the wait for them would never end. They hold nothing that needs to be saved.
    alive = [worker for worker in _workers if worker.is_alive()]
    if alive:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for worker in alive:
        worker.kill()
