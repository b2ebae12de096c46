"""MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100 from the files that torchvision knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from causalprune.data.names import DATASETS
from causalprune.data.splits import RawData, Split
from causalprune.data.statistics import fingerprint_tensors
from causalprune.errors import CorruptError, DataError, StorageError

CLASSES = {
    "mnist": ("MNIST", "MNIST/raw/train-images-idx3-ubyte", (28, 28)),
    "fashion-mnist": ("FashionMNIST", "FashionMNIST/raw/train-images-idx3-ubyte", (28, 28)),
    "cifar10": ("CIFAR10", "cifar-10-batches-py/data_batch_1", (32, 32, 3)),
    "cifar100": ("CIFAR100", "cifar-100-python/train", (32, 32, 3)),
}
"""torchvision's class, a file that tells whether the data set is there, and the shape of one sample in it."""


def read_torchvision(name: str, root: Path, *, download: bool) -> RawData:
    """Read a data set that torchvision keeps in memory.

    Args:
        name: A key of :data:`CLASSES`.
        root: The folder that torchvision calls ``root``.
        download: Fetch missing files.

    Raises:
        DataError: Files are missing, or couldn't be downloaded.
        CorruptError: Files are damaged.
        StorageError: A file can't be read or written.
    """
    class_name, marker, shape = CLASSES[name]
    train = _load(class_name, root, marker, train=True, download=download)
    test = _load(class_name, root, marker, train=False, download=False)
    splits = [_split(part, shape, root, class_name) for part in (train, test)]
    class_names = tuple(train.classes)
    tensors = {
        "x_train": splits[0].inputs,
        "y_train": splits[0].targets,
        "x_test": splits[1].inputs,
        "y_test": splits[1].targets,
    }
    fingerprint = fingerprint_tensors(tensors, class_names)  # type: ignore[arg-type]
    return RawData("classification", splits[0], splits[1], class_names, fingerprint, DATASETS[name].augmentation)


def _load(class_name: str, root: Path, marker: str, *, train: bool, download: bool) -> Any:
    import torchvision.datasets

    path = root / marker
    if not path.exists() and not download:
        raise DataError(
            f"data set {class_name}",
            expected=f"torchvision's files such as {path}",
            found="no such file",
            remedy="pass the folder that holds them as --data-root, or --download",
        )
    try:
        return getattr(torchvision.datasets, class_name)(str(root), train=train, download=download)
    except PermissionError as error:
        raise StorageError(f"data set {class_name}", expected=f"permission for {root}", found=str(error)) from error
    except OSError as error:
        # urllib's errors are OSErrors without a file name; those of the file system have one.
        if error.filename is None:
            raise DataError(
                f"data set {class_name}", expected="a download", found=str(error)[:150], remedy="check the network"
            ) from error
        raise StorageError(
            f"data set {class_name}", expected=f"room and permission in {root}", found=str(error)
        ) from error
    except Exception as error:
        # torchvision reports damage as RuntimeError, AssertionError, ValueError and others.
        found = str(error).partition("\n")[0][:150] or type(error).__name__
        if download and not path.exists():
            raise DataError(
                f"data set {class_name}", expected="a download", found=found, remedy="check the network"
            ) from error
        raise CorruptError(
            f"data set {class_name}",
            expected=f"its intact files in {path.parent}",
            found=found,
            remedy="remove that folder and pass --download, or pass another --data-root",
        ) from error


def _split(part: Any, shape: tuple[int, ...], root: Path, class_name: str) -> Split:
    images = torch.as_tensor(part.data)
    labels = torch.as_tensor(np.asarray(part.targets), dtype=torch.int64)
    if tuple(images.shape[1:]) != shape or images.dtype != torch.uint8 or len(images) != len(labels):
        raise CorruptError(
            f"data set {class_name} in {root}",
            expected=f"uint8 images of {shape} and as many labels",
            found=f"{images.dtype} {tuple(images.shape)} and {len(labels)} labels",
        )
    images = images.permute(0, 3, 1, 2).contiguous() if images.ndim == 4 else images[:, None]
    return Split(images, labels)
