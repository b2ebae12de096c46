"""What MkDocs does not do by itself: links that leave the folder, a page from outside it, and tables made of the code.

Pages are written to be read in the repository as well. There a link may lead to any file; here there are only pages, so
a link to another file becomes the name of that file. Comments such as ``<!-- commands -->`` are replaced by what the
code says at the moment, so that nothing of it is typed by hand.
"""

from __future__ import annotations

import inspect
import posixpath
import re
from collections.abc import Iterator
from dataclasses import Field
from pathlib import Path
from typing import Any

from causalprune_cli.argument import NAME as ARGUMENT
from causalprune_cli.commands import described, make_command
from causalprune_cli.session import Session
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from causalprune.commands.names import CONFIGS, summary

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"CONTRIBUTING.md": "contributing.md"}
"""Documents outside the folder that are pages as well."""

_CODE = re.compile(r"^```.*?^```|(?<=\n\n)(?: {4}[^\n]*\n)+", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents that lie elsewhere."""
    for path, uri in PAGES.items():
        files.append(File.generated(config, uri, content=(ROOT / path).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in tables, and rewrite links, except in code."""
    del config
    for marker, table in TABLES.items():
        if f"<!-- {marker} -->" in markdown:
            markdown = markdown.replace(f"<!-- {marker} -->", table())
    uri = page.file.src_uri
    # Where the text lies in the repository, relative to which its links are.
    folder = next((posixpath.dirname(path) for path, name in PAGES.items() if name == uri), None)
    if folder is None:
        folder = posixpath.join("docs", posixpath.dirname(uri))

    def rewrite(match: re.Match[str]) -> str:
        return _rewrite(match, folder, uri, files)

    parts = re.split(f"({_CODE.pattern})", markdown, flags=_CODE.flags)
    return "".join(part if n % 2 else _LINK.sub(rewrite, part) for n, part in enumerate(parts))


def _rewrite(match: re.Match[str], folder: str, uri: str, files: Files) -> str:
    """A link for the site: to a page or a picture, or the name of a file that is neither."""
    text, target, anchor = match[1], match[2], match[3] or ""
    path = posixpath.normpath(posixpath.join(folder, target))
    page = PAGES.get(path) or path.removeprefix("docs/")
    found = files.get_file_from_path(page)
    if (path in PAGES or path.startswith("docs/")) and found is not None and found.inclusion.is_included():
        return f"[{text}]({posixpath.relpath(page, posixpath.dirname(uri) or '.')}{anchor})"
    if not (ROOT / path).exists():
        # Nothing is there: MkDocs says so.
        return match[0]
    named = text.strip("`").rstrip("/")
    return f"`{path}`" if path.endswith(named) else f"{text} (`{path}`)"


# Tables of the code ---------------------------------------------------------------------------------------------------


def _cell(text: str) -> str:
    """Text as one cell of a table; what is in backticks stays code, in which Python-Markdown takes a bar as it is."""
    parts = re.split(r"(`+[^`]+`+)", " ".join(text.split()))
    return "".join(part if n % 2 else re.sub(r"([\\*_<>|\[\]])", r"\\\1", part) for n, part in enumerate(parts))


def _rows(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _flags(parameter: Any) -> str:
    """How an option is typed, with a placeholder for its value."""
    if parameter.param_type_name == "argument":
        return _cell(f"`{parameter.metavar.strip('[]')}`")
    shown = ", ".join(f"`{flag}`" for flag in (*parameter.opts, *parameter.secondary_opts))
    return f"{shown} {_cell(f'`{parameter.metavar}`')}" if parameter.metavar else shown


def _meaning(f: Field[Any]) -> tuple[str, str]:
    """The help of an option and its default."""
    text, default = described(f)
    if f.default is False:
        default = "no"
    return _cell(text), f"`{default}`" if f.default not in (None, "", ()) else _cell(default)


def _said(text: str) -> tuple[str, str]:
    """The help of an argument and its default, which it has in brackets at its end."""
    match = re.fullmatch(r"(.+) \[([^\[\]]+)\]", text)
    return (_cell(match[1]), _cell(match[2])) if match else (_cell(text), "")


def _options(command: str) -> Iterator[tuple[str, tuple[str, str, str]]]:
    """The options of a command in the order of its help: the panel, and flags, meaning and default."""
    known = Session.option_fields() | CONFIGS.load(command).option_fields()
    for parameter in make_command(command).params:
        f = known.get(parameter.name or "")
        if parameter.name == ARGUMENT:
            yield "", (_flags(parameter), *_said(parameter.help))
        elif f is not None:
            yield getattr(parameter, "rich_help_panel", None) or "", (_flags(parameter), *_meaning(f))


def _anchor(heading: str) -> str:
    """What leads to a heading of the page."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def commands() -> str:
    """Every command: its help, an example, the options of its own; then those that several have."""
    text, shared = [], dict[str, dict[tuple[str, str, str], list[str]]]()
    for command in CONFIGS:
        own, others = [], dict[str, None]()
        for panel, row in _options(command):
            if panel:
                shared.setdefault(panel, {}).setdefault(row, []).append(command)
                others[panel] = None
            else:
                own.append(row)
        help_text, _, example = (inspect.getdoc(CONFIGS.load(command)) or "").rpartition("\n\nExample: ")
        links = ", ".join(f"[{panel.lower()}](#{_anchor(panel)})" for panel in others)
        text += [f"## {command}", help_text, f"```sh\n{example}\n```"]
        text += [_rows(("option", "meaning", "default"), own)] if own else []
        text += [f"And the options of {links}."]
    for panel, rows in shared.items():
        table = [(*row, "all" if len(of) == len(CONFIGS) else ", ".join(of)) for row, of in rows.items()]
        text += [f"## {panel}", _rows(("option", "meaning", "default", "commands"), table)]
    return "\n\n".join(text)


def list_of_commands() -> str:
    """The commands, each with a line."""
    rows = [(f"[`{c}`](#{c.replace(' ', '-')})", _cell(summary(c))) for c in CONFIGS]
    return _rows(("command", "what it does"), rows)


TABLES = {"list of commands": list_of_commands, "commands": commands}
"""What comes in the place of which comment."""
