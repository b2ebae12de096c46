"""Data sets in folders of image files: any ``imagefolder:DIR``, ImageNet and Tiny ImageNet."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from causalprune.base.errors import CorruptError, DataError, storage_errors
from causalprune.base.files import require_file
from causalprune.base.specs import DataSpec
from causalprune.data.images import ColorError, ImageFiles, image_header
from causalprune.data.names import Augmentation
from causalprune.data.normalization import Normalization, spread
from causalprune.data.sources.listing import (
    ImageFile,
    Skipped,
    find_parts,
    is_flat,
    list_classes,
    list_images,
)
from causalprune.data.splits import RawData, Split

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
    """Read ``imagefolder:ROOT``: ``ROOT/train/<class>/*.jpg`` and the same in other folders for other splits.

    These are ``test`` and ``val`` (or ``valid``, ``validation``). If there is only one of them, it is the test split. A
    folder of images without classes isn't used. Without a folder ``train``, ``ROOT`` holds the classes, and all other
    splits are cut from them. What is decided is said, and what is left out is counted and named.

    The size is found from the headers of :data:`SAMPLED_HEADERS` training images. If all have the same size, with sides
    of up to 256 pixels, that size is used; otherwise squares with the median of the shorter sides, up to 224. Images
    are gray if all are; one with colors makes all RGB, or is refused if there are too many to be kept in memory. An
    image of another size is resized and cropped at the center (:func:`causalprune.data.images.fit_center`).

    Raises:
        DataError: A folder is missing or empty, a test class has no training images, or an image can't be used.
        CorruptError: An image can't be decoded.
        StorageError: A file or folder can't be read.
    """
    root = spec.location()
    skipped, notes = Skipped(root), list[str]()
    parts = find_parts(root, skipped)
    class_names, train = list_classes(root, parts.get("train", ""), skipped)
    if not parts:
        notes.append(f"{root}: no folder train, so its folders are the classes, and all splits are cut from them")
    listings = {"train": train}
    for part in ("validation", "test"):
        if part in parts and is_flat(root / parts[part]):
            notes.append(f"{root / parts[part]}: not used, because without folders of classes it has no labels")
        elif part in parts:
            listings[part] = list_classes(root, parts[part], skipped, class_names)[1]
    if "validation" in listings and "test" in listings:
        notes.append(f"{root / parts['validation']}: is the validation split; `validation_fraction` has no effect")
    elif "validation" in listings:
        notes.append(f"{root / parts['validation']}: is the test split; the validation split is cut from the others")
        listings["test"] = listings.pop("validation")
    shape = _common_shape(root, train)
    notes += skipped.notes()
    try:
        return _read(root, listings, class_names, shape, "none" if shape[0] == 1 else "crop-flip", notes=notes)
    except ColorError as error:
        notes.append(f"{error.subject}: has colors, so the other images, which are gray, are read as RGB, too")
        return _read(root, listings, class_names, (3, *shape[1:]), "crop-flip", notes=notes)


def imagenet(spec: DataSpec) -> RawData:
    """ImageNet, 1.3 million photographs in 1000 folders ``train/<wnid>`` and ``val/<wnid>``, at 224 × 224.

    ``val`` is the test split.

    Raises:
        CausalpruneError: As :func:`image_folder`.
    """
    root = spec.folder()
    skipped = Skipped(root)
    class_names, train = list_classes(root, "train", skipped)
    _, test = list_classes(root, "val", skipped, class_names)
    normalization = Normalization(255 * torch.tensor(IMAGENET_MEAN), 255 * torch.tensor(IMAGENET_STD))
    shape = (3, STANDARD_SIDE, STANDARD_SIDE)
    listings = {"train": train, "test": test}
    return _read(root, listings, class_names, shape, "crop-flip", normalization, notes=skipped.notes())


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
    skipped = Skipped(root)
    class_names, train = list_classes(root, "train", skipped)
    numbers = {name: number for number, name in enumerate(class_names)}
    path = root / "val" / "val_annotations.txt"
    require_file(path, expected="the annotations", remedy="check `data_root`")
    try:
        with storage_errors(path, "read"):
            lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise CorruptError(str(path), expected="text", found=str(error)[:80]) from error
    sizes = dict(list_images(root / "val" / "images", "", skipped))
    test: list[ImageFile] = []
    for number, line in enumerate(lines, 1):
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if wnid not in numbers or name not in sizes:
            raise DataError(
                f"{path} line {number}", expected="an image in val/images and its class", found=repr(line[:80])
            )
        test.append(ImageFile(f"val/images/{name}", numbers[wnid], sizes[name]))
    if not test:
        raise DataError(str(path), expected="at least one image", found="none")
    listings = {"train": train, "test": test}
    return _read(root, listings, class_names, (3, 64, 64), "crop-flip", notes=skipped.notes())


def _common_shape(root: Path, train: list[ImageFile]) -> tuple[int, int, int]:
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
    listings: Mapping[str, list[ImageFile]],
    class_names: tuple[str, ...],
    shape: tuple[int, int, int],
    augmentation: Augmentation,
    normalization: Normalization | None = None,
    *,
    notes: Iterable[str],
) -> RawData:
    in_memory = sum(map(len, listings.values())) * math.prod(shape) <= IN_MEMORY_BYTES

    def split(listing: list[ImageFile]) -> Split:
        files = ImageFiles.from_names(root, [file.name for file in listing], shape)
        inputs = files.read(torch.arange(len(files))) if in_memory else files
        return Split(inputs, torch.tensor([file.label for file in listing]))

    splits = {part: split(listing) for part, listing in listings.items()}
    return RawData(
        splits["train"],
        splits.get("test"),
        class_names,
        _fingerprint(listings, class_names),
        augmentation,
        normalization,
        validation=splits.get("validation"),
        notes=tuple(notes),
    )


def _fingerprint(listings: Mapping[str, list[ImageFile]], class_names: tuple[str, ...]) -> str:
    """SHA-256 over the class names and the name, label and size of each file; contents aren't read."""
    digest = hashlib.sha256()
    for name in class_names:
        digest.update(os.fsencode(name) + b"\0")
    for part, listing in listings.items():
        digest.update(f"\0{part}\0{len(listing)}\0".encode())
        for name, label, size in listing:
            digest.update(os.fsencode(name) + f"\0{label}\0{size}\0".encode())
    return digest.hexdigest()
