"""Published data sets: those that scikit-learn brings with it, and those that torchvision downloads."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from causalprune.base.errors import CorruptError, DataError, StorageError
from causalprune.base.specs import DataSpec
from causalprune.data.names import Augmentation
from causalprune.data.splits import RawData, Split, fingerprint_tensors


def digits(_: DataSpec) -> RawData:
    """1,797 handwritten digits of 8×8 gray pixels, which keep their 17 levels, 0 to 16, as uint8."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return _bundled(bunch.images.astype(np.uint8)[:, None], bunch.target.astype(np.int64), bunch.target_names)


def breast_cancer(_: DataSpec) -> RawData:
    """569 tumors with 30 features, 2 classes."""
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    return _bundled(bunch.data.astype(np.float32), bunch.target.astype(np.int64), bunch.target_names)


def diabetes(_: DataSpec) -> RawData:
    """442 patients with 10 features in their original units, and the progression after one year: a regression."""
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes(scaled=False)
    return _bundled(bunch.data.astype(np.float32), bunch.target.astype(np.float32))


def _bundled(x: np.ndarray, y: np.ndarray, class_names: Iterable[object] = ()) -> RawData:
    """None of scikit-learn's data sets has a published test split."""
    names, inputs, targets = tuple(map(str, class_names)), torch.from_numpy(x), torch.from_numpy(y)
    fingerprint = fingerprint_tensors({"x": inputs, "y": targets}, names)
    return RawData("classification" if names else "regression", Split(inputs, targets), None, names, fingerprint)


def mnist(spec: DataSpec) -> RawData:
    """70,000 handwritten digits, 28×28 gray."""
    return _torchvision(spec, "MNIST", "MNIST/raw/train-images-idx3-ubyte", (28, 28), "none")


def fashion_mnist(spec: DataSpec) -> RawData:
    """70,000 articles of clothing, 28×28 gray."""
    return _torchvision(spec, "FashionMNIST", "FashionMNIST/raw/train-images-idx3-ubyte", (28, 28), "crop-flip")


def cifar10(spec: DataSpec) -> RawData:
    """60,000 photographs, 32×32, 10 classes."""
    return _torchvision(spec, "CIFAR10", "cifar-10-batches-py/data_batch_1", (32, 32, 3), "crop-flip")


def cifar100(spec: DataSpec) -> RawData:
    """60,000 photographs, 32×32, 100 classes."""
    return _torchvision(spec, "CIFAR100", "cifar-100-python/train", (32, 32, 3), "crop-flip")


def _torchvision(
    spec: DataSpec, class_name: str, marker: str, shape: tuple[int, ...], augmentation: Augmentation
) -> RawData:
    """Read a data set that torchvision keeps in memory.

    Args:
        spec: Its folder, and whether missing files may be downloaded.
        class_name: torchvision's class.
        marker: A file that tells whether the data set is there.
        shape: Of one sample in that class.
        augmentation: What its literature does.

    Raises:
        UsageError: No folder was given.
        DataError: Files are missing, or couldn't be downloaded.
        CorruptError: Files are damaged.
        StorageError: A file can't be read or written.
    """
    root = spec.folder()
    train = _load(class_name, root, marker, train=True, download=spec.download)
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
    return RawData("classification", splits[0], splits[1], class_names, fingerprint, augmentation)


def _load(class_name: str, root: Path, marker: str, *, train: bool, download: bool) -> Any:
    import torchvision.datasets

    path = root / marker
    if not path.exists() and not download:
        raise DataError(
            f"data set {class_name}",
            expected=f"torchvision's files such as {path}",
            found="no such file",
            remedy="pass the folder that holds them as `data_root`, or `download`",
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
