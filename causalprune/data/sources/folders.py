"""Data sets in folders of image files: any ``imagefolder:DIR``, ImageNet and Tiny ImageNet."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from causalprune.base.errors import CorruptError, DataError, StorageError
from causalprune.base.specs import DataSpec
from causalprune.data.images import ImageFiles, image_header
from causalprune.data.names import Augmentation
from causalprune.data.normalization import Normalization, spread
from causalprune.data.splits import RawData, Split

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp")

IN_MEMORY_BYTES = 2 * 2**30
"""Image files that need no more than this are decoded once and kept; larger sets are decoded on each use."""

SAMPLED_HEADERS = 256
"""The common size of a folder's images is found from this many headers, spread evenly over the training files."""

NATIVE_SIDE = 256
"""Images of one common size keep it if no side is longer than this."""

STANDARD_SIDE = 224
"""Longest side for images without a common size: the input size of models for ImageNet."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Statistics of RGB values in 0..1 over ImageNet's training images; torchvision's published weights expect these."""


def image_folder(spec: DataSpec) -> RawData:
    """Read ``imagefolder:ROOT``: ``ROOT/train/<class>/*.jpg``, and ``ROOT/test`` or ``ROOT/val`` if it exists.

    The size is found from the headers of :data:`SAMPLED_HEADERS` training images. If all have the same size, with sides
    of up to 256 pixels, that size is used; otherwise squares with the median of the shorter sides, up to 224. Images
    are gray if all sampled ones are. An image of another size is resized and cropped at the center
    (:func:`causalprune.data.images.fit_center`).

    Raises:
        DataError: A folder is missing or empty, or a test class has no training images.
        CorruptError: An image can't be decoded.
        StorageError: A file or folder can't be read.
    """
    root = spec.location()
    class_names, train = _list_class_folders(root, "train")
    part = next((part for part in ("test", "val") if (root / part).is_dir()), None)
    test = None if part is None else _list_class_folders(root, part, class_names)[1]
    shape = _common_shape(root, train)
    return _read(root, train, test, class_names, shape, "crop-flip" if shape[0] == 3 else "none")


def imagenet(spec: DataSpec) -> RawData:
    """ImageNet, 1.3 million photographs in 1000 folders ``train/<wnid>`` and ``val/<wnid>``, at 224 × 224.

    ``val`` is the test split.

    Raises:
        CausalpruneError: As :func:`image_folder`.
    """
    root = spec.folder()
    class_names, train = _list_class_folders(root, "train")
    _, test = _list_class_folders(root, "val", class_names)
    normalization = Normalization(255 * torch.tensor(IMAGENET_MEAN), 255 * torch.tensor(IMAGENET_STD))
    shape = (3, STANDARD_SIDE, STANDARD_SIDE)
    return _read(root, train, test, class_names, shape, "crop-flip", normalization)


def tiny_imagenet(spec: DataSpec) -> RawData:
    """Tiny ImageNet, 110,000 photographs, 64×64, 200 classes.

    It is read as published: ``train/<wnid>/images``, ``val/images``, ``val/val_annotations.txt``, in the folder
    ``tiny-imagenet-200`` or its parent. The published validation set is the test split, because the published test
    set has no labels.

    Raises:
        CausalpruneError: As :func:`image_folder`.
    """
    root = spec.folder()
    inner = root / "tiny-imagenet-200"
    root = inner if inner.is_dir() else root
    class_names, train = _list_class_folders(root, "train")
    numbers = {name: number for number, name in enumerate(class_names)}
    path = root / "val" / "val_annotations.txt"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise DataError(str(path), expected="the annotations", found="nothing", remedy="check `data_root`") from error
    except UnicodeDecodeError as error:
        raise CorruptError(str(path), expected="text", found=str(error)[:80]) from error
    sizes = dict(_list_images(root / "val" / "images"))
    test: list[_File] = []
    for number, line in enumerate(lines, 1):
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if wnid not in numbers or name not in sizes:
            raise DataError(
                f"{path} line {number}", expected="an image in val/images and its class", found=repr(line[:80])
            )
        test.append(_File(f"val/images/{name}", numbers[wnid], sizes[name]))
    if not test:
        raise DataError(str(path), expected="at least one image", found="none")
    return _read(root, train, test, class_names, (3, 64, 64), "crop-flip")


def _common_shape(root: Path, train: list[_File]) -> tuple[int, int, int]:
    headers = [image_header(root / train[i].name) for i in spread(len(train), SAMPLED_HEADERS).tolist()]
    channels = 3 if any(color for _, _, color in headers) else 1
    sizes = {(height, width) for width, height, _ in headers}
    height, width = next(iter(sizes))
    if len(sizes) == 1 and max(height, width) <= NATIVE_SIDE:
        return channels, height, width
    shorter = sorted(min(width, height) for width, height, _ in headers)
    side = min(STANDARD_SIDE, shorter[len(shorter) // 2])
    return channels, side, side


def _read(
    root: Path,
    train: list[_File],
    test: list[_File] | None,
    class_names: tuple[str, ...],
    shape: tuple[int, int, int],
    augmentation: Augmentation,
    normalization: Normalization | None = None,
) -> RawData:
    listings = {"train": train} if test is None else {"train": train, "test": test}
    in_memory = sum(map(len, listings.values())) * math.prod(shape) <= IN_MEMORY_BYTES

    def split(listing: list[_File]) -> Split:
        files = ImageFiles.from_names(root, [file.name for file in listing], shape)
        inputs = files.read(torch.arange(len(files))) if in_memory else files
        return Split(inputs, torch.tensor([file.label for file in listing]))

    splits = {part: split(listing) for part, listing in listings.items()}
    fingerprint = _fingerprint(listings, class_names)
    return RawData(splits["train"], splits.get("test"), class_names, fingerprint, augmentation, normalization)


class _File(NamedTuple):
    """An image file.

    Attributes:
        name: File name relative to the data set's folder.
        label: Its class.
        size: Its size in bytes.
    """

    name: str
    label: int
    size: int


def _list_class_folders(
    root: Path, part: str, classes: tuple[str, ...] | None = None
) -> tuple[tuple[str, ...], list[_File]]:
    """List ``root/part/<class>/**/<image>``: classes and files, each sorted by the bytes of their names.

    Hidden files and files that aren't images are skipped; links to folders inside a class aren't followed.

    Args:
        root: The data set's folder.
        part: ``train``, ``test`` or ``val``.
        classes: Class names in label order; the names of the subfolders by default.

    Returns:
        The class names and the files.

    Raises:
        DataError: The folder is missing, has no classes, a class without images, or one that isn't in ``classes``.
        StorageError: A folder can't be read.
    """
    folder = root / part
    found = tuple(sorted((e.name for e in _entries(folder) if e.is_dir()), key=os.fsencode))
    unknown = [name for name in found if classes is not None and name not in classes]
    if unknown:
        raise DataError(
            str(folder),
            expected="only classes that have a folder in the training set",
            found=repr(unknown[0]),
            remedy="check the folder",
        )
    numbers = {name: number for number, name in enumerate(classes or found)}
    files: list[_File] = []
    for name in found:
        inside = [_File(f"{part}/{name}/{path}", numbers[name], size) for path, size in _list_images(folder / name)]
        if not inside:
            raise DataError(str(folder / name), expected="at least one image", found="none", remedy="remove it")
        files += inside
    if not files:
        raise DataError(
            str(folder),
            expected=f"one folder of images per class, {part}/<class>/*.jpg",
            found="no folder",
            remedy="check `dataset` or `data_root`",
        )
    return classes or found, files


def _list_images(folder: Path) -> Iterator[tuple[str, int]]:
    """Names (relative to ``folder``) and sizes of all images in a folder and below, sorted by the names' bytes.

    Raises:
        DataError: The folder doesn't exist.
        StorageError: The folder can't be read.
    """
    for entry in sorted(_entries(folder), key=lambda entry: os.fsencode(entry.name)):
        if entry.is_dir(follow_symlinks=False):
            for name, size in _list_images(Path(entry.path)):
                yield f"{entry.name}/{name}", size
        elif entry.name.lower().endswith(IMAGE_SUFFIXES) and entry.is_file():
            yield entry.name, entry.stat().st_size


def _fingerprint(listings: Mapping[str, list[_File]], class_names: tuple[str, ...]) -> str:
    """SHA-256 over the class names and the name, label and size of each file; contents aren't read."""
    digest = hashlib.sha256()
    for name in class_names:
        digest.update(os.fsencode(name) + b"\0")
    for part, listing in listings.items():
        digest.update(f"\0{part}\0{len(listing)}\0".encode())
        for name, label, size in listing:
            digest.update(os.fsencode(name) + f"\0{label}\0{size}\0".encode())
    return digest.hexdigest()


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, without hidden files."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError) as error:
        found = "a file" if isinstance(error, NotADirectoryError) else "nothing"
        raise DataError(
            str(folder), expected="a folder", found=found, remedy="check `dataset` or `data_root`"
        ) from error
    except OSError as error:
        raise StorageError(str(folder), expected="a readable folder", found=error.strerror or str(error)) from error
