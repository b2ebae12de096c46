"""A store in object storage: what is damaged is named, what is half there isn't there, readers never wait."""

import threading

import numpy as np
import pytest
from causalprune_cli.main import main
from objects import copy_down, copy_up, delete, local_tree, put, tree
from store_builders import INFO, STATISTICS, append_rows, make_recording, make_rows, make_store

from causalprune.base.errors import CorruptError, DataError, MismatchError, UsageError
from causalprune.trajectory import Store
from causalprune.trajectory.storage import locate

ROWS, COLUMNS = 21, 50
MARKER = ".partial-folder"


@pytest.fixture
def url(s3):
    """A finished recording with a fit."""
    url = f"{s3}/t.zarr"
    store, _ = make_recording(url, ROWS, COLUMNS, statistics=True)
    store.fits().write("default", {"gamma": np.arange(float(COLUMNS))}, {"alpha": 1})
    return url


def make_local(path):
    store, _ = make_recording(path, ROWS, COLUMNS, statistics=True)
    store.fits().write("default", {"gamma": np.arange(float(COLUMNS))}, {"alpha": 1})
    return path


NAMES = [
    "recordings/000/active/c.0",
    "recordings/000/active/zarr.json",
    "recordings/000/delta/c.0.0",
    "recordings/000/delta/c.1.0",
    "recordings/000/delta/c.2.0",
    "recordings/000/delta/commits.log",
    "recordings/000/delta/zarr.json",
    "recordings/000/fits/default/gamma/c.0",
    "recordings/000/fits/default/gamma/zarr.json",
    "recordings/000/fits/default/zarr.json",
    "recordings/000/fits/zarr.json",
    "recordings/000/layer_statistics/inputs/c.0",
    "recordings/000/layer_statistics/inputs/zarr.json",
    "recordings/000/layer_statistics/means/c.0",
    "recordings/000/layer_statistics/means/zarr.json",
    "recordings/000/layer_statistics/zarr.json",
    "recordings/000/steps/c.0.0",
    "recordings/000/steps/zarr.json",
    "recordings/000/zarr.json",
    "recordings/zarr.json",
    "zarr.json",
]


def test_its_objects_are_the_files_of_a_directory(url, tmp_path):
    local = make_local(tmp_path / "t.zarr")
    assert sorted(tree(url)) == NAMES
    assert tree(url) == local_tree(local)
    assert Store.open(copy_down(url, tmp_path / "down.zarr")).verify() == []


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped"])
def test_whatever_object_is_damaged_is_named(url, damage, capsys):
    whole = tree(url)
    for name in NAMES:
        data = whole[name]
        if damage == "missing":
            delete(url, name)
        else:
            middle = len(data) // 2
            flipped = data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]
            put(url, name, {"truncated": data[:middle], "flipped": flipped}[damage])
        assert main(["store", "verify", url, "--quiet"]) == 4, name
        error = capsys.readouterr().err
        node = f"{url}/{name.rpartition('/')[0]}" if "/" in name else url
        assert error.count("\n") == 1
        assert node in error, error
        put(url, name, data)
    assert main(["store", "verify", url, "--quiet"]) == 0


def test_a_damaged_shard_is_never_read_as_zeros(url):
    whole = tree(url)
    name = "recordings/000/delta/c.1.0"
    for data in (None, b"", whole[name][:-1], whole[name][:60] + b"\0" + whole[name][61:]):
        delete(url, name) if data is None else put(url, name, data)
        reader = Store.open(url).recording()
        with pytest.raises(CorruptError, match=f"{url}/{name}"):
            reader.read_columns(0, COLUMNS)
        # Also by a reader that knew the shard before.
        put(url, name, whole[name])
        used = Store.open(url).recording()
        used.read_columns(0, COLUMNS)
        delete(url, name) if data is None else put(url, name, data)
        with pytest.raises(CorruptError, match=f"{url}/{name}"):
            used.read_columns(0, COLUMNS)
        put(url, name, whole[name])


def test_readers_see_whole_rows_while_a_writer_goes_on(s3):
    url = f"{s3}/t.zarr"
    values = make_rows(60, COLUMNS)
    store = make_store(url, COLUMNS)
    writer = store.create_recording(INFO, np.ones(COLUMNS, bool), max_rows=60, codec="exact", block_rows=8)
    done = threading.Event()

    def write():
        for row in range(60):
            append_rows(writer, values, row, row + 1)
            if row % 3 == 2:
                writer.flush()
        writer.finish()
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    seen, looks = 0, 0
    try:
        while not done.is_set() or looks < 3:
            reader = Store.open(url).recording()
            assert reader.num_rows >= seen
            seen = reader.num_rows
            assert np.array_equal(reader.read_columns(0, COLUMNS), values[:seen])
            assert np.array_equal(reader.read_rows(0, seen), values[:seen])
            assert reader.verify() == []
            looks += 1
    finally:
        thread.join()
    assert Store.open(url).recording().num_rows == 60


def test_an_old_reader_keeps_its_rows_when_their_shard_is_replaced(s3):
    values = make_rows(20, COLUMNS)
    store = make_store(f"{s3}/t.zarr", COLUMNS)
    writer = store.create_recording(INFO, np.ones(COLUMNS, bool), max_rows=20, codec="exact", block_rows=8)
    append_rows(writer, values, 0, 10)
    writer.flush()
    old, used = store.recording(), store.recording()
    used.read_rows(0, 10)
    append_rows(writer, values, 10)
    writer.finish()
    for reader in (old, used):
        assert reader.num_rows == 10
        assert np.array_equal(reader.read_columns(0, COLUMNS), values[:10])
    again = store.recording()
    store.resume_recording("000", rows=4).abort()
    with pytest.raises(MismatchError, match="20 rows, as when it was opened"):
        again.read_columns(0, COLUMNS)


def test_statistics_of_layers_that_a_crash_left_half_written_are_not_there_and_go(url):
    before = tree(url)
    for name in (MARKER, "zarr.json", "means/zarr.json"):
        put(url, f"recordings/000/layer_statistics/{name}", b"{}")
    store = Store.open(url)
    assert store.recording().read_layer_statistics() is None
    assert store.verify() == []
    writer = store.resume_recording("000", rows=ROWS)
    assert not any("layer_statistics" in name for name in tree(url))
    writer.keep_layer_statistics(STATISTICS, {"samples": 7})
    writer.finish()
    assert tree(url) == before


def test_a_folder_with_a_marker_is_not_there(url):
    before = tree(url)
    put(url, f"recordings/001/{MARKER}", b"")
    put(url, "recordings/001/zarr.json", b"{}")
    put(url, f"recordings/000/fits/half/{MARKER}", b"")
    put(url, "recordings/000/fits/half/zarr.json", b"{}")
    store = Store.open(url)
    assert store.recordings == ("000",)
    assert store.recording().fits == ("default",)
    assert store.verify() == []
    store.fits().write("other", {"gamma": np.arange(3.0)}, {})
    (store.layout.recording("000").fits.folder / "other").remove_folder()
    with store.create_recording(INFO, np.ones(COLUMNS, bool), max_rows=3):
        pass
    store.delete_recording("001")
    assert tree(url) == before

    put(url, MARKER, b"")
    with pytest.raises(DataError, match="found nothing"):
        Store.open(url)
    make_recording(url, ROWS, COLUMNS, statistics=True)
    assert sorted(tree(url)) == [name for name in NAMES if "default" not in name]


def test_nothing_of_others_is_touched(s3):
    put(s3, "data/precious.bin", b"1")
    for place in ("data", "data/precious.bin", "data/precious.bin/x"):
        url = f"{s3}/{place}"
        if place != "data/precious.bin/x":
            with pytest.raises(UsageError, match="nothing there yet"):
                make_store(url, COLUMNS)
            with pytest.raises(DataError, match="something else"):
                Store.delete(url)
    make_store(f"{s3}/dat", COLUMNS)
    Store.delete(f"{s3}/dat")
    assert tree(s3) == {"data/precious.bin": b"1"}


def test_names_inside_stay_inside(url, s3):
    put(s3, "outside/zarr.json", b"{}")
    store = Store.open(url)
    for name in ("..", "../000", "a/b", ""):
        with pytest.raises(UsageError, match="letters, digits"):
            store.fits().write(name, {"gamma": np.arange(3.0)}, {})
        with pytest.raises(DataError, match="none of that name"):
            store.recording().read_fit(name)
        with pytest.raises(DataError, match="found 000"):
            store.recording(name)


def test_an_interrupted_recording_goes_on_elsewhere(s3, tmp_path):
    """Begun in object storage, continued on a disk; and the other way round."""
    values = make_rows(ROWS, COLUMNS)
    expected = local_tree(make_recording(tmp_path / "expected", ROWS, COLUMNS)[0].path)

    def begin(place):
        store = make_store(place, COLUMNS)
        with store.create_recording(INFO, np.ones(COLUMNS, bool), max_rows=ROWS, block_rows=8) as writer:
            append_rows(writer, values, 0, 13)

    def go_on(place):
        with Store.open(place).resume_recording("000", rows=11) as writer:
            append_rows(writer, values, 11)
            writer.finish()

    begin(f"{s3}/a.zarr")
    down = copy_down(f"{s3}/a.zarr", tmp_path / "a.zarr")
    go_on(down)
    assert local_tree(down) == expected
    begin(tmp_path / "b.zarr")
    up = copy_up(tmp_path / "b.zarr", f"{s3}/b.zarr")
    go_on(up)
    assert tree(up) == expected


def test_how_many_requests_it_takes(url):
    reader = Store.open(url).recording()
    client = locate(url).client
    counted = []
    real = client._request

    def request(action, key, call):
        counted.append(key.rpartition("/")[2])
        return real(action, key, call)

    client._request = request
    try:
        store = make_store(f"{url}-2", COLUMNS)
        writer = store.create_recording(INFO, np.ones(COLUMNS, bool), max_rows=ROWS, block_rows=8)
        for rows, shard in ((8, "c.0.0"), (10, "c.1.0")):
            counted.clear()
            append_rows(writer, make_rows(ROWS, COLUMNS), writer.rows_appended, rows)
            writer.flush()
            assert counted == [shard, shard, "commits.log"]
        counted.clear()
        append_rows(writer, make_rows(ROWS, COLUMNS), 10, 12)
        writer.flush()
        assert counted == ["c.1.0", "commits.log", "commits.log", "c.1.0", "commits.log"]
        writer.abort()
        counted.clear()
        reader.read_columns(0, COLUMNS)
        assert counted == ["c.0.0", "c.0.0", "c.1.0", "c.1.0", "c.2.0", "c.2.0"]
        counted.clear()
        reader.read_columns(10, 20)
        assert counted == ["c.0.0", "c.1.0", "c.2.0"]
    finally:
        del client._request


def test_what_is_larger_than_it_may_be_is_not_loaded(s3):
    put(s3, "large", b"x" * 1001)
    location = locate(f"{s3}/large")
    with pytest.raises(CorruptError, match="at most 1000 bytes, found 1001"):
        location.read(1000, "a file")
    with pytest.raises(CorruptError, match="at most 1000 bytes, found 1001"):
        location.log().read(1000)
    assert location.client.get(location.key, limit=1000)[0] == b""
    assert location.read(1001, "a file") == b"x" * 1001


def test_the_zarr_library_reads_a_store_in_object_storage(url):
    store = Store.open(url)
    reader, group = store.recording(), store.zarr()
    assert np.array_equal(group["recordings/000/delta"][...], reader.read_rows(0, ROWS))
    with pytest.raises(ValueError, match="read-only"):
        group.create_group("mine")
