"""What a batch job says on stderr."""

import json

import pytest
from causalprune_cli.main import main

TINY = ["pretrain", "--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4"]


def test_without_a_terminal_there_are_lines_and_no_bars(tmp_path, capsys):
    assert main([*TINY, "--epochs", "1", "--run", str(tmp_path)]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(maxsplit=1)[1].split()[0] for line in lines] == ["pretrain:", "pretrain:"]


def test_log_json_is_an_object_a_line_and_so_is_the_error(tmp_path, capsys):
    assert main([*TINY, "--epochs", "1", "--run", str(tmp_path), "--log-json"]) == 0
    first, last = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["level"], first["task"], first["done"], first["total"]) == ("info", "pretrain", 0, 7)
    assert last["done"] == 7
    assert first["time"].endswith("+00:00")
    assert main([*TINY, "--epochs", "2", "--run", str(tmp_path), "--log-json"]) == 5
    (line,) = capsys.readouterr().err.splitlines()
    error = json.loads(line)
    assert (error["level"], error["exit_code"]) == ("error", 5)
    assert "--overwrite" in error["message"]


@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_an_error_is_a_plain_line_again_without_the_option(tmp_path, capsys, quiet):
    assert main(["posttrain", "--run", str(tmp_path), *quiet]) == 3
    assert capsys.readouterr().err.startswith("causalprune: ")
