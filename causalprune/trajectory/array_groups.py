"""Named arrays with attributes and checksums, stored beside the rows of a recording: fits, and statistics of layers."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from causalprune.base.errors import CorruptError, DataError, UsageError
from causalprune.models.parameters import ParameterIndex
from causalprune.trajectory.column_groups import group_ids
from causalprune.trajectory.layout import FIT_NAME, RecordingLayout
from causalprune.trajectory.storage.location import Location, damaged
from causalprune.trajectory.zarr_files import (
    DTYPES,
    MAX_ARRAY_BYTES,
    METADATA,
    canonical_bytes,
    group_document,
    read_array,
    read_attributes,
    write_array,
)

LAYER_STATISTICS = "layer-statistics"
"""The kind of group that has what was measured of the layers."""


@dataclass(frozen=True, eq=False)
class ArrayGroup:
    """Arrays that were written as a whole, with what says how they came about.

    Attributes:
        arrays: By name. Each is read on access, which raises CorruptError if it is missing or damaged.
        attributes: JSON-ready.
        digest: SHA-256 over the attributes and the arrays.
    """

    arrays: Mapping[str, np.ndarray]
    attributes: dict[str, Any]
    digest: str

    @classmethod
    def read(cls, folder: Location, kind: str) -> Self:
        """Read a group that :func:`array_group` wrote.

        Args:
            folder: A complete folder.
            kind: As it was written.

        Raises:
            CorruptError: Its metadata are missing or damaged.
        """
        file = folder / METADATA
        content = read_attributes(file, kind)
        attributes, manifest = content.get("attributes"), content.get("arrays")
        if not isinstance(attributes, dict) or not isinstance(manifest, dict):
            raise damaged(file, expected=f"attributes and arrays of a {kind}", found="others")
        digest = hashlib.sha256(canonical_bytes([manifest, attributes])).hexdigest()
        return cls(_StoredArrays(folder, manifest), attributes, digest)

    def require_whole(self) -> None:
        """Read all arrays, one at a time.

        Raises:
            CorruptError: One is missing or damaged.
        """
        for _ in self.arrays.values():
            pass


Array = npt.NDArray[np.floating]


class Recorded(Protocol):
    """What a fit knows of its recording."""

    @property
    def index(self) -> ParameterIndex:
        """The prunable parameters."""

    @property
    def active(self) -> npt.NDArray[np.bool_]:
        """(P,) which of them the recording has."""

    @property
    def digest(self) -> str:
        """Hash of its rows."""


@dataclass(frozen=True, eq=False)
class Fit(ArrayGroup):
    """γ of a recording, with the evidence that it solves its problem.

    C is the number of columns: P_active, the weights that the recording has, or the number of their groups. A model
    with lags, which a recording with momentum gets, has three coefficients for each.

    Attributes:
        arrays: All that is stored, by name, such as ``gamma`` (1 or 3, C).
        attributes: The problem, its parameters and the evidence of its solution; JSON-ready.
        digest: SHA-256 over the attributes and the arrays.
        recording: What was fitted; None if the fit was read without it.
    """

    recording: Recorded | None = None

    def __repr__(self) -> str:
        e = self.evidence
        return (
            f"<Fit of {e['num_rows']:,} steps and {e['num_columns']:,} columns: {e['num_nonzero']:,} nonzero γ at "
            f"α = {self.alpha:.3g} ({self.alpha / e['alpha_max'] if e['alpha_max'] else 1:.3g}·alpha_max), "
            f"relative duality gap {self.relative_gap:.2g}>"
        )

    @property
    def gamma(self) -> Array:
        """(C,) or (3, C) float64: γ, in units of loss per squared weight change."""
        return _without_lags(self.arrays["gamma"])

    @property
    def kkt_scores(self) -> Array:
        """Like ``gamma``: |x_kᵀr|/(Tα), how near a column is to entering the model; 1 where γ_k ≠ 0."""
        return _without_lags(self.arrays["dual_correlation"])

    @property
    def evidence(self) -> dict[str, Any]:
        """All numbers about the solution, JSON-ready; see :class:`causalprune.solver.evidence.FitEvidence`."""
        return dict(self.attributes["evidence"])

    @property
    def granularity(self) -> str:
        """What has a γ of its own: ``parameter``, ``filter``, ``neuron`` or ``layer``."""
        return str(self.attributes["granularity"])

    @property
    def alpha(self) -> float:
        """α, the L1 coefficient, in scikit-learn's scaling."""
        return float(self.evidence["alpha"])

    @property
    def duality_gap(self) -> float:
        """Bound on the distance of the objective from its minimum, in units of loss squared."""
        return float(self.evidence["duality_gap"])

    @property
    def relative_gap(self) -> float:
        """The duality gap relative to ‖y‖²/(2T), the objective of γ = 0."""
        return float(self.evidence["relative_gap"])

    @property
    def certified(self) -> bool:
        """Whether that is at most the tolerance."""
        return bool(self.evidence["certified"])

    def by_parameter(self, name: str = "gamma") -> dict[str, Array]:
        """An array by the name of each weight, in its shape, with the lags in front if there are any.

        Args:
            name: ``gamma``, ``dual_correlation`` (the KKT scores), or another array with a value per column.
        """
        values = self.spread(name)
        index = self._recorded.index
        return {e.name: values[..., e.offset : e.stop].reshape(*values.shape[:-1], *e.shape) for e in index}

    def spread(self, name: str) -> Array:
        """(P,) or (3, P): each weight gets the value of its column or group, or 0 if it was pruned already."""
        index, active = self._recorded.index, self._recorded.active
        values = np.atleast_2d(self.arrays[name])
        if self.granularity != "parameter":
            values = values[:, group_ids(index, self.granularity, active)[0]]
        full = np.zeros((len(values), index.total), dtype=values.dtype)
        full[:, active] = values
        return _without_lags(full)

    @property
    def _recorded(self) -> Recorded:
        if self.recording is None:
            raise ValueError("a fit that was read without its recording has columns, but no parameters")
        return self.recording


def _without_lags(values: Array) -> Array:
    return values[0] if values.ndim == 2 and len(values) == 1 else values


class _StoredArrays(Mapping[str, np.ndarray]):
    """Arrays that are read on access."""

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
    """The fits of one recording.

    Args:
        layout: The recording's files.
        lock: The lock file of the process that changes fits; without it, fits can only be read.
    """

    def __init__(self, layout: RecordingLayout, lock: Location | None = None) -> None:
        self._layout = layout
        self._lock = lock

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
        """Store a fit.

        Args:
            name: Letters, digits, ``.``, ``_`` and ``-``.
            arrays: At least one-dimensional, of bool, integer or floating-point type.
            attributes: JSON-ready; numbers must be finite.
            overwrite: Replace a fit of that name.
            break_lock: In object storage, take the lock even from a process on another host, if that is known to have
                ended.
            patient: On a disk, wait while another process is changing fits.

        Raises:
            UsageError: The name can't be used, or is taken.
            LockedError: Another process is changing fits.
            StorageError: Storage refused.
        """
        require_name("fit", name)
        if self._lock is None:
            raise ValueError("these fits can only be read")
        fits, fill = self._layout.fits, array_group("fit", arrays, attributes)
        with self._lock.lock(break_lock=break_lock, patient=patient):
            fits.recover()
            if (fits.folder / name).exists() and not overwrite:
                raise UsageError(
                    f"fit {name}", expected="an unused name", found="a fit", remedy="choose another, or overwrite it"
                )
            fits.replace(name, fill)

    def require_writable(self, *, break_lock: bool = False, patient: bool = False) -> None:
        """Check, before the work, that fits can be written: that their lock can be taken.

        Args:
            break_lock: See :meth:`write`.
            patient: See :meth:`write`.

        Raises:
            LockedError: Another process is changing fits.
            StorageError: Storage refused.
        """
        if self._lock is None:
            raise ValueError("these fits can only be read")
        with self._lock.lock(break_lock=break_lock, patient=patient):
            pass

    def read(self, name: str) -> Fit:
        """Read a fit.

        Raises:
            DataError: There is none of that name.
            CorruptError: Its metadata are missing or damaged.
        """
        folder = self._layout.fits.find(name)
        if folder is None:
            names = ", ".join(self._layout.fits.names())
            raise DataError(
                f"fit {name!r} in {self._layout.root}",
                expected=f"one of {names}" if names else "a fit",
                found="none of that name",
                remedy="run fit-gamma first",
            )
        return Fit.read(folder, "fit")


def array_group(
    kind: str, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]
) -> Callable[[Location], None]:
    """Check arrays and attributes, and return the function that writes them into a new folder.

    The caller makes the whole atomic.

    Args:
        kind: ``fit`` or ``layer-statistics``.
        arrays: See :meth:`FitStore.write`.
        attributes: See :meth:`FitStore.write`.
    """
    manifest = {key: _describe(key, values) for key, values in arrays.items()}
    document = group_document(kind, {"arrays": manifest, "attributes": dict(attributes)})

    def fill(folder: Location) -> None:
        folder.make_folder()
        for key, values in arrays.items():
            write_array(folder / key, values)
        (folder / METADATA).write_json(document)

    return fill


def require_name(subject: str, name: str) -> None:
    """Check a name that becomes a folder.

    Raises:
        UsageError: It has other characters than letters, digits, ``.``, ``_`` and ``-``.
    """
    if not FIT_NAME.fullmatch(name):
        raise UsageError(f"name of a {subject}", expected="letters, digits, '.', '_', '-'", found=repr(name)[:80])


def _describe(key: str, values: np.ndarray) -> dict[str, Any]:
    require_name("stored array", key)
    if values.dtype.name not in DTYPES or values.ndim == 0:
        raise ValueError(f"{key}: {values.ndim}-dimensional {values.dtype}")
    return {"shape": list(values.shape), "dtype": values.dtype.name, "sha256": _checksum(values)}


def _read(folder: Location, key: str, entry: Any) -> np.ndarray:
    try:
        require_name("stored array", key)
        shape, dtype, checksum = tuple(entry["shape"]), entry["dtype"], entry["sha256"]
        if dtype not in DTYPES or not shape or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(f"{shape} {dtype}")
        size = np.dtype(dtype).itemsize * math.prod(max(1, n) for n in shape)
        if size > MAX_ARRAY_BYTES:
            raise ValueError(f"{size} bytes")
    except (KeyError, TypeError, ValueError, UsageError) as error:
        where = f"{folder / METADATA} array {key}"
        raise CorruptError(where, expected="shape and type", found=str(error)[:80]) from error
    values = read_array(folder / key, shape, np.dtype(dtype))
    if _checksum(values) != checksum:
        raise damaged(folder / key, expected=f"SHA-256 {checksum}"[:80], found=_checksum(values))
    return values


def _checksum(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data).hexdigest()
