"""Tables: the same data set as the same numbers in an array, and refused where a column can't be one."""

import datetime
import sys

import numpy as np
import pytest

from causalprune.base.errors import CorruptError, DataError, UsageError
from causalprune.base.specs import DataSpec
from causalprune.commands.provenance.sources import sources_of
from causalprune.data.datasets import load_data

pandas = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

N = 120
RNG = np.random.default_rng(0)
SIZE, COUNT, FLAG = RNG.normal(size=N), RNG.integers(0, 9, N), RNG.random(N) < 0.5
COLOR = RNG.choice(["red", "Blue", "green, pale", 'gr"een'], N)
LABEL = RNG.choice(["yes", "no"], N)
COLORS = sorted(set(COLOR))


def table(**changed):
    columns = {"size": SIZE, "color": COLOR, "count": COUNT, "flag": FLAG, "label": LABEL} | changed
    return pandas.DataFrame({name: values for name, values in columns.items() if values is not None})


def features(size=SIZE):
    return np.column_stack([size, *(color == COLOR for color in COLORS), COUNT, FLAG]).astype(np.float64)


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def load(frame, *, form="csv", **spec):
        if form == "csv":
            frame.to_csv("table.csv", index=False)
        else:
            frame.to_parquet("table.parquet")
        return load_data(DataSpec(name=f"{form}:table.{form}", **spec))

    return load


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("size", [SIZE, SIZE * 60 + 1.7e9])
def test_a_table_is_the_data_set_of_its_numbers(load, form, size):
    np.savez("arrays.npz", x=features(size), y=LABEL)
    expected = load_data(DataSpec(name="npz:arrays.npz"))
    data = load(table(size=size), form=form)
    assert data.fingerprint == expected.fingerprint
    assert data.class_names == ("no", "yes")
    assert data.train.inputs.equal(expected.train.inputs)
    assert any("color (4)" in note for note in data.notes)


@pytest.mark.parametrize("dtype", ["float32", "Int64", "int8", "category", "string", "int64[pyarrow]", "bool"])
def test_columns_of_any_dtype(load, dtype):
    values = COUNT.astype(str) if dtype in ("category", "string") else FLAG if dtype == "bool" else COUNT
    column = pandas.Series(values).astype(dtype)
    frame = pandas.DataFrame({"a": column, "b": SIZE, "label": COUNT % 3})
    texts = [values == text for text in sorted(set(values))] if dtype in ("category", "string") else [values]
    np.savez("arrays.npz", x=np.column_stack([*texts, SIZE]).astype(np.float64), y=COUNT % 3)
    expected = load_data(DataSpec(name="npz:arrays.npz"))
    assert load(frame, form="parquet").fingerprint == expected.fingerprint


def test_the_target_may_be_any_column_and_of_any_kind(load):
    data = load(table(label=None), target="size")
    assert (data.task.name, data.input_shape) == ("regression", (6,))
    data = load(table(label=None, count=COUNT % 3), target="count")
    assert (data.class_names, data.input_shape) == (("0", "1", "2"), (6,))
    data = load(table(label=pandas.Categorical(LABEL)), form="parquet", target="label")
    assert data.class_names == ("no", "yes")
    with pytest.raises(UsageError, match="`task`: expected classification"):
        load(table(), task="regression")


def test_the_files_of_a_folder_are_the_splits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts").mkdir()
    frame, rows = table(color=np.arange(N) % 3 * 10), {"train": slice(70), "Valid": slice(70, 90), "test": slice(90, N)}
    frame["color"] = frame["color"].astype(str).replace("20", "twenty")
    for name, part in rows.items():
        # In another order of columns; the test file has only codes that look like numbers.
        chosen = frame[part][list(reversed(frame.columns))] if name == "test" else frame[part]
        chosen[chosen["color"] != "twenty" if name == "test" else chosen["size"] < 99].to_csv(
            f"parts/{name}.csv", index=False
        )
    data = load_data(DataSpec(name="csv:parts"))
    assert (len(data.train), len(data.validation)) == (70, 20)
    np.testing.assert_array_equal(data.train.inputs[:, 1:4].numpy(), np.eye(3, dtype=np.float32)[np.arange(70) % 3])
    test = np.arange(90, N)
    test = test[test % 3 < 2]
    np.testing.assert_allclose(data.test.inputs[:, 0].numpy(), SIZE[test], rtol=1e-6)
    np.testing.assert_array_equal(data.test.inputs[:, 1:4].numpy(), np.eye(3, dtype=np.float32)[test % 3])


def test_one_file_in_a_folder_is_cut(tmp_path, load):
    expected = load(table()).fingerprint
    (tmp_path / "table.csv").rename(tmp_path / "Train.CSV")
    assert load_data(DataSpec(name=f"csv:{tmp_path}")).fingerprint == expected
    (tmp_path / "training.csv").write_bytes((tmp_path / "Train.CSV").read_bytes())
    with pytest.raises(DataError, match=r"one file of the train split, found Train\.CSV, training\.csv"):
        load_data(DataSpec(name=f"csv:{tmp_path}"))


def test_a_changed_file_is_noticed(load):
    load(table())
    spec = DataSpec(name="csv:table.csv")
    before = sources_of("mlp", spec)
    assert set(before) == {"data of csv:table.csv"}
    load(table(count=COUNT + 1))
    assert sources_of("mlp", spec) != before


NAMES = [f"name {number}" for number in range(N)]
DAYS = [f"2024-01-{1 + number % 28:02d}" for number in range(N)]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"size": [None, None, *SIZE[2:]]},
            r"column size of table.csv: .*every row, found 2 of 120 missing; fill them",
        ),
        ({"size": ["NA", "?", *SIZE[2:]]}, r"column size of table.csv: .*found 2 of 120 missing"),
        ({"label": [None, *LABEL[1:]]}, r"column label of table.csv: .*found 1 of 120 missing"),
        ({"color": [None, *COLOR[1:]]}, r"column color of table.csv: .*found 1 of 120 missing"),
        ({"size": [np.inf, *SIZE[1:]]}, "finite float32 numbers"),
        ({"name": NAMES}, "at most 100 different texts, found 120 in 120 rows, such as 'name 0'; leave"),
        ({"day": DAYS}, "column day .*found dates, such as 2024-01-01; make numbers of them"),
        ({" ": SIZE}, "a name for each column, found none for column 6"),
        ({"size": None, "color": None, "count": None, "flag": None}, "a column beside label, found none"),
    ],
)
def test_a_column_that_is_no_feature_is_told_in_one_line(load, changed, words):
    with pytest.raises(DataError, match=words) as caught:
        load(table(**changed))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (pandas.to_datetime(DAYS), "dates"),
        ([datetime.date(2024, 1, 1)] * N, "dates"),
        ([[1, 2]] * N, "objects"),
        ([b"a"] * N, r"objects \(bytes\)"),
    ],
)
def test_objects_of_a_parquet_file_are_told(load, values, found):
    with pytest.raises(DataError, match=f"column day of table.parquet: .*found {found}"):
        load(table(day=values), form="parquet")


@pytest.mark.parametrize(
    ("said", "columns", "found"),
    [("price", {}, "price"), ("", {"label": None}, "nothing"), ("", {"y": SIZE}, "nothing")],
)
def test_a_target_that_is_not_there_or_could_be_either(load, said, columns, found):
    with pytest.raises(UsageError, match=f"`target`: expected a column of table.csv \\(size, .*, found {found}"):
        load(table(**columns), target=said)
    with pytest.raises(UsageError, match=r"color.* \(did you mean 'color'\?\), found colr"):
        load(table(), target="colr")
    with pytest.raises(UsageError, match="`target`: expected nothing for digits"):
        load_data(DataSpec(name="digits", target="label"))


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("a;b;label\n1;2;3\n", DataError, "cells divided by commas, found the header 'a;b;label'"),
        ("a,label\n1,2\n3,4,5\n", CorruptError, "rows of as many cells as the header"),
        ("a,label\n1,2,3\n3,4,5\n", CorruptError, "rows of as many cells as the header"),
        ("a,a,label\n1,2,3\n", DataError, "each column's name once, found a several times"),
        ("", DataError, "a table with a header, found an empty file"),
        ("a,label\n", DataError, "at least one row, found none"),
        ("a,label\né,1\n".encode("latin-1"), DataError, "text in UTF-8"),
        (b"\x00\x01\x02" * 50, DataError, "found none"),
    ],
)
def test_a_file_that_is_no_table(tmp_path, text, kind, words):
    path = tmp_path / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(kind, match=words) as caught:
        load_data(DataSpec(name=f"csv:{path}"))
    assert "\n" not in str(caught.value)


def test_files_that_are_not_there_or_damaged(tmp_path, load):
    with pytest.raises(DataError, match=r"a \.csv file, found nothing; check the path"):
        load_data(DataSpec(name=f"csv:{tmp_path / 'none.csv'}"))
    with pytest.raises(DataError, match=r"train\.csv, perhaps with val\.csv and test\.csv, found nothing"):
        load_data(DataSpec(name=f"csv:{tmp_path}"))
    load(table(), form="parquet")
    whole = (tmp_path / "table.parquet").read_bytes()
    (tmp_path / "table.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorruptError, match=r"an intact \.parquet file"):
        load_data(DataSpec(name="parquet:table.parquet"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda test: test.assign(color="violet"),
            "one of the 4 texts of the training file, found 30 others, the first 'v",
        ),
        (lambda test: test.assign(size="big"), "column size .*expected numbers, as in the training file, found texts"),
        (
            lambda test: test.drop(columns="count").assign(more=1),
            "the columns of the training file, found no count; also m",
        ),
        (lambda test: test.assign(label="maybe"), "only labels of the training data"),
    ],
)
def test_a_test_file_of_other_columns_or_texts(tmp_path, change, words):
    frame = table()
    frame[:90].to_csv(tmp_path / "train.csv", index=False)
    change(frame[90:]).to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(DataError, match=words) as caught:
        load_data(DataSpec(name=f"csv:{tmp_path}"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["pandas", "pyarrow"])
def test_the_extra_is_named(load, missing, monkeypatch):
    load(table(), form="parquet")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UsageError, match=r"table.parquet needs pandas and pyarrow: pip install '\.\[tables\]'"):
        load_data(DataSpec(name="parquet:table.parquet"))
