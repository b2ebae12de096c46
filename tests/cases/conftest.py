"""The command line in an empty folder, as if each command were a process of its own."""

import json
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
from causalprune_cli.main import main


@dataclass
class Result:
    """What a command left: its exit code, and what it wrote."""

    code: int
    output: str
    error: str

    @property
    def json(self):
        """What ``--json`` printed; the command has to have succeeded."""
        assert self.code == 0, self.error
        return json.loads(self.output)

    @property
    def metrics(self):
        return self.json["metrics"]

    def refuses(self, says, codes=(2, 3)):
        """Whether it ended with one line that holds a word, and one of the codes for a user's mistake."""
        lines = [line for line in self.error.splitlines() if line.startswith("causalprune:")]
        return self.code in codes and len(lines) == 1 and says in lines[0]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, and in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    _forget_modules_of(tmp_path)


@pytest.fixture
def causalprune(folder, capsys):
    """Run a command there; a user's module is imported anew every time, and warnings are no errors."""

    def run(*arguments):
        _forget_modules_of(folder)
        capsys.readouterr()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


def _forget_modules_of(folder):
    sys.path_importer_cache.pop(str(folder), None)
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and folder in Path(file).parents:
            del sys.modules[name]
