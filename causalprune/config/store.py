"""Options of the ``store`` commands: ``verify``, ``export``, ``compact`` and ``merge``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from causalprune.base.errors import UsageError
from causalprune.base.options import option, writable
from causalprune.base.paths import StoreUrl, parse_place
from causalprune.base.units import check_range
from causalprune.config.shared import LeaseOptions, OutputOptions, RuntimeOptions, store_option
from causalprune.trajectory.names import CODECS, RECORDING_FORMATS


@dataclass(frozen=True, kw_only=True)
class StoreVerifyConfig(RuntimeOptions):
    """Read everything in a trajectory store and compare it with its checksums.

    Example: causalprune store verify run/trajectory.zarr
    """

    store: Path | StoreUrl | None = store_option("Trajectory store [run/trajectory.zarr].", flag="STORE")


@dataclass(frozen=True, kw_only=True)
class StoreExportConfig(OutputOptions):
    """Write rows and parameters of a recording for other tools: NumPy, safetensors or Zarr.

    Example: causalprune store export --rows 0:8 --output delta.npz
    """

    store: Path | StoreUrl | None = store_option("Trajectory store [run/trajectory.zarr].", flag="STORE")
    output: Path | None = option(
        None, "File to write, ending in .npz, .safetensors or .zarr (a directory).", check=writable
    )
    format: str | None = option(None, "Its format [the one that its name ends in].", check=RECORDING_FORMATS)
    recording: str | None = option(None, "Name of the recording [the last one].")
    rows: str | None = option(None, "Rows, such as 0:64 [all].", check=check_range)
    param: tuple[str, ...] = option(
        (), "Parameter, such as fc1.weight; may be repeated [all].", metavar="NAME", repeated=True
    )

    def check(self) -> None:
        """Require an output file."""
        super().check()
        if self.output is None:
            raise UsageError("--output", expected="a file to write", found="none", remedy="name one, such as delta.npz")


@dataclass(frozen=True, kw_only=True)
class StoreCompactConfig(LeaseOptions, OutputOptions):
    """Make a trajectory store smaller: another codec for its recordings, or fewer of them.

    Example: causalprune store compact run/trajectory.zarr --codec small
    """

    store: Path | StoreUrl | None = store_option("Trajectory store [run/trajectory.zarr].", flag="STORE")
    codec: str | None = option(
        None, "Store recordings anew with this codec; it can't have more bits than they have.", check=CODECS
    )
    drop: tuple[str, ...] = option(
        (), "Recording to delete, with its fits; may be repeated.", metavar="NAME", repeated=True
    )

    def check(self) -> None:
        """Require a codec or recordings to delete."""
        super().check()
        if self.codec is None and not self.drop:
            raise UsageError("store compact", expected="--codec or --drop", found="neither")


@dataclass(frozen=True, kw_only=True)
class StoreMergeConfig(OutputOptions):
    """Stack the recordings of several jobs in a new store, so that one fit sees the rows of all.

    Example: causalprune store merge a.zarr b.zarr --output merged.zarr
    """

    stores: tuple[str, ...] = option(
        (), "Trajectory stores of one model and mask, in order.", flag="STORE...", repeated=True
    )
    output: Path | None = option(None, "Store to write.", check=writable)
    codec: str | None = option(None, "Codec of the result [as many bits as the parts have].", check=CODECS)

    def check(self) -> None:
        """Require at least two stores, and one to write."""
        super().check()
        for store in self.stores:
            parse_place(store)
        if len(self.stores) < 2:
            raise UsageError("store merge", expected="at least two stores", found=f"{len(self.stores)}")
        if self.output is None:
            raise UsageError(
                "--output", expected="a store to write", found="none", remedy="name one, such as merged.zarr"
            )
