"""Published data sets: those that come with scikit-learn, and those that torchvision downloads."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from causalprune.base.errors import CorruptError, DataError, StorageError
from causalprune.base.files import require_file
from causalprune.base.specs import DataSpec
from causalprune.data.names import Augmentation
from causalprune.data.splits import RawData, Split, data_in_memory


def digits(_: DataSpec) -> RawData:
    """1,797 handwritten digits, 8×8 gray pixels with their original 17 levels, 0 to 16, as uint8."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return _bundled(bunch.images.astype(np.uint8)[:, None], bunch.target.astype(np.int64), bunch.target_names)


def breast_cancer(_: DataSpec) -> RawData:
    """569 tumors with 30 features, 2 classes."""
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    return _bundled(bunch.data.astype(np.float32), bunch.target.astype(np.int64), bunch.target_names)


def diabetes(_: DataSpec) -> RawData:
    """442 patients with 10 features in original units; regression of the disease progression after one year."""
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes(scaled=False)
    return _bundled(bunch.data.astype(np.float32), bunch.target.astype(np.float32))


def _bundled(x: np.ndarray, y: np.ndarray, class_names: Iterable[object] = ()) -> RawData:
    """None of scikit-learn's data sets has a published test split."""
    return data_in_memory(Split(torch.from_numpy(x), torch.from_numpy(y)), None, tuple(map(str, class_names)))


def _torchvision(
    class_name: str, marker: str, shape: tuple[int, ...], augmentation: Augmentation, spec: DataSpec
) -> RawData:
    """Read a data set that torchvision keeps in memory.

    Args:
        class_name: Its class in torchvision.
        marker: A file that shows whether the data set is present.
        shape: Shape of one sample in that class.
        augmentation: The augmentation that is usual in the literature.
        spec: Its folder, and whether missing files may be downloaded.

    Raises:
        UsageError: No folder was given.
        DataError: Files are missing, or couldn't be downloaded.
        CorruptError: Files are damaged.
        StorageError: A file can't be read or written.
    """
    root = spec.folder()
    parts = [
        _load(class_name, root, marker, train=True, download=spec.download),
        _load(class_name, root, marker, train=False, download=False),
    ]
    train, test = (_split(part, shape, root, class_name) for part in parts)
    return data_in_memory(train, test, tuple(parts[0].classes), augmentation)


mnist = partial(_torchvision, "MNIST", "MNIST/raw/train-images-idx3-ubyte", (28, 28), "none")
"""70,000 handwritten digits, 28×28 gray."""

fashion_mnist = partial(_torchvision, "FashionMNIST", "FashionMNIST/raw/train-images-idx3-ubyte", (28, 28), "crop-flip")
"""70,000 articles of clothing, 28×28 gray."""

cifar10 = partial(_torchvision, "CIFAR10", "cifar-10-batches-py/data_batch_1", (32, 32, 3), "crop-flip")
"""60,000 photographs, 32×32, 10 classes."""

cifar100 = partial(_torchvision, "CIFAR100", "cifar-100-python/train", (32, 32, 3), "crop-flip")
"""60,000 photographs, 32×32, 100 classes."""


def _load(class_name: str, root: Path, marker: str, *, train: bool, download: bool) -> Any:
    import torchvision.datasets

    subject, path = f"data set {class_name}", root / marker
    if not path.exists() and not download:
        raise DataError(
            subject,
            expected=f"torchvision's files such as {path}",
            found="no such file",
            remedy="pass the folder that holds them as `data_root`, or `download`",
        )
    for file in path.parent.iterdir() if path.parent.is_dir() else ():
        if not file.is_dir():
            require_file(file, expected="a file of the data set", remedy="remove it")
    try:
        return getattr(torchvision.datasets, class_name)(str(root), train=train, download=download)
    except PermissionError as error:
        raise StorageError(subject, expected=f"permission for {root}", found=str(error)) from error
    except Exception as error:
        # torchvision reports damage as RuntimeError, AssertionError, ValueError and others. OSErrors of urllib have no
        # file name; those of the file system have one.
        from_network = isinstance(error, OSError) and error.filename is None
        if isinstance(error, OSError) and not from_network:
            raise StorageError(subject, expected=f"room and permission in {root}", found=str(error)) from error
        found = str(error).partition("\n")[0][:150] or type(error).__name__
        if from_network or (download and not path.exists()):
            raise DataError(subject, expected="a download", found=found, remedy="check the network") from error
        raise CorruptError(
            subject,
            expected=f"its intact files in {path.parent}",
            found=found,
            remedy="remove that folder and pass `download`, or pass another `data_root`",
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
