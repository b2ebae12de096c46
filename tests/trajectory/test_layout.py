"""A group whose members are replaced as a whole, whatever a crash left of replacing them."""

import re

import pytest

from causalprune.trajectory.layout import Collection
from causalprune.trajectory.storage import locate


@pytest.fixture
def collection(tmp_path):
    made = Collection(locate(tmp_path / "group"), re.compile(r"\d{3}"))
    made.make()
    return made


def member(text):
    def fill(folder):
        folder.make_folder()
        (folder / "text").write(text.encode())

    return fill


def content(collection, name):
    return (collection.find(name) / "text").read(100, "text").decode()


def test_members_are_found_by_the_names_that_they_can_have(collection):
    for name in ("001", "000", "else"):
        member(name)(collection.folder / name)
    (collection.folder / "002").write(b"a file")
    assert collection.names() == ["000", "001"]
    assert content(collection, "001") == "001"
    assert [collection.find(name) for name in ("002", "003", "else", "../group/000")] == [None] * 4


def test_a_replaced_member_is_one_or_the_other_after_a_crash_at_either_rename(collection):
    collection.replace("000", member("old"))
    aside = collection.folder / ".000.replaced"
    (collection.folder / "000").move(aside)
    assert collection.names() == ["000"]
    assert content(collection, "000") == "old"
    collection.recover()
    assert sorted(collection.folder.children()) == ["000", "zarr.json"]
    collection.replace("000", member("new"))
    assert content(collection, "000") == "new"
    member("old")(aside)
    collection.recover()
    assert content(collection, "000") == "new"
    assert not aside.exists()


def test_recovering_leaves_other_hidden_folders_alone(collection):
    member("mine")(collection.folder / ".else.replaced")
    member("half")(collection.folder / ".000.partial-7-7")
    collection.recover()
    assert sorted(collection.folder.children()) == [".else.replaced", "zarr.json"]
