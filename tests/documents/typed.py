"""What the documents tell people to type: the commands of their shell blocks, as bash reads them, and inline code."""

import re
import subprocess
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
"""All but CONTRIBUTING.md, whose commands need what its recipes add: ``test_contributing.py`` executes them."""

PROGRAMS = (
    "causalprune",
    "python",
    "python3",
    "pip",
    "bash",
    "sbatch",
    "torchrun",
    "srun",
    "mkdocs",
    "pytest",
    "mkdir",
    "cd",
)

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?<=\n\n)(?: {4,6}\S[^\n]*\n(?: {4,}[^\n]*\n)*)")
_FIRST_WORDS = re.compile(rf"\s*(?:[A-Z_]+=\S+ )*(?:{'|'.join(PROGRAMS)}|for|export)\b ")
_SPAN = re.compile(r"(`+)(.+?)\1", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One block of a document; ``language`` is that of its fence, ``sh`` for one that is indented."""

    language: str
    text: str


def blocks(path: Path) -> list[Block]:
    """The blocks of code of a document, in their order."""
    text = path.read_text()
    found = [(match.start(), Block(match[1], match[2])) for match in _FENCED.finditer(text)]
    prose = _FENCED.sub(lambda match: re.sub(r"[^\n]", "-", match[0]), text)
    found += [
        (match.start(), Block("sh", textwrap.dedent(match[0])))
        for match in _INDENTED.finditer(prose)
        if _FIRST_WORDS.match(match[0])
    ]  # fmt: skip
    return [block for _, block in sorted(found, key=lambda one: one[0])]


def spans(path: Path) -> list[str]:
    """The inline code of a document, each on one line."""
    prose = _FENCED.sub("", path.read_text())
    return [" ".join(match[2].replace("\\|", "|").split()) for match in _SPAN.finditer(prose)]


def typed(script: str) -> list[list[str]]:
    """The calls of :data:`PROGRAMS` that bash makes of a script, each as its words; nothing is executed."""
    stubs = "".join(f"{name}() {{ printf '%s\\0' {name} \"$@\" $'\\n'; }}\n" for name in PROGRAMS)
    done = subprocess.run(
        ["/bin/bash", "-c", f"PATH=\n{stubs}\n{script}"], capture_output=True, text=True, check=False, cwd="/"
    )
    return [call.removesuffix("\0").split("\0") for call in done.stdout.split("\n\0") if call]
