import os
from pathlib import Path

import pytest

from causalprune.base.paths import real_path, utf8_path


@pytest.mark.parametrize("name", ["plain", "ä", os.fsdecode(b"r\xe9n")], ids=["ASCII", "UTF-8", "Latin-1"])
def test_a_name_in_utf8_leads_to_every_file(tmp_path, name):
    (tmp_path / name).write_bytes(b"content")
    with utf8_path(tmp_path / name) as found:
        assert Path(found.encode().decode()).read_bytes() == b"content"
        assert (found == str(tmp_path / name)) == (name != os.fsdecode(b"r\xe9n"))


def test_a_circle_of_links_ends_somewhere(tmp_path):
    (tmp_path / "here").symlink_to("there")
    (tmp_path / "there").symlink_to("here")
    (tmp_path / "link").symlink_to("file")
    assert real_path(tmp_path / "here").parent == tmp_path
    assert real_path(tmp_path / "link" / ".." / "link") == tmp_path / "file"
