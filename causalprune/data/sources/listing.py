"""Which image files a folder holds, by class, and which of its files are left out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from causalprune.base.errors import DataError, StorageError

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif"),
    *(".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp"),
)
"""Endings of image files, in upper or lower case."""

PARTS = {"train": ("train", "training"), "validation": ("val", "valid", "validation"), "test": ("test", "testing")}
"""Names of the folders of each split, in upper or lower case."""

SHOWN_NAMES = 3
"""Files that are left out are counted, and this many of them named."""


class ImageFile(NamedTuple):
    """An image file.

    Attributes:
        name: File name relative to the data set's folder.
        label: Its class.
        size: Its size in bytes.
    """

    name: str
    label: int
    size: int


@dataclass
class Skipped:
    """Files and folders that are left out, by their names relative to the data set's folder; hidden ones don't count.

    Attributes:
        root: The data set's folder.
        names: Their names.
    """

    root: Path
    names: list[str] = field(default_factory=list)

    def notes(self) -> tuple[str, ...]:
        """A line that counts them, if there are any."""
        if not self.names:
            return ()
        shown = ", ".join(map(repr, self.names[:SHOWN_NAMES])) + (", …" if len(self.names) > SHOWN_NAMES else "")
        return (f"{self.root}: {len(self.names)} left out, not being images in a folder of a class: {shown}",)


def find_parts(root: Path, skipped: Skipped) -> dict[str, str]:
    """The folders of the splits by ``train``, ``validation`` and ``test``; no train if ``root`` holds the classes.

    Raises:
        DataError: There is no folder, two folders of one split, or others than that of the training data only.
        StorageError: The folder can't be read.
    """
    folders, files = _inside(root)
    found: dict[str, str] = {}
    for part, names in PARTS.items():
        matching = [name for name in folders if name.casefold() in names]
        if len(matching) > 1:
            both = " and ".join(map(repr, matching))
            raise DataError(
                f"{root}", expected=f"one folder of the {part} split", found=both, remedy="rename the others"
            )
        if matching:
            found[part] = matching[0]
    if found and "train" not in found:
        others = " and ".join(map(repr, found.values()))
        raise DataError(f"{root}", expected=f"a folder train beside {others}", found="none")
    if found:
        skipped.names += [f"{name}/" for name in folders if name not in found.values()] + files
    return found


def list_classes(
    root: Path, part: str, skipped: Skipped, classes: Sequence[str] | None = None
) -> tuple[tuple[str, ...], list[ImageFile]]:
    """List ``root/part/<class>/**/<image>``: classes and files, each sorted by the bytes of their names.

    Args:
        root: The data set's folder.
        part: The folder in it; empty for ``root`` itself.
        skipped: Gets what isn't an image: hidden files aren't looked at, links to folders inside a class not followed.
        classes: Class names in label order; the names of the subfolders by default.

    Returns:
        The class names and the files.

    Raises:
        DataError: The folder is missing, has no classes, a class without images, or one that isn't in ``classes``.
        StorageError: A folder can't be read.
    """
    folder = root / part
    found, stray = _inside(folder)
    unknown = [name for name in found if classes is not None and name not in classes]
    if unknown:
        raise DataError(
            str(folder),
            expected="only classes that have a folder in the training set",
            found=repr(unknown[0]),
            remedy="check the folder",
        )
    numbers = {name: number for number, name in enumerate(classes or found)}
    prefix = f"{part}/" if part else ""
    skipped.names += [prefix + name for name in stray]
    files: list[ImageFile] = []
    for name in found:
        before = len(skipped.names)
        listed = list_images(folder / name, f"{prefix}{name}/", skipped)
        inside = [ImageFile(path, numbers[name], size) for path, size in listed]
        if not inside:
            others = skipped.names[before:]
            found_instead = f"{len(others)} other files, such as {others[0]!r}" if others else "none"
            raise DataError(
                str(folder / name), expected="at least one image", found=found_instead, remedy="remove the folder"
            )
        files += inside
    if not files:
        raise DataError(
            str(folder),
            expected=f"one folder of images per class, {prefix}<class>/*.jpg",
            found="no folder",
            remedy="check `dataset` or `data_root`",
        )
    return tuple(classes or found), files


def is_flat(folder: Path) -> bool:
    """Whether a folder has files, but no folders."""
    folders, files = _inside(folder)
    return bool(files) and not folders


def list_images(folder: Path, prefix: str, skipped: Skipped) -> Iterator[tuple[str, int]]:
    """Names (with ``prefix`` before them) and sizes of all images in a folder and below, sorted by the names' bytes.

    Raises:
        DataError: The folder doesn't exist.
        StorageError: The folder can't be read.
    """
    for entry in _entries(folder):
        if _holds(partial(entry.is_dir, follow_symlinks=False)):
            yield from list_images(Path(entry.path), f"{prefix}{entry.name}/", skipped)
        elif entry.name.lower().endswith(IMAGE_SUFFIXES) and _holds(entry.is_file):
            yield prefix + entry.name, entry.stat().st_size
        else:
            skipped.names.append(prefix + entry.name)


def _inside(folder: Path) -> tuple[tuple[str, ...], list[str]]:
    """Names of the folders in a folder, links to folders included, and of everything else."""
    entries = _entries(folder)
    folders = tuple(entry.name for entry in entries if _holds(entry.is_dir))
    return folders, [entry.name for entry in entries if entry.name not in folders]


def _holds(test: Callable[[], bool]) -> bool:
    try:
        return test()
    except OSError:
        # A link that leads in a circle.
        return False


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, without hidden files, sorted by the names' bytes."""
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
            return sorted(visible, key=lambda entry: os.fsencode(entry.name))
    except (FileNotFoundError, NotADirectoryError) as error:
        found = "a file" if isinstance(error, NotADirectoryError) else "nothing"
        raise DataError(
            str(folder), expected="a folder", found=found, remedy="check `dataset` or `data_root`"
        ) from error
    except OSError as error:
        raise StorageError(str(folder), expected="a readable folder", found=error.strerror or str(error)) from error
