"""The source files behind ``package.module:factory``, found and hashed without running any of them."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, resolve_name
from pathlib import Path

from causalprune.base.errors import CausalpruneError
from causalprune.base.json_files import read_bytes

MAX_SOURCE_BYTES = 16 * 2**20
"""A larger module isn't written by hand, and isn't read."""

_INSTALLED = {"site-packages", "dist-packages"}


def code_digest(factory: str) -> str:
    """SHA-256 over the module of a factory and the user's own modules that it imports, directly or not.

    A module is the user's own if it lies in the working directory, or in the package of the factory. Of a factory that
    is installed only its own module counts. Names are hashed with the contents, places aren't.

    Args:
        factory: ``package.module:factory``.

    Returns:
        The hash in hexadecimal; empty if there is no such source file.
    """
    name = factory.partition(":")[0]
    found: dict[str, str] = {}
    waiting = [name]
    while waiting:
        module = waiting.pop()
        for part in _with_packages(module):
            file = None if part in found else _file_of(part, name)
            if file is None:
                continue
            try:
                source = read_bytes(file, MAX_SOURCE_BYTES)
            except CausalpruneError:
                continue
            found[part] = hashlib.sha256(source).hexdigest()
            if not _INSTALLED & set(file.parts):
                package = part if file.name == "__init__.py" else part.rpartition(".")[0]
                waiting += _imported(source, package)
    if name not in found:
        return ""
    digest = hashlib.sha256()
    for module in sorted(found):
        digest.update(f"{module}\0{found[module]}\0".encode())
    return digest.hexdigest()


def _with_packages(module: str) -> list[str]:
    """A module and the packages that it lies in, which are imported before it."""
    parts = module.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _file_of(module: str, factory_module: str) -> Path | None:
    """The source file of one of the user's own modules."""
    root, *rest = module.split(".")
    try:
        # As import_user_module has it: the working directory comes first.
        spec = PathFinder.find_spec(root, [str(Path.cwd())])
        if spec is None and root == factory_module.partition(".")[0]:
            spec = find_spec(root)
        for part in rest:
            spec = None if spec is None else _inside(spec, part)
    except (ImportError, ValueError, OSError):
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)


def _inside(package: ModuleSpec, name: str) -> ModuleSpec | None:
    return PathFinder.find_spec(name, list(package.submodule_search_locations or ()))


def _imported(source: bytes, package: str) -> Iterator[str]:
    """Names that a module imports; what is imported from a module may be a module as well."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                try:
                    module = resolve_name("." * node.level + module, package)
                except ImportError:
                    continue
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names if alias.name != "*")
