"""One writer a store: of any number of contenders, also on several hosts, one gets the lock."""

import dataclasses
import json
import threading

import pytest
from causalprune_cli.main import main
from objects import delete, put, tree
from store_builders import make_recording

from causalprune.base.errors import LockedError, StorageError
from causalprune.base.locks import LockHolder
from causalprune.trajectory import Store
from causalprune.trajectory.storage import locate
from causalprune.trajectory.storage.object_client import ConflictError, ObjectClient


def record_of(**changes):
    return json.dumps(dataclasses.asdict(dataclasses.replace(LockHolder.current(), **changes))).encode()


def test_one_of_many_gets_it(s3):
    location = locate(f"{s3}/lock")
    put(s3, "lock", record_of(start="1"))
    locks = [location.lock() for _ in range(8)]
    taken, refused = [], []

    def contend(lock):
        try:
            lock.acquire()
            taken.append(lock)
        except LockedError:
            refused.append(lock)

    threads = [threading.Thread(target=contend, args=(lock,)) for lock in locks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(taken), len(refused)) == (1, 7)
    refused[0].release()
    assert location.holder() is not None
    taken[0].release()
    assert location.holder() is None


def test_a_second_writer_a_dead_one_and_one_of_another_host(s3, run, capsys):
    url = f"{s3}/t.zarr"
    record = ["record", "--steps", "4", "--run", str(run), "--store", url, "--quiet"]
    assert main(record) == 0
    expected = tree(url)
    (run / "recorded.safetensors").unlink()
    capsys.readouterr()

    put(url, ".lock", record_of())
    assert main([*record, "--overwrite"]) == 7
    error = capsys.readouterr().err
    assert f"lock {url}/.lock" in error
    assert "wait until it ends" in error
    assert {name: data for name, data in tree(url).items() if name != ".lock"} == expected

    put(url, ".lock", record_of(host="elsewhere"))
    assert main([*record, "--overwrite"]) == 7
    assert "--break-lock" in capsys.readouterr().err
    assert Store.open(url).writer.host == "elsewhere"
    assert main(["info", url, "--quiet"]) == 0
    assert main([*record, "--overwrite", "--break-lock"]) == 0
    assert tree(url) == expected

    (run / "recorded.safetensors").unlink()
    put(url, ".lock", record_of(start="1"))
    assert main([*record, "--overwrite"]) == 0
    assert tree(url) == expected

    # Of fits, too.
    fit = ["fit-gamma", "--run", str(run), "--store", url, "--quiet"]
    put(url, ".fits-lock", record_of(host="elsewhere"))
    assert main(fit) == 7
    assert main([*fit, "--break-lock"]) == 0
    assert Store.open(url).recording().fits == ("default",)


def test_something_else_in_its_place(s3):
    location = locate(f"{s3}/lock")
    put(s3, "lock", b"hello")
    with pytest.raises(LockedError, match="`break_lock`"):
        location.lock().acquire()
    with pytest.raises(LockedError, match="a record"):
        location.holder()
    with location.lock(break_lock=True):
        assert location.holder() is not None
    assert location.holder() is None


def test_a_broken_lock_is_left_to_its_new_holder(s3):
    location = locate(f"{s3}/lock")
    lock = location.lock()
    lock.acquire()
    put(s3, "lock", record_of(host="elsewhere"))
    lock.release()
    assert location.holder().host == "elsewhere"


@pytest.mark.parametrize("ignored", ["If-None-Match", "If-Match"])
def test_storage_that_ignores_conditions_is_refused(s3, monkeypatch, ignored):
    real = ObjectClient.put_if

    def put_if(client, key, data, version):
        try:
            return real(client, key, data, version)
        except ConflictError:
            if (version is None) != (ignored == "If-None-Match"):
                raise
            client.put(key, data)
            return client.head(key).version

    monkeypatch.setattr(ObjectClient, "put_if", put_if)
    with pytest.raises(StorageError, match=f"ignores {ignored}"):
        make_recording(f"{s3}/t.zarr")
    assert tree(s3) == {}
    delete(s3, "nothing")
