"""The documentation site: it builds strictly, needs nothing from elsewhere, and its tables are those of the code."""

import ast
import inspect
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from causalprune.base import errors
from causalprune.base.errors import ExitCode
from causalprune.commands.names import CONFIGS

ROOT = Path(__file__).parents[2]


class Page(HTMLParser):
    """What a page has: its words, and the addresses that a browser would load without being asked."""

    def __init__(self, path):
        super().__init__()
        self.words, self.loaded = [], []
        self.feed(path.read_text())
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source"):
            self.loaded.append(given.get("src"))
        if tag == "link" and given.get("rel") in ("stylesheet", "icon", "preconnect", "preload"):
            self.loaded.append(given.get("href"))

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_document_is_a_page(site):
    documents = {p.relative_to(ROOT / "docs").with_suffix(".html") for p in (ROOT / "docs").rglob("*.md")}
    assert documents | {Path("contributing.html")} <= {p.relative_to(site) for p in site.rglob("*.html")}


def test_nothing_comes_from_elsewhere(site):
    loaded = [place for path in site.rglob("*.html") for place in Page(path).loaded if place]
    assert loaded
    assert [place for place in loaded if re.match(r"(https?:)?//", place)] == []


def test_only_pages_and_what_they_show_are_published(site):
    assert [p.name for p in site.rglob("*") if p.suffix in (".py", ".toml", ".md")] == []


def test_the_reference_has_every_option(site):
    text = Page(site / "reference/commands.html").text
    for config in map(CONFIGS.load, CONFIGS):
        for name, f in config.option_fields().items():
            flag = f.metadata["flag"] or f"--{name.replace('_', '-')}"
            assert flag.split(",")[0].upper().lstrip("[") in text.upper(), flag
    assert "<!--" not in (ROOT / "docs/reference/api.md").read_text()


def test_exported_names_are_documented_with_their_arguments(site):
    import causalprune

    source = (site / "reference/api.html").read_text()
    for name in set(causalprune.__all__) - {"__version__"}:
        assert f'id="causalprune.{name}"' in source
    assert "allow_other_weights" in source
    assert ":class:" not in Page(site / "reference/api.html").text


def test_the_table_of_exit_codes_is_that_of_the_code():
    said = dict(re.findall(r"^    (\w+) = \d+  # (.+)$", inspect.getsource(ExitCode), flags=re.MULTILINE))
    raised = {
        value.exit_code: f"`{name}`"
        for name, value in reversed(vars(errors).items())
        if inspect.isclass(value) and issubclass(value, errors.CausalpruneError) and "exit_code" in vars(value)
    }
    rows = [f"| {int(code)} | {code.name.lower()} | {said[code.name]} | {raised.get(code, '')} |" for code in ExitCode]
    text = (ROOT / "docs/troubleshooting.md").read_text()
    table = text.partition("\n## Exit codes\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| \d.*$", table, flags=re.MULTILINE) == rows


def literals():
    """Every text in the code; of an f-string, what is between its values."""
    for folder in ("causalprune", "cli"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


def quoted():
    """The messages of the page: what its tables have in the first column, and the lines below the last headings."""
    text = (ROOT / "docs/troubleshooting.md").read_text()
    cells = re.findall(r"^\| (`[^|]+`) \|", text, flags=re.MULTILINE)
    codes = [code for cell in cells for code in re.findall(r"`([^`]+)`", cell)]
    codes += ["run the same command again to resume", "with nothing saved since the start"]
    codes += ["this is an internal error: run it with --debug and report it"]
    return sorted({part.strip() for code in codes for part in code.split("…") if part.strip()})


def test_the_messages_of_the_troubleshooting_page_are_those_of_the_code():
    assert len(quoted()) > 50
    said = "\0".join(literals())
    assert [message for message in quoted() if message not in said] == []


def test_the_loop_of_the_first_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/index.md").read_text(), flags=re.DOTALL)
    namespace = {}
    exec(block, namespace)
    weights = [layer.weight for layer in namespace["model"] if hasattr(layer, "weight")]
    assert sum(int((weight == 0).sum()) for weight in weights) == round(0.9 * sum(weight.numel() for weight in weights))
