"""What ``info`` says of the masked state dict that ``apply-mask --weights`` writes, from its header and its result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from causalprune.base.errors import DAMAGE
from causalprune.base.json_files import sha256_file
from causalprune.base.paths import RunPaths, is_mask_path, mask_path
from causalprune.commands._output import read_result
from causalprune.commands._said import said_options
from causalprune.commands.info.store_description import Problems
from causalprune.commands.names import with_flags
from causalprune.models.file_pair import find_mask
from causalprune.models.mask_file import MASKED_STATE_DICT, read_header
from causalprune.models.names import TORCH_SUFFIXES


def state_dict_header(path: Path) -> dict[str, Any]:
    """The header of a masked state dict; empty for any other file."""
    header = read_header(path) if path.suffix == ".safetensors" else {}
    return header if header.get("kind") == MASKED_STATE_DICT else {}


def describe_state_dict(path: Path, header: dict[str, Any], problems: Problems) -> dict[str, Any]:
    """Describe a masked state dict.

    Args:
        path: The file.
        header: Its header.
        problems: What is wrong with its mask is added to it.
    """
    try:
        find_mask(path, sha256_file(path))
    except DAMAGE as error:
        problems.add_damage([with_flags(str(error))])
    result = read_result(path.with_name(path.name + ".json"))
    metrics = header["metrics"] | result.get("metrics", {})
    layers = metrics.get("layers", [])
    return {
        "stage": header["stage"],
        "options": said_options(header["stage"], header["config"]),
        "prunable": sum(layer["total"] for layer in layers),
        "kept": sum(layer["kept"] for layer in layers),
        "sparsity": metrics.get("sparsity", metrics["sparsity_candidates"]),
        "layers": layers,
        "file_bytes": path.stat().st_size,
        "mask": str(mask_path(path)),
        "inputs": header["inputs"],
        "config": header["config"],
        "versions": result.get("versions", {}),
    }


def weights_to_prune(run: RunPaths) -> Path | None:
    """The only state dict beside a store; None if there is none, several, or one that is pruned already."""
    if not run.root.is_dir():
        return None
    files = [path for path in sorted(run.root.iterdir()) if path.name.endswith((".safetensors", *TORCH_SUFFIXES))]
    found = [path for path in files if path.is_file() and not (path.name.startswith(".") or is_mask_path(path))]
    return found[0] if len(found) == 1 and not state_dict_header(found[0]) else None
