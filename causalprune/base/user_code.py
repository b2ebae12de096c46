"""The importer of the user's own code, given as ``package.module:factory``."""

from __future__ import annotations

import logging
import os
import sys
import zlib
from collections.abc import Iterable
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

logger = logging.getLogger("causalprune")


def import_user_module(name: str) -> ModuleType:
    """Import a module of the working directory by its location, or else an installed one.

    The working directory is appended to ``sys.path`` and stays there. Later imports of the user's code work, also in
    worker processes, and no file of the user replaces a module of the standard library.

    If the working directory holds a module or package whose name is taken, by an installed one or by the standard
    library, the user's is used, with a warning. It gets another name in ``sys.modules`` if other code may need the
    module that has the name; objects of its classes can't be pickled for a spawned process then.

    Args:
        name: A dotted name, such as ``package.module``.

    Raises:
        Exception: Whatever the module raises; ``ModuleNotFoundError`` if there is no such module.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    root, dot, rest = name.partition(".")
    own = _spec_in(here, root, rest)
    if own is None or _is_usual(own, root):
        return import_module(name)
    return import_module(_load(own, root, here) + dot + rest)


def _spec_in(folder: str, root: str, rest: str) -> ModuleSpec | None:
    spec = PathFinder.find_spec(root, [folder])
    if spec is not None and spec.origin is None:
        # A folder without __init__.py is just a folder, unless the wanted module is in it.
        inside = list(spec.submodule_search_locations or ())
        if not rest or PathFinder.find_spec(rest.partition(".")[0], inside) is None:
            return None
    return spec


def _is_usual(own: ModuleSpec, root: str) -> bool:
    """Whether ``import root`` gives the same module."""
    if root in sys.modules:
        module = sys.modules[root]
        usual = _place(getattr(module, "__file__", None), getattr(module, "__path__", None))
    else:
        spec = find_spec(root)
        usual = "" if spec is None else _place(spec.origin, spec.submodule_search_locations)
    return usual == _place(own.origin, own.submodule_search_locations)


def _place(file: str | None, folders: Iterable[str] | None) -> str:
    return os.path.realpath(file or next(iter(folders or ()), ""))


def _load(own: ModuleSpec, root: str, folder: str) -> str:
    """Load a module that an installed one hides, and return its name in ``sys.modules``."""
    hidden = root in sys.modules or root in sys.stdlib_module_names
    name = f"_{root}_{zlib.crc32(os.fsencode(folder)):08x}" if hidden else root
    if name in sys.modules:
        return name
    logger.warning("%s exists twice: the one in the working directory %s is used, not the other", root, folder)
    locations = None if own.submodule_search_locations is None else list(own.submodule_search_locations)
    spec: ModuleSpec | None
    if own.origin is None:
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = locations
    else:
        spec = spec_from_file_location(name, own.origin, submodule_search_locations=locations)
    assert spec is not None
    # Before its code runs, so that it imports itself by this name.
    module = sys.modules[name] = module_from_spec(spec)
    try:
        if spec.loader is not None:
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return name
