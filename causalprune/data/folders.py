"""Data sets in folders of image files: any ``imagefolder:DIR``, ImageNet and Tiny ImageNet."""

from __future__ import annotations

from pathlib import Path

import torch

from causalprune.data.images import ImageFiles, image_header
from causalprune.data.listing import Listing, fingerprint_listings, list_class_folders, list_images
from causalprune.data.names import DATASETS, Augmentation
from causalprune.data.splits import Normalization, RawData, Split
from causalprune.data.statistics import spread
from causalprune.errors import CorruptError, DataError

IN_MEMORY_BYTES = 2 * 2**30
"""Image files are decoded once and kept when they need no more than this; else each time that they are used."""

SAMPLED_HEADERS = 256
"""The common size of a folder's images is told from this many, spread evenly over the training files."""

NATIVE_SIDE = 256
"""Images of one common size are used as they are when no side is longer than this."""

STANDARD_SIDE = 224
"""The longest side of images that have no common size; what the models for ImageNet take."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of RGB values in 0..1 over ImageNet's training images: torchvision's published weights expect these very numbers."""


def read_image_folder(root: Path) -> RawData:
    """Read ``root/train/<class>/*.jpg`` with a test split in ``root/test`` or else ``root/val``, if there is one.

    The size is told from the headers of :data:`SAMPLED_HEADERS` training images. If they have one size of up to 256
    pixels a side, it is that; else squares as large as the median image's shorter side, up to 224. They are gray if
    the sampled ones all are. An image that has another size is resized and its centre is cut out
    (:func:`causalprune.data.images.fit_centre`).

    Raises:
        DataError: A folder is missing or empty, or a test class has no training images.
        CorruptError: An image can't be decoded.
        StorageError: A file or folder can't be read.
    """
    class_names, train = list_class_folders(root, "train")
    part = next((part for part in ("test", "val") if (root / part).is_dir()), None)
    test = None if part is None else list_class_folders(root, part, class_names)[1]
    shape = _common_shape(root, train)
    return _read(root, train, test, class_names, shape, "crop-flip" if shape[0] == 3 else "none")


def read_imagenet(root: Path) -> RawData:
    """Read ImageNet: ``root/train/<wnid>`` and ``root/val/<wnid>``, 224 × 224; ``val`` is the test split.

    Raises:
        CausalpruneError: As :func:`read_image_folder`.
    """
    class_names, train = list_class_folders(root, "train")
    _, test = list_class_folders(root, "val", class_names)
    normalization = Normalization(255 * torch.tensor(IMAGENET_MEAN), 255 * torch.tensor(IMAGENET_STD))
    shape = (3, STANDARD_SIDE, STANDARD_SIDE)
    augmentation = DATASETS["imagenet"].augmentation
    return _read(root, train, test, class_names, shape, augmentation, normalization)


def read_tiny_imagenet(root: Path) -> RawData:
    """Read Tiny ImageNet as published: ``train/<wnid>/images``, ``val/images``, ``val/val_annotations.txt``.

    ``root`` is the folder ``tiny-imagenet-200`` or the one around it. The published validation set is the test split,
    because the published test set has no labels.

    Raises:
        CausalpruneError: As :func:`read_image_folder`.
    """
    inner = root / "tiny-imagenet-200"
    root = inner if inner.is_dir() else root
    class_names, train = list_class_folders(root, "train")
    numbers = {name: number for number, name in enumerate(class_names)}
    path = root / "val" / "val_annotations.txt"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise DataError(str(path), expected="the annotations", found="nothing", remedy="check --data-root") from error
    except UnicodeDecodeError as error:
        raise CorruptError(str(path), expected="text", found=str(error)[:80]) from error
    sizes = dict(list_images(root / "val" / "images"))
    test = Listing()
    for number, line in enumerate(lines, 1):
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if wnid not in numbers or name not in sizes:
            raise DataError(
                f"{path} line {number}", expected="an image in val/images and its class", found=repr(line[:80])
            )
        test.add(f"val/images/{name}", numbers[wnid], sizes[name])
    if not test.names:
        raise DataError(str(path), expected="at least one image", found="none")
    return _read(root, train, test, class_names, (3, 64, 64), DATASETS["tiny-imagenet"].augmentation)


def _common_shape(root: Path, train: Listing) -> tuple[int, int, int]:
    headers = [image_header(root / train.names[i]) for i in spread(len(train.names), SAMPLED_HEADERS).tolist()]
    channels = 3 if any(colour for _, _, colour in headers) else 1
    sizes = {(height, width) for width, height, _ in headers}
    height, width = next(iter(sizes))
    if len(sizes) == 1 and max(height, width) <= NATIVE_SIDE:
        return channels, height, width
    shorter = sorted(min(width, height) for width, height, _ in headers)
    side = min(STANDARD_SIDE, shorter[len(shorter) // 2])
    return channels, side, side


def _read(
    root: Path,
    train: Listing,
    test: Listing | None,
    class_names: tuple[str, ...],
    shape: tuple[int, int, int],
    augmentation: Augmentation,
    normalization: Normalization | None = None,
) -> RawData:
    listings = {"train": train} if test is None else {"train": train, "test": test}
    fingerprint = fingerprint_listings(listings, class_names)
    count = sum(len(listing.names) for listing in listings.values())
    in_memory = count * shape[0] * shape[1] * shape[2] <= IN_MEMORY_BYTES
    splits = []
    for listing in listings.values():
        files = ImageFiles.from_names(root, listing.names, shape)
        inputs = files.read(torch.arange(len(files))) if in_memory else files
        splits.append(Split(inputs, torch.tensor(listing.labels)))
    return RawData(
        "classification",
        splits[0],
        splits[1] if test is not None else None,
        class_names,
        fingerprint,
        augmentation,
        normalization,
    )
