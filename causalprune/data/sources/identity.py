"""What the files of a data set are, without decoding them: names and sizes, and on demand their contents."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from causalprune.base.errors import DataError, StorageError
from causalprune.base.json_files import sha256_file
from causalprune.base.specs import DataSpec
from causalprune.data.names import TABLE_FORMS, dataset_form
from causalprune.data.sources.listing import IMAGE_SUFFIXES
from causalprune.data.sources.table_files import table_files

_FOLLOWED = 2
"""Links to folders are followed where a part (``train``) or a class may be one, not inside a class."""


def files_digest(spec: DataSpec, *, contents: bool = False) -> str:
    """SHA-256 over the files of ``imagefolder:DIR``, over ``npz:FILE`` or over a table.

    Args:
        spec: The data set.
        contents: Whether to hash the bytes of a folder's images, too; by default only relative names and sizes count.

    Returns:
        The hash in hexadecimal; empty for another data set, and where the files can't be read.
    """
    form = dataset_form(spec.name)
    try:
        if form == "npz:FILE":
            return sha256_file(spec.location())
        if form in TABLE_FORMS:
            files = table_files(spec)
            hashes = {part: sha256_file(path) for part, path in files.items()}
            return hashes[""] if "" in hashes else hashlib.sha256(json.dumps(hashes).encode()).hexdigest()
        if form == "imagefolder:DIR":
            return _folder_digest(spec.location(), contents=contents)
    except (DataError, StorageError, OSError):
        pass
    return ""


def _folder_digest(root: Path, *, contents: bool) -> str:
    digest = hashlib.sha256()
    for name, size in _images(root, "", 0):
        digest.update(os.fsencode(name) + f"\0{size}\0".encode())
        if contents:
            digest.update(sha256_file(root / name).encode())
    return digest.hexdigest()


def _images(folder: Path, prefix: str, depth: int) -> Iterator[tuple[str, int]]:
    """Relative names and sizes of the images in a folder and below, sorted by the names' bytes."""
    with os.scandir(folder) as entries:
        found = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: os.fsencode(e.name))
    for entry in found:
        if entry.is_dir(follow_symlinks=depth < _FOLLOWED):
            yield from _images(Path(entry.path), f"{prefix}{entry.name}/", depth + 1)
        elif entry.name.lower().endswith(IMAGE_SUFFIXES) and entry.is_file():
            yield f"{prefix}{entry.name}", entry.stat().st_size
