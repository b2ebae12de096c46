"""Which image files lie in a folder of classes, in one order on every machine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from causalprune.errors import DataError, StorageError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp")


@dataclass
class Listing:
    """Image files with their labels.

    Attributes:
        names: File names relative to the data set's folder.
        labels: The class of each.
        sizes: Their sizes in bytes.
    """

    names: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def add(self, name: str, label: int, size: int) -> None:
        """Append one file."""
        self.names.append(name)
        self.labels.append(label)
        self.sizes.append(size)


def list_class_folders(
    root: Path, part: str, classes: tuple[str, ...] | None = None
) -> tuple[tuple[str, ...], Listing]:
    """List ``root/part/<class>/**/<image>``: classes and files in the order of their names' bytes.

    Hidden files and files that are no images are passed over; links to folders inside a class aren't followed.

    Args:
        root: The data set's folder.
        part: ``train``, ``test`` or ``val``.
        classes: Class names to number by; those of the subfolders when left out.

    Returns:
        The class names and the files.

    Raises:
        DataError: There is no such folder, no class or a class without images, or a class that isn't in ``classes``.
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
    listing = Listing()
    for name in found:
        before = len(listing.names)
        for path, size in list_images(folder / name):
            listing.add(f"{part}/{name}/{path}", numbers[name], size)
        if len(listing.names) == before:
            raise DataError(str(folder / name), expected="at least one image", found="none", remedy="remove it")
    if not listing.names:
        raise DataError(
            str(folder),
            expected=f"one folder of images a class, {part}/<class>/*.jpg",
            found="no folder",
            remedy="check --dataset or --data-root",
        )
    return classes or found, listing


def list_images(folder: Path) -> Iterator[tuple[str, int]]:
    """Names relative to ``folder`` and sizes of the images in it and below, in the order of the names' bytes.

    Raises:
        DataError: The folder doesn't exist.
        StorageError: It can't be read.
    """
    entries = sorted(_entries(folder), key=lambda entry: os.fsencode(entry.name))
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            for name, size in list_images(Path(entry.path)):
                yield f"{entry.name}/{name}", size
        elif entry.name.lower().endswith(IMAGE_SUFFIXES) and entry.is_file():
            yield entry.name, entry.stat().st_size


def fingerprint_listings(listings: Mapping[str, Listing], class_names: tuple[str, ...]) -> str:
    """SHA-256 over class names and each file's name, label and size; contents aren't read."""
    digest = hashlib.sha256()
    for name in class_names:
        digest.update(os.fsencode(name) + b"\0")
    for part, listing in listings.items():
        digest.update(f"\0{part}\0{len(listing.names)}\0".encode())
        for name, label, size in zip(listing.names, listing.labels, listing.sizes, strict=True):
            digest.update(os.fsencode(name) + f"\0{label}\0{size}\0".encode())
    return digest.hexdigest()


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError) as error:
        found = "a file" if isinstance(error, NotADirectoryError) else "nothing"
        raise DataError(
            str(folder), expected="a folder", found=found, remedy="check --dataset or --data-root"
        ) from error
    except OSError as error:
        raise StorageError(str(folder), expected="a readable folder", found=error.strerror or str(error)) from error
