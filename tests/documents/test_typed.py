"""What the documents tell people to type is understood: every command, script and option there is, and its values."""

import os
import re
import runpy
import sys
import tomllib
from argparse import ArgumentParser
from functools import cache

import pytest
from causalprune_cli.commands import make_command
from causalprune_cli.main import main
from causalprune_cli.session import Session
from typed import DOCUMENTS, ROOT, blocks, spans, typed

from causalprune.commands.names import CONFIGS

PLACEHOLDERS = {
    r"--recipe NAME\b": "--recipe paper-v1",
    r"\bstudy/NAME\b": "study/mlpnet",
    r"\bcausalprune COMMAND\b": "causalprune record",
    r"(--distill) W\b": r"\1 0.5",
    r"(--posttrain-epochs) E\b": r"\1 3",
    r"(--shard) I/N\b": r"\1 0/2",
    r"(--alphas|--cv|--steps|--iterations|--iteration|--log) (N|i|NAME)\b": r"\1 2",
    r"--lr LR --batch-size B\b": "--lr 0.01 --batch-size 16",
    r"--criterion sensitivity\b": "--criterion obd",  # which test_added_criterion.py installs
}
"""What stands for a value, and a value."""

NOT_COMMANDS = ("causalprune columns SEED",)
"""Inline code that begins like one."""

COMPLETION = {"--install-completion", "--show-completion"}
"""Options of the command line itself that change the home directory: ``tests/cli/test_completion.py`` tries them."""

OTHERS = {"--array", "--help", "--version", "--exclude", "--signal", "--requeue", "--gres", "--format"}
"""Options of other programs that stand alone: aws, pip, SLURM."""


def with_values(text):
    """A text in which values stand where the documents have placeholders."""
    for pattern, value in PLACEHOLDERS.items():
        text = re.sub(pattern, value, text)
    return text


def calls(path, program):
    """The calls of a program that a document tells people to type, each as its words; those of a launcher as well."""
    scripts = [block.text for block in blocks(path) if block.language == "sh"]
    scripts += [span for span in spans(path) if span.startswith(f"{program} ") and span not in NOT_COMMANDS]
    for words in typed(with_values("\n".join(scripts))):
        if program in words:
            yield words[words.index(program) + 1 :]


@pytest.fixture
def understood(monkeypatch, capsys):
    """Make the options of a command and do nothing else; returns what it has to say against it."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(Session, "run", lambda self, name, configure, show, **_: configure())

    def understood(words):
        code = main(words)
        said = capsys.readouterr()
        return "" if code == 0 else said.err

    return understood


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_every_command_is_understood(path, understood):
    wrong = {" ".join(words): understood(words) for words in calls(path, "causalprune") if not COMPLETION & {*words}}
    assert {words: message for words, message in wrong.items() if message} == {}


def test_a_wrong_name_and_a_wrong_value_are_not_understood(understood):
    assert "no such option" in understood(["record", "--step", "5"])
    assert "expected" in understood(["record", "--steps", "-5"])
    assert "expected one of" in understood(["apply-mask", "--sparsity", "0.9", "--scope", "worldwide"])


def test_blocks_are_read_as_bash_reads_them(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "Prose about `causalprune info` is a span.\n\n```sh\nfor s in 0.5 0.9; do\n  causalprune apply-mask \\\n"
        "    --sparsity $s  # a comment\ndone\nCAUSALPRUNE_RUN=x torchrun -m causalprune fit-gamma 'a b'\n```\n\n"
        "    causalprune pretrain --epochs 3 && rm -rf /\n\nas well, but not\n\n    a formula = causalprune\n"
    )
    assert list(calls(page, "causalprune")) == [
        ["apply-mask", "--sparsity", "0.5"],
        ["apply-mask", "--sparsity", "0.9"],
        ["fit-gamma", "a b"],
        ["pretrain", "--epochs", "3"],
        ["info"],
    ]


def test_files_of_options_are_understood_by_the_command_in_their_first_line(understood, tmp_path, monkeypatch):
    found = []
    for block in (block for path in DOCUMENTS for block in blocks(path) if block.language == "toml"):
        command = re.match(r"# (\S+\.toml): +causalprune (.+)\n", block.text)
        if command:
            (tmp_path / command[1]).write_text(block.text)
            monkeypatch.chdir(tmp_path)
            assert understood(command[2].split()) == ""
            found.append(command[1])
    assert found


def test_every_extra_that_is_named_exists():
    texts = [path.read_text() for path in [*DOCUMENTS, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]]
    named = {
        extra
        for text in texts
        for group in re.findall(r"pip install [^`\n]*\.\[([\w,]+)\]", text)
        for extra in group.split(",")
    }
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert named
    assert named <= set(extras)


@pytest.fixture
def parsed(monkeypatch, capsys):
    """Run a script up to the point where it knows its options; returns what it has to say against them."""

    class Parsed(Exception):
        pass

    def stop(parser, *args, **kwargs):
        parse(parser, *args, **kwargs)
        raise Parsed

    parse = ArgumentParser.parse_args
    monkeypatch.setattr(ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(os, "environ", os.environ.copy())

    def parsed(words):
        if words[0] == "-c":
            return "" if compile(words[1], "-c", "exec") else "nothing"
        script = ROOT / words[0]
        if "parse_args" not in script.read_text():
            return " ".join(words[1:])
        monkeypatch.setattr(sys, "argv", [str(script), *words[1:]])
        monkeypatch.syspath_prepend(str(script.parent))
        try:
            runpy.run_path(str(script), run_name="__main__")
        except Parsed:
            return ""
        except SystemExit:
            return capsys.readouterr().err
        return "it doesn't read its options"

    return parsed


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_every_script_takes_its_options(path, parsed):
    wrong = {" ".join(words): parsed(words) for words in calls(path, "python") if words[0] != "-m"}
    assert {words: message for words, message in wrong.items() if message} == {}


@cache
def options_of(command):
    return {flag for each in make_command(command).params for flag in (*each.opts, *each.secondary_opts)}


EVERY_OPTION = {flag for command in CONFIGS for flag in options_of(command)} | COMPLETION


@pytest.mark.parametrize("path", [*DOCUMENTS, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=lambda p: p.name)
def test_every_option_that_is_mentioned_exists(path):
    """That of the command in front of it, if there is one."""
    unknown = []
    for span in spans(path):
        words = span.removeprefix("causalprune ").split()
        command = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in CONFIGS), None)
        known = options_of(command) if command else EVERY_OPTION | OTHERS | script_options()
        if command or span.startswith("--"):
            flags = re.findall(r"(?<![\w-])--[a-z][a-z-]+", span)
            unknown += [span for flag in flags if flag not in known | {"--help"}]
    assert unknown == []


@cache
def script_options():
    """The options of the scripts that documents name."""
    scripts = [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "docs").rglob("*.py")]
    return {flag for path in scripts for flag in re.findall(r'add_argument\(\s*"(--[a-z-]+)"', path.read_text())}
