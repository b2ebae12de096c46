"""Names that come from files can't move the cursor, end a line or color anything."""

import json
import logging

import numpy as np
import pytest
from causalprune_cli.main import main
from causalprune_cli.session import print_error, start_logging
from rich.console import Console
from store_builders import INFO, append_rows, make_rows

from causalprune.base.progress import logger
from causalprune.models.parameters import ParameterIndex
from causalprune.trajectory import Store

NAME = "fc\x1b[2J\x9b31m\n\u202e[/red]:smile:.weight"
SHOWN = r"fc\u001b[2J\u009b31m\n\u202e[/red]:smile:.weight"


@pytest.fixture
def store(tmp_path):
    index = ParameterIndex.from_json([{"name": NAME, "shape": [5], "filter_axis": 0}])
    store = Store.create(tmp_path / "t.zarr", index=index, model={"name": NAME}, start_sha256="")
    with store.create_recording(INFO, np.ones(5, bool)) as writer:
        append_rows(writer, make_rows(3, 5))
        writer.finish()
    return store


def harmless(text):
    return all(character.isprintable() or character == "\n" for character in text)


def test_a_result_is_printed_without_control_characters(store, capsys):
    assert main(["info", str(store.path), "--param", NAME]) == 0
    shown = capsys.readouterr()
    assert harmless(shown.out + shown.err)
    assert SHOWN in shown.out


def test_json_is_printed_without_control_characters_and_says_the_same(store, capsys):
    assert main(["info", str(store.path), "--param", NAME, "--json"]) == 0
    out = capsys.readouterr().out
    assert harmless(out)
    assert json.loads(out)["details"]["parameter"]["name"] == NAME


def test_an_error_is_one_line(store, capsys):
    shard = store.path / "recordings/000/delta/c.0.0"
    assert main(["info", str(store.path), "--param", "\x1b[31mfc"]) == 2
    error = capsys.readouterr().err
    assert harmless(error)
    assert error.count("\n") == 1
    shard.unlink()
    moved = store.path.rename(store.path.with_name("a\x1b]0;b\x07\nc.zarr"))
    assert main(["store", "verify", str(moved)]) == 4
    error = capsys.readouterr().err
    assert harmless(error)
    assert r"a\u001b]0;b\u0007\nc.zarr" in error


@pytest.mark.parametrize("as_json", [True, False])
def test_logs_are_without_control_characters_and_passwords(capsys, as_json):
    start_logging(logging.INFO, as_json=as_json)
    logger.warning("%s at https://me:secret@host", NAME)
    print_error(SHOWN, 3)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(harmless(line) for line in lines)
    assert "https://***@host" in lines[0]


def test_a_warning_on_a_terminal_is_without_them_too(capsys):
    start_logging(logging.INFO, as_json=False, console=Console(no_color=True, width=200))
    logger.warning("%s", NAME)
    assert capsys.readouterr().out == f"warning: {SHOWN}\n"
