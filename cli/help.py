"""What ``--help`` shows: usage, what the command does, its options in panels, an example.

Typer's own layout gives each kind of flag and the type a column, which leaves little for the text: at 80 columns it
breaks choices inside a word.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from causalprune.base.errors import ExitCode

_NARROW, _WIDE = 26, 32
"""Columns of the flags, by the width of the terminal; a longer flag has its text below."""


class Command(TyperCommand):
    """A command that shows its help this way."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help."""
        del formatter
        _print_help(self, ctx)


class Group(TyperGroup):
    """A group of commands that shows its help this way, also if none of them is named, and says which one was meant."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Show the help if there are no arguments; the exit code is that of a usage error."""
        if not args and not ctx.resilient_parsing:
            _print_help(self, ctx)
            raise typer.Exit(int(ExitCode.USAGE))
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is named.

        Raises:
            UsageError: There is none of that name.
        """
        said, *_ = args
        if not said.startswith("-") and self.get_command(ctx, said) is None and not ctx.resilient_parsing:
            from .mistakes import no_such_command

            raise no_such_command(said, self.list_commands(ctx), ctx.command_path)
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help."""
        del formatter
        _print_help(self, ctx)


def _print_help(command: Any, context: Any) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.panel import Panel
    from rich.text import Text

    console = Console(highlight=False, markup=False, emoji=False)
    usage = Text.assemble(("Usage: ", "yellow"), context.get_usage().partition(": ")[2])
    console.print(Padding(usage, (1, 1, 1, 1)))
    text = inspect.cleandoc(command.help or "")
    # A paragraph fills the width, however it is broken in the source.
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
    console.print(Padding(Text("\n\n".join(paragraphs)), (0, 1, 1, 1)))
    names = list(_commands(command, context))
    widest = max((len(name) for _, name, _ in names), default=0)
    for rows, width in ((_parameters(command, context), 0), (names, widest)):
        panels: dict[str, list[tuple[str, str]]] = {}
        for title, flags, meaning in rows:
            panels.setdefault(title, []).append((flags, meaning))
        for title, lines in panels.items():
            body = _body(lines, console, width=width)
            console.print(Panel(body, title=title, title_align="left", border_style="dim"))
    if command.epilog:
        console.print(Padding(Text(command.epilog), (1, 1, 1, 1)))


def _parameters(command: Any, context: Any) -> Iterator[tuple[str, str, str]]:
    """Panel, flags and help of each parameter that isn't hidden: arguments first, and the help's own flag last."""
    shown = [each for each in command.get_params(context) if not getattr(each, "hidden", False)]
    asked = context.help_option_names
    shown.sort(key=lambda each: (each.param_type_name != "argument", each.opts == asked))
    common = next((each.rich_help_panel for each in reversed(shown) if each.opts != asked), None)
    for each in shown:
        if each.param_type_name == "argument":
            yield "Argument", f"[{each.metavar.strip('[]')}]", each.help or ""
            continue
        flags = ", ".join(sorted(each.opts, key=lambda flag: flag.startswith("--"))) + "".join(
            f"/{flag}" for flag in each.secondary_opts
        )
        panel = common if each.opts == asked else each.rich_help_panel
        shows = getattr(each, "metavar", None) or ""
        yield panel or "Options", f"{flags} {shows}".rstrip(), each.help or ""


def _commands(group: Any, context: Any) -> Iterator[tuple[str, str, str]]:
    """Title, name and line of help of each command of a group."""
    for name in group.list_commands(context) if isinstance(group, TyperGroup) else ():
        command = group.get_command(context, name)
        yield command.rich_help_panel or "Commands", name, command.help or ""


def _body(rows: Iterable[tuple[str, str]], console: Any, *, width: int = 0) -> Any:
    """Flags on the left, their help beside them or, where they are long, below."""
    from rich.text import Text

    inner = console.width - 4
    left = width or (_NARROW if console.width < 100 else _WIDE)
    lines = []
    for flags, meaning in rows:
        said = Text(meaning)
        said.highlight_regex(r"(?<!\S)--?[a-z][\w-]*", "cyan")
        wrapped = list(said.wrap(console, max(20, inner - left - 2)))
        first = Text()
        for n, word in enumerate(flags.split(" ")):
            is_flag = word.startswith("-") or (n == 0 and bool(width))
            first.append((" " if n else "") + word, "bold cyan" if is_flag else "yellow")
        if len(flags) <= left and wrapped:
            first.append(" " * (left - len(flags) + 2)).append_text(wrapped.pop(0))
        lines += [first, *(Text(" " * (left + 2)).append_text(line) for line in wrapped)]
    return Text("\n").join(lines)
