"""``--help``: what matters first, the rest in panels, nothing cut, at the widths that terminals have."""

import re
from dataclasses import fields

import pytest
from causalprune_cli.commands import make_command
from causalprune_cli.main import main
from causalprune_cli.session import Session

from causalprune.base.options import COMMON, PANELS, option_text
from causalprune.commands.names import CONFIGS

A_DOZEN = 12


def shown(capsys, monkeypatch, command, width):
    monkeypatch.setenv("COLUMNS", str(width))
    assert main([*command.split(), "--help"]) == 0
    return capsys.readouterr().out


def words(text):
    """The text of a help as one line, without the borders of its panels."""
    return " ".join(re.sub("[│╭╮╰╯─]", " ", text).split())


def options(command):
    return [each for each in make_command(command).params if each.param_type_name == "option"]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("command", list(CONFIGS))
def test_nothing_is_cut_or_broken(capsys, monkeypatch, command, width):
    text = shown(capsys, monkeypatch, command, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text.replace(".onnx, …", "")
    assert "<" not in text
    said = words(text)
    config = CONFIGS.load(command)
    for name, f in config.option_fields().items():
        for choice in getattr(f.metadata["check"], "choices", ()):
            assert re.search(rf"(?<![\w-]){re.escape(choice)}(?![\w-])", said), (name, choice)
    for each in options(command):
        assert each.opts[-1] in said
        assert words(each.help) in said, each.name


@pytest.mark.parametrize("command", list(CONFIGS))
def test_every_default_is_shown(capsys, monkeypatch, command):
    text = words(shown(capsys, monkeypatch, command, 80))
    for name, f in CONFIGS.load(command).option_fields().items():
        if f.default is True:
            assert "[yes]" in text
        elif f.default not in (None, "", ()) and f.default is not False:
            assert f"[{option_text(f.default)}]" in text, name


def test_zero_is_a_default_too(capsys, monkeypatch):
    text = words(shown(capsys, monkeypatch, "run", 80))
    assert "Seed of every random choice. [0]" in text


@pytest.mark.parametrize("command", list(CONFIGS))
def test_about_a_dozen_options_come_first_and_the_common_ones_last(command):
    found = options(command)
    panels = list(dict.fromkeys(each.rich_help_panel or "" for each in found))
    assert panels == [panel for panel in PANELS if panel in panels]
    assert sum(each.rich_help_panel is None for each in found) <= A_DOZEN
    common = [each.name for each in found if each.rich_help_panel == COMMON]
    config = CONFIGS.load(command)
    of_all = [f.name for f in fields(Session) if f.name in common]
    assert common[-len(of_all) :] == of_all
    # Nothing common elsewhere, and in one order everywhere.
    expected = [name for name in ("run", "stop_signals", "overwrite", "break_lock") if name in config.option_fields()]
    if command == "report":
        assert "run" in common
    assert sorted(common[: -len(of_all)]) == sorted(expected)


def test_options_that_matter_are_options_of_their_command():
    for command in CONFIGS:
        config = CONFIGS.load(command)
        names = config.first.split()
        assert len(set(names)) == len(names)
        assert set(names) <= config.option_fields().keys(), command


def test_the_first_screen_of_run_has_what_a_first_run_needs(capsys, monkeypatch):
    """Forty lines of eighty columns: usage, what it does, and the first panel as a whole."""
    lines = shown(capsys, monkeypatch, "run", 80).splitlines()[:40]
    panel = "\n".join(lines)
    assert "╰─" in panel
    for flag in ("--dataset", "--model", "--from", "--iterations", "--sparsity", "--criterion", "--set", "--dry-run"):
        assert f"│ {flag} " in panel


@pytest.mark.parametrize("said", [[], ["store"]])
def test_without_a_command_the_help_is_shown(capsys, said):
    assert main(said) == 2
    captured = capsys.readouterr()
    assert captured.err == ""
    assert main([*said, "--help"]) == 0
    assert capsys.readouterr().out.rstrip() == captured.out.rstrip()
    assert "COMMAND" in captured.out


def test_names_in_brackets_are_no_markup(capsys, monkeypatch):
    text = words(shown(capsys, monkeypatch, "sweep", 80))
    assert "--vary [STAGE.]OPTION=VALUES" in text
