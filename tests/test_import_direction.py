"""The direction of imports: cli → stages → store, solver, pruning, evaluation, … → what stands alone."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
ALONE = ("store", "solver", "models", "export")
"""Packages that import no other package of causalprune."""


def imports(path):
    """Packages and modules right below causalprune, and ``cli``, that a file imports, also within functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith("causalprune_cli"):
                yield "cli"
            elif name.startswith("causalprune."):
                yield name.split(".")[1]


def test_no_package_imports_what_is_above_it():
    wrong = []
    for path in sorted((ROOT / "causalprune").rglob("*.py")):
        inside = path.relative_to(ROOT / "causalprune").parts
        package = inside[0] if len(inside) > 1 else ""
        for name in set(imports(path)):
            is_package = (ROOT / "causalprune" / name).is_dir()
            above = name == "stages" and package != "stages"
            beside = is_package and package in ALONE and name not in (package, "base")
            # __main__ starts the command line.
            if (name == "cli" and inside != ("__main__.py",)) or above or beside:
                wrong.append(f"{'/'.join(inside)} imports {name}")
    assert wrong == []


def test_the_command_line_leaves_the_work_to_stages():
    work = {"store", "solver", "pruning", "training", "data", "models", "sweep"}
    wrong = [f"{p.name} imports {name}" for p in (ROOT / "cli").glob("*.py") for name in imports(p) if name in work]
    assert wrong == []
