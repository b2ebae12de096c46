import os
from pathlib import Path

import pytest

from causalprune.base.paths import meant_path, real_path, utf8_path


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


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("run/prunned.safetensors", "run/pruned.safetensors"),
        ("run/pruned.safetensor", "run/pruned.safetensors"),
        ("run/exportd.csr.safetensors", "run/exported.csr.safetensors"),
        ("rum/pruned.safetensors", "run/pruned.safetensors"),
        # Another stage's, a hidden file, a file that the other folder lacks, no folder at all.
        ("run/repaired.safetensors", ""),
        ("run/prunedd.mask.safetensors", "run/pruned.safetensors"),
        ("run/.pruned.safetensors.lock", ""),
        ("rum/final.safetensors", ""),
        ("far/away/pruned.safetensors", ""),
    ],
)
def test_what_a_path_means_that_leads_nowhere(tmp_path, said, meant):
    (tmp_path / "run").mkdir()
    files = ("pruned", "pruned.mask", "recorded", "exported.csr", ".final")
    for name in files:
        (tmp_path / f"run/{name}.safetensors").touch()
    (tmp_path / "run/prunned.txt").touch()
    expected = f"did you mean {tmp_path / meant}?" if meant else ""
    assert meant_path(tmp_path / said, "*.safetensors") == expected
