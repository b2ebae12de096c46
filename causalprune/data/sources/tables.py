"""Tables in CSV and Parquet files, read by pandas: numbers as they are, categories as columns of 0 and 1."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from causalprune.base.compute.inputs import TARGETS
from causalprune.base.errors import DataError, UsageError
from causalprune.base.registry import did_you_mean
from causalprune.base.specs import DataSpec
from causalprune.data.sources.arrays import read_arrays
from causalprune.data.sources.table_files import Reader, read_csv, read_parquet, table_files
from causalprune.data.splits import RawData

if TYPE_CHECKING:
    from pandas import DataFrame, Series

USUAL_TARGETS = (*TARGETS, "class")
"""What the column that is to be predicted is called, in upper or lower case, unless it is said."""

MOST_CATEGORIES = 100
"""A column with more different texts is a name or a number of the row rather than a category."""

_MISSING = ("", "?", "NA", "N/A", "na", "n/a", "NaN", "nan", "null", "NULL", "None", "-")
"""What stands for a missing number, in a column of numbers otherwise."""
_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?")


def csv(spec: DataSpec) -> RawData:
    """Read ``csv:FILE``, or ``csv:DIR`` with ``train.csv`` and perhaps ``val.csv`` and ``test.csv``.

    UTF-8, with a header, cells divided by commas, quoted by ``"``. See :func:`_table` for what becomes of the columns.

    Raises:
        UsageError: pandas is missing, or there is no such column to predict.
        DataError: A file or a column is missing or can't be used.
        CorruptError: A file isn't such a table.
        StorageError: A file can't be read.
    """
    return _table(spec, read_csv)


def parquet(spec: DataSpec) -> RawData:
    """Read ``parquet:FILE``, or ``parquet:DIR`` with ``train.parquet`` and so on, as :func:`csv`."""
    return _table(spec, read_parquet)


def _table(spec: DataSpec, read: Reader) -> RawData:
    """The arrays of a table.

    A column of numbers or bools is a feature. A column of texts is as many features of 0 and 1 as it has different
    texts in the training file, in the order of their code points, in the place of the column. The target is read as
    that of an array.

    Raises:
        UsageError: There is no such target.
        DataError: A column has missing values, dates or something else, or a text that the training file hasn't.
    """
    files = table_files(spec)
    (first, train), *rest = ((part, path) for part, path in files.items())
    frame = read(train, ())
    source = f"{spec.location()}"
    target, notes = _target(frame, spec.target, source)
    columns = [_Column.of(frame[name], f"column {name} of {train}") for name in frame.columns if name != target]
    if not columns:
        raise DataError(source, expected=f"a column beside {target}", found="none")
    texts = {column.name for column in columns if column.categories is not None}
    labels = _values(frame[target], f"column {target} of {train}")
    if labels.dtype.kind == "U":
        texts.add(target)
    # One file is to be cut, whatever it is called.
    end = f"_{first}" if rest else ""
    arrays: dict[str, Any] = {f"x{end}": _features(frame, columns, train), f"y{end}": labels}
    for part, path in rest:
        frame = read(path, texts)
        _require_columns(frame, [target, *(column.name for column in columns)], path)
        arrays |= {f"x_{part}": _features(frame, columns, path)}
        arrays |= {f"y_{part}": _values(frame[target], f"column {target} of {path}")}
    coded = [f"{column.name} ({len(column.categories)})" for column in columns if column.categories is not None]
    if coded:
        notes.append(f"{source}: texts become a column of 0 and 1 for each: {', '.join(coded)}")
    raw = read_arrays(arrays, source, task=spec.task)
    return replace(raw, notes=(*notes, *raw.notes))


@dataclass(frozen=True)
class _Column:
    """What becomes of a column: ``categories`` in their order, None for a column of numbers."""

    name: str
    categories: tuple[str, ...] | None

    @classmethod
    def of(cls, series: Series[Any], what: str) -> _Column:
        """By the training data."""
        values = _values(series, what)
        if values.dtype.kind != "U":
            return cls(str(series.name), None)
        categories = np.unique(values).tolist()
        if len(categories) > MOST_CATEGORIES:
            raise DataError(
                what,
                expected=f"numbers, or at most {MOST_CATEGORIES} different texts",
                found=f"{len(categories)} in {len(values)} rows, such as {categories[0]!r}",
                remedy="leave the column out, or make numbers of it",
            )
        return cls(str(series.name), tuple(categories))

    def features(self, series: Series[Any], what: str) -> np.ndarray:
        """(N, width) float64."""
        values = _values(series, what)
        if (values.dtype.kind == "U") != (self.categories is not None):
            expected, found = ("numbers", "texts") if self.categories is None else ("texts", "numbers")
            raise DataError(what, expected=f"{expected}, as in the training file", found=found)
        if self.categories is None:
            return values.astype(np.float64)[:, None]
        odd = np.flatnonzero(~np.isin(values, self.categories))
        if len(odd):
            raise DataError(
                what,
                expected=f"one of the {len(self.categories)} texts of the training file",
                found=f"{len(odd)} others, the first {str(values[odd[0]])!r} in row {odd[0] + 1}",
                remedy="leave these rows out, or give the column a text for what is rare",
            )
        onehot: np.ndarray = values[:, None] == np.asarray(self.categories)
        return onehot.astype(np.float64)


def _features(frame: DataFrame, columns: Collection[_Column], path: Path) -> np.ndarray:
    parts = [column.features(frame[column.name], f"column {column.name} of {path}") for column in columns]
    return np.concatenate(parts, axis=1)


def _target(frame: DataFrame, said: str, source: str) -> tuple[str, list[str]]:
    """The column to predict, and a note if that was decided here."""
    names = list(frame.columns)
    usual = [name for name in names if name.lower() in USUAL_TARGETS]
    if said in names:
        return said, []
    if said or len(usual) != 1:
        shown = ", ".join(names[:20]) + (f", … ({len(names)} in all)" if len(names) > 20 else "")
        hint = did_you_mean(said, names)
        raise UsageError("`target`", expected=f"a column of {source} ({shown}){hint}", found=said or "nothing")
    return usual[0], [f"{source}: the column {usual[0]} is to be predicted; if it isn't, pass `target`"]


def _values(series: Series[Any], what: str) -> np.ndarray:
    """(N,) numbers, bools or strings.

    Raises:
        DataError: Missing values, dates, or something else.
    """
    from pandas import CategoricalDtype
    from pandas.api import types

    dtype: Any = series.dtype
    missing = int(series.isna().sum())
    if missing:
        raise _missing(missing, len(series), what)
    if isinstance(dtype, CategoricalDtype):
        return np.asarray([str(value) for value in series.tolist()])
    if types.is_bool_dtype(dtype):
        return np.asarray(series.to_numpy(dtype=bool))
    if types.is_numeric_dtype(dtype) and not types.is_complex_dtype(dtype):
        # Those of pandas and Arrow have a type of NumPy's inside.
        return np.asarray(series.to_numpy(dtype=getattr(dtype, "numpy_dtype", dtype)))
    values = series.tolist()
    if not all(isinstance(value, str) for value in values):
        kind = type(next(value for value in values if not isinstance(value, str))).__name__
        date = types.is_datetime64_any_dtype(dtype) or kind in ("date", "datetime", "Timestamp", "Timedelta", "time")
        raise _odd(what, "dates" if date else f"objects ({kind})")
    strings = np.asarray(values, dtype=np.str_)
    different = np.unique(strings).tolist()
    numbers = [text for text in different if text not in _MISSING]
    if len(numbers) < len(different) and numbers and all(map(_is_number, numbers)):
        raise _missing(int(np.isin(strings, _MISSING).sum()), len(strings), what)
    if all(map(_DATE.fullmatch, different)):
        raise _odd(what, f"dates, such as {different[0]}")
    return strings


def _missing(count: int, rows: int, what: str) -> DataError:
    remedy = "fill them in, or leave the rows or the column out"
    return DataError(what, expected="a value in every row", found=f"{count} of {rows} missing", remedy=remedy)


def _odd(what: str, found: str) -> DataError:
    remedy = "make numbers of them, such as days since the first, or leave the column out"
    return DataError(what, expected="numbers, bools or texts", found=found, remedy=remedy)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _require_columns(frame: DataFrame, wanted: Collection[str], path: Path) -> None:
    absent, more = ([n for n in one if n not in two] for one, two in ((wanted, frame.columns), (frame.columns, wanted)))
    if absent or more:
        said = [f"no {', '.join(map(str, absent))}"] if absent else []
        said += [f"also {', '.join(map(str, more))}"] if more else []
        raise DataError(f"{path}", expected="the columns of the training file", found="; ".join(said)[:200])
