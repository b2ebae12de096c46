"""An HTML page in one file: headings, text, tables and pictures, readable on a desk and on a phone, without scripts."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from causalprune.files import storage_errors

_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem clamp(0.8rem, 3vw, 2.5rem) 3rem; max-width: 78rem; background: #fff;
  color: #222; font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0.6rem 0 0.2rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 0.3rem; padding-top: 0.8rem; border-top: 1px solid #ddd; }
h3 { font-size: 1.02rem; margin: 1.4rem 0 0.3rem; }
p { max-width: 46rem; margin: 0.4rem 0; }
.lead { color: #555; }
.note { color: #555; font-size: 0.9rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); gap: 1rem 1.5rem;
  margin: 0.8rem 0; align-items: start; }
.figures.small { grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
figure { margin: 0; }
img { max-width: 100%; height: auto; display: block; }
figcaption { color: #555; font-size: 0.85rem; }
.scroll { overflow-x: auto; margin: 0.8rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.92rem; }
th, td { padding: 0.28rem 0.8rem 0.28rem 0; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 1.5px solid #888; font-weight: 600; }
tbody td, tbody th { border-bottom: 1px solid #eee; font-weight: 400; }
td.best { font-weight: 700; }
td.text { text-align: left; white-space: normal; min-width: 12rem; }
code { font-size: 0.88em; overflow-wrap: anywhere; }
.spread { color: #777; font-size: 0.88em; }
"""


GENERATOR = "causalprune report"
"""What a page names as its maker."""


class Page:
    """Collects the parts of a page; all text is escaped.

    Args:
        title: Of the window and of the page.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._parts = [f"<h1>{escape(title)}</h1>"]

    def heading(self, text: str, level: int = 2) -> None:
        """A heading of level 2 or 3."""
        self._parts.append(f"<h{level}>{escape(text)}</h{level}>")

    def text(self, text: str, kind: str = "") -> None:
        """A paragraph; ``kind`` is ``lead``, ``note`` or nothing."""
        self._parts.append(f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str | Cell]]) -> None:
        """A table that scrolls by itself where it is wider than the screen; the first column names the rows."""
        lines = ["<tr>" + "".join(f"<th>{escape(h)}</th>" for h in head) + "</tr>"]
        body = ["<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in rows]
        self._parts.append(
            f'<div class="scroll"><table><thead>{"".join(lines)}</thead><tbody>{"".join(body)}</tbody></table></div>'
        )

    def pictures(self, files: Sequence[tuple[Path, str]], *, small: bool = False) -> None:
        """PNG files, as many beside each other as fit, each with the text that stands for it."""
        shown = []
        for path, text in files:
            data = base64.b64encode(path.read_bytes()).decode()
            shown.append(f'<figure><img alt="{escape(text, quote=True)}" src="data:image/png;base64,{data}"></figure>')
        kind = "figures small" if small else "figures"
        self._parts.append(f'<div class="{kind}">{"".join(shown)}</div>')

    def html(self) -> str:
        """The page."""
        head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        head += f'<meta name="generator" content="{GENERATOR}">'
        head += f"<title>{escape(self._title)}</title><style>{_STYLE}</style>"
        body = "\n".join(self._parts)
        return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def is_page(path: Path) -> bool:
    """Whether a file is one of these pages."""
    if not path.is_file():
        return False
    with storage_errors(path, "read"), path.open("rb") as file:
        return f'content="{GENERATOR}"'.encode() in file.read(1000)


class Cell:
    """A cell of a table with more than text.

    Args:
        text: What it says.
        spread: A smaller addition, such as ``±0.3``.
        best: Whether it stands out.
        prose: Whether it is a sentence rather than a number.
    """

    def __init__(self, text: str, *, spread: str = "", best: bool = False, prose: bool = False) -> None:
        self.text, self.spread, self.best, self.prose = text, spread, best, prose


def _cell(cell: str | Cell) -> str:
    if isinstance(cell, str):
        return f"<td>{escape(cell)}</td>"
    kinds = " ".join(kind for kind, on in (("best", cell.best), ("text", cell.prose)) if on)
    small = f' <span class="spread">{escape(cell.spread)}</span>' if cell.spread else ""
    return f'<td class="{kinds}">{escape(cell.text)}{small}</td>' if kinds else f"<td>{escape(cell.text)}{small}</td>"
