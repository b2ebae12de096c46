"""The user's code and data files that a result is made with: remembered, to notice when they change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from causalprune.base.specs import DataSpec
from causalprune.commands.provenance.code import code_digest
from causalprune.data.names import is_factory
from causalprune.data.sources.identity import files_digest
from causalprune.models.checkpoint import CheckpointInfo


def sources_of(model: str, data: DataSpec, *, contents: bool = False) -> dict[str, str]:
    """Hashes of the source code of factories, and of the files of a data set that the user named.

    Args:
        model: Name of the model.
        data: The data set.
        contents: Whether to hash what is in the files of a folder, too, and not only their names and sizes.

    Returns:
        By what they are, such as ``code of mine:net``; what isn't there is left out.
    """
    found = _code_of(model, data.name)
    found[f"data of {data.name}"] = files_digest(data)
    if contents:
        found[f"contents of {data.name}"] = files_digest(data, contents=True)
    return {what: digest for what, digest in found.items() if digest}


def code_of(info: CheckpointInfo) -> dict[str, str]:
    """Hashes of the source code that a checkpoint names, as it is now."""
    return _code_of(info.model.name, info.data.name)


def current_sources(info: CheckpointInfo, config: Any) -> dict[str, str]:
    """The same for the network and the data of a checkpoint, as they are now.

    Args:
        info: The checkpoint.
        config: ``data_root`` and ``check_contents``, where the command has them.
    """
    root = getattr(config, "data_root", "") or info.data.root
    contents = getattr(config, "check_contents", False)
    return sources_of(info.model.name, replace(info.data, root=root), contents=contents)


def changed_sources(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What is there both times and isn't the same."""
    return [what for what in now if what in then and then[what] != now[what]]


def _code_of(*names: str) -> dict[str, str]:
    factories = (name for name in names if is_factory(name) and not name.startswith("torchvision:"))
    found = {f"code of {name}": code_digest(name) for name in factories}
    return {what: digest for what, digest in found.items() if digest}
