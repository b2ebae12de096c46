"""Where the content of a page comes from: the command, its options, versions, the date, and the files of data."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from causalprune.analysis.report.page import Link, Page
from causalprune.base.options import option_text
from causalprune.models.checkpoint import software_versions


def show_origin(
    page: Page,
    folder: Path,
    commands: Sequence[tuple[str, str]],
    options: Mapping[str, Any],
    versions: Mapping[str, str],
    data: Sequence[Path],
) -> None:
    """Add the last part of a page, which links every file beside it.

    Args:
        page: The page.
        folder: Its folder, where its tables will be.
        commands: What was done, each with a name.
        options: All options of the commands that made the data, with the stage in front where there are several.
        versions: Versions of the software that made the data; empty if nothing tells.
        data: Files that the page is made from; those that exist are linked.
    """
    page.heading("Where this comes from")
    facts: list[tuple[str, Sequence[str | Link]]] = [(name, [text]) for name, text in commands]
    facts.append(("page made", [_date()]))
    now = software_versions()
    made = dict(versions) or now
    facts.append(("versions", [", ".join(f"{name} {said}" for name, said in made.items())]))
    if made != now:
        facts.append(("versions of the page", [f"causalprune {now['causalprune']}"]))
    facts.append(("data", [_link(path, folder) for path in data if path.is_file()]))
    for what, names in (("tables", page.tables), ("pictures", page.drawn)):
        facts.append((what, [Link(name, _url(name)) for name in names]))
    page.facts(facts)
    if options:
        said = {n.replace("_", "-"): option_text("" if v is None else v) for n, v in sorted(options.items())}
        summary = "All options that decide the results"
        page.facts([(name, [text]) for name, text in said.items() if text], summary=summary)


def _date() -> str:
    """Now; or what ``SOURCE_DATE_EPOCH`` says, by which builds are made to come out the same."""
    said = os.environ.get("SOURCE_DATE_EPOCH", "")
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(int(said) if said.isdecimal() else time.time()))


def _link(path: Path, folder: Path) -> Link:
    relative = os.path.relpath(path.absolute(), folder.absolute())
    return Link(relative, _url(relative))


def _url(relative: str) -> str:
    """A relative URL; with ``./`` before it, no name can be taken for a scheme."""
    return "./" + quote(relative)
