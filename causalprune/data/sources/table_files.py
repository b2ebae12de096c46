"""The files of a table, and reading one: CSV and Parquet by pandas, each column with a name of its own."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causalprune.base.errors import CorruptError, DataError, StorageError, missing_extra
from causalprune.base.files import require_file
from causalprune.base.specs import DataSpec
from causalprune.data.sources.layout import VALIDATION

if TYPE_CHECKING:
    from pandas import DataFrame

_PARTS = {"train": "train", "training": "train", "test": "test", "testing": "test"} | dict.fromkeys(VALIDATION, "val")

Reader = Callable[[Path, Collection[str]], "DataFrame"]
"""Reads a file; the columns with these names are texts, whatever their cells look like."""


def table_files(spec: DataSpec) -> dict[str, Path]:
    """The files of a table by split: ``train``, ``val`` and ``test``, or one without a name, which is to be cut.

    Raises:
        DataError: There is no training data, or two files of one split.
    """
    path, suffix = spec.location(), f".{spec.name.partition(':')[0]}"
    if not path.is_dir():
        require_file(path, expected=f"a {suffix} file", remedy="check the path")
        return {"": path}
    found: dict[str, Path] = {}
    for file in sorted(path.iterdir()):
        part = _PARTS.get(file.stem.lower()) if file.suffix.lower() == suffix else None
        if part in found:
            raise DataError(
                f"{path}", expected=f"one file of the {part} split", found=f"{found[part].name}, {file.name}"
            )
        if part:
            require_file(file, expected=f"a {suffix} file", remedy="check the path")
            found[part] = file
    if "train" not in found:
        others = ", ".join(sorted(file.name for file in path.iterdir()))[:100] or "nothing"
        raise DataError(f"{path}", expected=f"train{suffix}, perhaps with val{suffix} and test{suffix}", found=others)
    return {part: found[part] for part in ("train", "val", "test") if part in found}


def read_csv(path: Path, texts: Collection[str]) -> DataFrame:
    """Read a CSV file; the columns ``texts`` are texts, whatever their cells look like.

    Raises:
        UsageError: pandas is missing.
        DataError: The file is empty, or has no names for its columns.
        CorruptError: Rows of another length than the header.
        StorageError: The file can't be read.
    """
    pandas = _library("pandas", path)
    from pandas.errors import EmptyDataError, ParserError, ParserWarning

    options: dict[str, Any] = {"keep_default_na": False, "na_values": [""], "index_col": False, "low_memory": False}
    if int(pandas.__version__.partition(".")[0]) < 3:
        # Later ones read the nearest float64 by themselves.
        options["float_precision"] = "round_trip"
    try:
        header = pandas.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False)
        names = header.iloc[0].tolist()
        if len(names) == 1 and re.search("[;\t|]", names[0]):
            raise DataError(f"{path}", expected="cells divided by commas", found=f"the header {names[0]!r}"[:100])
        _require_names(names, path)
        with warnings.catch_warnings():
            # A row that is longer than the header would lose its end.
            warnings.simplefilter("error", ParserWarning)
            frame = pandas.read_csv(path, dtype=dict.fromkeys(texts, str), **options)
    except EmptyDataError as error:
        raise DataError(f"{path}", expected="a table with a header", found="an empty file") from error
    except (ParserError, ParserWarning) as error:
        expected = "rows of as many cells as the header"
        raise CorruptError(f"{path}", expected=expected, found=" ".join(str(error).split())[:120]) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}", expected="text in UTF-8", found=str(error)[:100]) from error
    except OSError as error:
        raise StorageError(f"{path}", expected="a readable file", found=error.strerror or str(error)) from error
    return _filled(frame, path)


def read_parquet(path: Path, texts: Collection[str]) -> DataFrame:
    """Read a Parquet file, which says itself what is text; errors as for :func:`read_csv`."""
    del texts  # The file says what is text.
    pandas = _library("pandas", path)
    arrow = _library("pyarrow", path)
    try:
        frame = pandas.read_parquet(path, engine="pyarrow")
    except arrow.lib.ArrowException as error:
        found = " ".join(str(error).split())[:120]
        raise CorruptError(f"{path}", expected="an intact .parquet file", found=found) from error
    except OSError as error:
        raise StorageError(f"{path}", expected="a readable file", found=error.strerror or str(error)[:100]) from error
    frame.columns = frame.columns.map(str)
    _require_names(list(frame.columns), path)
    return _filled(frame, path)


def _filled(frame: DataFrame, path: Path) -> DataFrame:
    if not len(frame):
        raise DataError(f"{path}", expected="at least one row", found="none")
    return frame


def _library(name: str, path: Path) -> Any:
    try:
        return __import__(name)
    except ImportError as error:
        raise missing_extra(f"{path} needs pandas and pyarrow", "tables") from error


def _require_names(names: Collection[Any], path: Path) -> None:
    """Each column needs a name of its own."""
    blank = [number for number, name in enumerate(names, start=1) if not str(name).strip()]
    if blank:
        remedy = "name it, or leave it out: to_csv(…, index=False) writes no row numbers"
        raise DataError(
            f"{path}", expected="a name for each column", found=f"none for column {blank[0]}", remedy=remedy
        )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{path}", expected="each column's name once", found=f"{twice[0]} several times")
