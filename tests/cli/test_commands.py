"""The table of commands is all that the command line knows of them."""

import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from causalprune.commands.names import CONFIGS, FUNCTIONS, GROUPS, summary, summary_of

ROOT = Path(__file__).parents[2]

COMMAND = '''
from dataclasses import dataclass

from causalprune.config.shared import RuntimeOptions
from causalprune.base.options import at_least, option
from causalprune.commands._output import StageResult


@dataclass(frozen=True, kw_only=True)
class GreetConfig(RuntimeOptions):
    """Greet somebody.

    Example: causalprune greet --times 2
    """

    whom: str = option("world", "Who is greeted.")
    times: int = option(1, "How often.", check=at_least(1))


@dataclass(frozen=True, kw_only=True)
class GreetResult(StageResult):
    greetings_said: list[str]


def greet(config, reporter=None):
    return GreetResult(stage="greet", inputs={}, outputs={}, greetings_said=[f"hello {config.whom}"] * config.times)
'''
LINE = '    "greet": ("causalprune.commands.greet:GreetConfig", "causalprune.commands.greet:greet"),\n'


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the package with one more command."""
    root = tmp_path_factory.mktemp("extended")
    shutil.copytree(ROOT / "causalprune", root / "causalprune", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "cli", root / "causalprune_cli", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "causalprune/commands/greet.py").write_text(COMMAND)
    names = root / "causalprune/commands/names.py"
    names.write_text(names.read_text().replace("_COMMANDS = {\n", "_COMMANDS = {\n" + LINE))

    def call(*args, **environment):
        environment = {**os.environ, "PYTHONPATH": str(root), "COLUMNS": "100", **environment}
        command = [sys.executable, "-m", "causalprune", *args]
        return subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=False)

    return call


def test_a_new_command_is_one_file_and_one_line(extended):
    done = extended("greet", "--times", "2", CAUSALPRUNE_WHOM="you")
    assert (done.returncode, done.stderr) == (0, "")
    assert " ".join(done.stdout.split()) == "greetings said ['hello you', 'hello you']"
    done = extended("greet", "--json")
    assert json.loads(done.stdout)["metrics"] == {"greetings_said": ["hello world"]}
    done = extended("greet", "--help")
    assert "Greet somebody." in done.stdout
    assert done.stdout.rstrip().endswith("Example: causalprune greet --times 2")
    assert "--overwrite" not in done.stdout
    done = extended("greet", "--times", "0")
    assert (done.returncode, "--times: expected a whole number of at least 1" in done.stderr) == (2, True)


def test_every_command_in_the_table_is_there():
    assert all(isinstance(CONFIGS.load(name), type) for name in CONFIGS)
    assert all(inspect.isfunction(FUNCTIONS.load(name)) for name in CONFIGS)


def test_the_list_of_commands_says_what_the_help_of_each_begins_with():
    assert {name: summary(name) for name in CONFIGS} == {name: summary_of(CONFIGS.load(name)) for name in CONFIGS}


@pytest.mark.parametrize("said", [["--help"], ["store", "--help"], ["--version"]])
def test_a_list_of_commands_imports_the_options_of_none(said):
    code = "import sys; from causalprune_cli.main import main; code = main(sys.argv[1:]); print(code, *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *said], capture_output=True, text=True, check=True)
    shown, _, last = done.stdout.rstrip("\n").rpartition("\n")
    status, *modules = last.split()
    assert status == "0"
    assert not [name for name in modules if name in ("numpy", "torch") or name.startswith("causalprune.config")]
    listed = {"--help": {name.partition(" ")[0] for name in CONFIGS}, "store": {"verify", "merge", GROUPS["store"][1]}}
    assert all(name in shown for name in listed.get(said[0], []))
