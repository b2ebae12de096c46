"""Results of fits, kept beside the recording that they explain."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from causalprune.base.errors import CorruptError, DataError, UsageError
from causalprune.trajectory.layout import METADATA, RecordingLayout
from causalprune.trajectory.storage import Location
from causalprune.trajectory.zarr_files import (
    DTYPES,
    MAX_ARRAY_BYTES,
    REMEDY,
    canonical_bytes,
    group_document,
    read_array,
    read_attributes,
    write_array,
)

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, eq=False)
class Fit:
    """What a fit found.

    Attributes:
        arrays: By name, such as ``gamma`` (P_active,). Each is read when it is asked for, and raises CorruptError when
            it is missing or damaged.
        attributes: The problem, its parameters and the evidence; JSON-ready.
        digest: SHA-256 over the attributes and the arrays.
    """

    arrays: Mapping[str, np.ndarray]
    attributes: dict[str, Any]
    digest: str


class _StoredArrays(Mapping[str, np.ndarray]):
    """Arrays that are read when they are asked for."""

    def __init__(self, folder: Location, manifest: dict[str, Any]) -> None:
        self._folder = folder
        self._manifest = manifest

    def __getitem__(self, key: str) -> np.ndarray:
        return _read(self._folder, key, self._manifest[key])

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._manifest))

    def __len__(self) -> int:
        return len(self._manifest)


class FitStore:
    """The fits of one recording. Each is a group that appears, changes and disappears as a whole.

    While a fit is replaced, the old one bears another name for a moment; whoever reads then, or after a crash at that
    moment, finds it there.

    Args:
        layout: The recording's files.
        lock: The lock file of whoever changes fits.
    """

    def __init__(self, layout: RecordingLayout, lock: Location) -> None:
        self._layout = layout
        self._lock = lock

    def names(self) -> tuple[str, ...]:
        """Names of the fits that exist, sorted."""
        if not self._layout.fits.is_folder():
            return ()
        found = set()
        for child in self._layout.fits.children():
            name = child.removeprefix(".").removesuffix(".replaced") if child[0] == "." else child
            if _NAME.fullmatch(name) and self._find(name) is not None:
                found.add(name)
        return tuple(sorted(found))

    def write(
        self,
        name: str,
        arrays: Mapping[str, np.ndarray],
        attributes: Mapping[str, Any],
        *,
        overwrite: bool = False,
        break_lock: bool = False,
        patient: bool = False,
    ) -> None:
        """Keep a fit.

        Args:
            name: Letters, digits, ``.``, ``_`` and ``-``.
            arrays: At least one-dimensional, of bool, integer or floating-point type.
            attributes: JSON-ready; numbers must be finite.
            overwrite: Replace a fit of that name.
            break_lock: In object storage, take the lock of a process on another host, which is known to have ended.
            patient: Wait while another process is changing fits of a store on a disk.

        Raises:
            UsageError: The name can't be used, or is taken.
            LockedError: Another process is changing fits.
            StorageError: The file system refused.
        """
        require_name("fit", name)
        document = _document(arrays, attributes)
        with self._lock.lock(break_lock=break_lock, patient=patient):
            self._recover(name)
            target = self._layout.fit(name)
            if target.exists() and not overwrite:
                raise UsageError(
                    f"fit {name}", expected="an unused name", found="a fit", remedy="choose another, or overwrite it"
                )
            target.replace(self._layout.replaced_fit(name), lambda folder: _write_group(folder, arrays, document))

    def read(self, name: str) -> Fit:
        """Read a fit.

        Raises:
            DataError: There is none of that name.
            CorruptError: Its metadata are missing or damaged.
        """
        folder = self._find(name) if _NAME.fullmatch(name) else None
        if folder is None:
            raise DataError(
                f"fit {name!r} in {self._layout.root}",
                expected=f"one of {', '.join(self.names())}" if self.names() else "a fit",
                found="none of that name",
                remedy="run fit-gamma first",
            )
        file = folder / METADATA
        content = read_attributes(file, "fit")
        attributes, manifest = content.get("attributes"), content.get("arrays")
        if not isinstance(attributes, dict) or not isinstance(manifest, dict):
            raise CorruptError(f"{file}", expected="a fit's attributes", found="none", remedy=REMEDY)
        digest = hashlib.sha256(canonical_bytes([manifest, attributes])).hexdigest()
        return Fit(_StoredArrays(folder, manifest), attributes, digest)

    def _find(self, name: str) -> Location | None:
        for folder in (self._layout.fit(name), self._layout.replaced_fit(name)):
            if folder.is_folder():
                return folder
        return None

    def _recover(self, name: str) -> None:
        """Undo a replacement that a crash cut short, or finish it; remove what else it left."""
        self._layout.fits.clear_leftovers()
        replaced, target = self._layout.replaced_fit(name), self._layout.fit(name)
        if replaced.is_folder():
            if target.exists():
                replaced.remove_folder()
            else:
                replaced.move(target)


def write_fit_group(folder: Location, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> None:
    """Write a fit into a new folder; the caller makes the whole atomic."""
    _write_group(folder, arrays, _document(arrays, attributes))


def _document(arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> dict[str, Any]:
    manifest = {key: _describe(key, values) for key, values in arrays.items()}
    return group_document("fit", {"arrays": manifest, "attributes": dict(attributes)})


def _write_group(folder: Location, arrays: Mapping[str, np.ndarray], document: dict[str, Any]) -> None:
    folder.make_folder()
    for key, values in arrays.items():
        write_array(folder / key, values)
    (folder / METADATA).write_json(document)


def require_name(subject: str, name: str) -> None:
    """Check a name that becomes a directory.

    Raises:
        UsageError: It holds other characters than letters, digits, ``.``, ``_`` and ``-``.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"name of a {subject}", expected="letters, digits, '.', '_', '-'", found=repr(name)[:80])


def _describe(key: str, values: np.ndarray) -> dict[str, Any]:
    require_name("fit's array", key)
    if values.dtype.name not in DTYPES or values.ndim == 0:
        raise ValueError(f"{key}: {values.ndim}-dimensional {values.dtype}")
    return {"shape": list(values.shape), "dtype": values.dtype.name, "sha256": _checksum(values)}


def _read(folder: Location, key: str, entry: Any) -> np.ndarray:
    try:
        require_name("fit's array", key)
        shape, dtype, checksum = tuple(entry["shape"]), entry["dtype"], entry["sha256"]
        if dtype not in DTYPES or not shape or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(f"{shape} {dtype}")
        size = np.dtype(dtype).itemsize
        for n in shape:
            size *= max(1, n)
        if size > MAX_ARRAY_BYTES:
            raise ValueError(f"{size} bytes")
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise CorruptError(
            f"{folder / METADATA} array {key}", expected="shape and type", found=str(error)[:80]
        ) from error
    values = read_array(folder / key, shape, np.dtype(dtype))
    if _checksum(values) != checksum:
        raise CorruptError(
            f"{folder / key}", expected=f"SHA-256 {checksum}"[:80], found=_checksum(values), remedy=REMEDY
        )
    return values


def _checksum(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data).hexdigest()
