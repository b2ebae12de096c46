"""Checkpoints: one ``.safetensors`` file of weights, mask and optimizer tensors, and a JSON string that explains them.

Weights keep their state-dict names, so any safetensors reader can use the file. All else has a prefix: ``mask/``,
``optimizer/``, ``best/``, ``pending/``. The JSON holds what another stage needs to go on and what a person needs to
trust the file, and nothing that differs between two runs of the same command: no times, hosts or paths.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causalprune.errors import CorruptError, DataError, NewerFormatError
from causalprune.files import sha256_file, storage_errors, write_atomic
from causalprune.parameters import ParameterIndex
from causalprune.specs import DataSpec, ModelSpec

if TYPE_CHECKING:
    import torch

    from causalprune.pruning.mask import Mask

FORMAT = "causalprune-checkpoint"
FORMAT_VERSION = 1
MAX_HEADER_BYTES = 100 * 2**20
"""The limit that safetensors itself sets on a header."""

_METADATA_KEY = "causalprune"
_PLAIN: dict[str, type] = dict.fromkeys(("config", "inputs", "position", "metrics", "versions"), dict)
_PLAIN |= dict.fromkeys(("stage", "data_fingerprint", "identity", "digest"), str)
"""Fields of :class:`CheckpointInfo` that are in the header as they are."""
_PREFIXES = ("mask/", "optimizer/", "best/", "pending/")
_ITEM_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
_ITEM_BYTES |= {"I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint says about itself.

    Attributes:
        stage: The stage that wrote it.
        model: How to build the network.
        data: Which data it was trained on.
        data_fingerprint: Hash of that data.
        index: The prunable parameters.
        config: The stage's resolved configuration.
        identity: Hash of what decided the result: the configuration and the inputs.
        inputs: Hash of each input by its role.
        position: How far the stage has come, as JSON.
        metrics: What the stage measured, as JSON.
        kept: Number of unpruned elements of each prunable parameter.
        versions: Versions of the software that wrote it.
        digest: SHA-256 over all tensors.
    """

    stage: str
    model: ModelSpec
    data: DataSpec
    data_fingerprint: str
    index: ParameterIndex
    config: dict[str, Any]
    identity: str
    inputs: dict[str, str]
    position: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    digest: str = ""

    @property
    def sparsity(self) -> float:
        """Fraction of prunable parameters that are pruned."""
        return 1.0 - sum(self.kept.values()) / self.index.total

    def to_json(self) -> dict[str, Any]:
        """The JSON value kept in the file's header."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "model": self.model.to_json(),
            "data": self.data.to_json(),
            "parameters": self.index.to_json(),
            "kept": self.kept,
            **{name: getattr(self, name) for name in _PLAIN},
        }


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory.

    Attributes:
        info: What it says about itself.
        weights: The model's state dict.
        mask: What is kept; None where the file has none, as that of a dense network.
        extra: Other tensors by prefixed name, such as ``optimizer/conv1.weight/momentum_buffer``.
        sha256: Hash of the file it was read from; empty for one that wasn't.
    """

    info: CheckpointInfo
    weights: dict[str, torch.Tensor]
    mask: Mask | None = None
    extra: dict[str, torch.Tensor] = field(default_factory=dict)
    sha256: str = ""


def software_versions() -> dict[str, str]:
    """Versions of everything whose release can change the bits of a result."""
    versions = {"python": platform.python_version()}
    for package in ("causalprune", "torch", "torchvision", "numpy", "zarr", "scikit-learn"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def save_checkpoint(path: Path, checkpoint: Checkpoint, *, previous: Path | None = None) -> str:
    """Write a checkpoint atomically.

    Args:
        path: Where; replaced if it exists.
        previous: Where to keep the one that is replaced.
        checkpoint: ``info.kept``, ``info.versions`` and ``info.digest`` are filled in.

    Returns:
        SHA-256 of the file.

    Raises:
        StorageError: The file system refused; what was there is untouched.
    """
    from safetensors.torch import save

    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in checkpoint.weights.items()}
    kept = {e.name: e.size for e in checkpoint.info.index}
    if checkpoint.mask is not None:
        tensors |= {f"mask/{name}": keep for name, keep in checkpoint.mask.tensors().items()}
        kept |= {layer.name: layer.kept for layer in checkpoint.mask.per_layer()}
    tensors |= {name: t.detach().cpu().contiguous().clone() for name, t in checkpoint.extra.items()}
    info = replace(checkpoint.info, kept=kept, versions=software_versions(), digest=_digest(tensors))
    # Through JSON once, so that the checksum is over what a reader gets.
    value = json.loads(json.dumps(info.to_json()))
    value["checksum"] = _checksum(value)
    data = save(tensors, metadata={_METADATA_KEY: json.dumps(value, sort_keys=True)})
    write_atomic(path, data, previous=previous)
    return hashlib.sha256(data).hexdigest()


def load_checkpoint(path: Path, *, remedy: str = "") -> Checkpoint:
    """Read a checkpoint and prove that it is whole.

    Args:
        path: The file.
        remedy: What to do when it is missing, such as ``run `causalprune pretrain` first``.

    Raises:
        DataError: Nothing there, or an empty file.
        CorruptError: Damaged, or not a checkpoint of causalprune.
        NewerFormatError: Written by a newer version of the format.
        MismatchError: A mask that isn't one of these parameters.
    """
    info = read_checkpoint_info(path, remedy=remedy)
    import safetensors
    from safetensors.torch import load_file

    from causalprune.pruning.mask import Mask

    try:
        with storage_errors(path, "read"):
            tensors = load_file(path)
    except safetensors.SafetensorError as error:
        raise CorruptError(f"{path}", expected="a whole safetensors file", found=str(error)[:120]) from error
    if _digest(tensors) != info.digest:
        raise CorruptError(
            f"{path}",
            expected="tensors that match the checksum in the header",
            found="altered tensors",
            remedy="restore the file, or run the stage that wrote it again with `overwrite`",
        )
    weights = {name: t for name, t in tensors.items() if not name.startswith(_PREFIXES)}
    masks = {name.removeprefix("mask/"): t for name, t in tensors.items() if name.startswith("mask/")}
    extra = {name: t for name, t in tensors.items() if name.startswith(_PREFIXES[1:])}
    for name, keep in masks.items():
        if name not in weights or keep.shape != weights[name].shape or str(keep.dtype) != "torch.bool":
            raise CorruptError(f"mask {name} in {path}", expected="bools in the shape of the weight", found="others")
    mask = Mask.from_tensors(info.index, masks) if masks else None
    return Checkpoint(info, weights, mask, extra, sha256_file(path))


def read_checkpoint_info(path: Path, *, remedy: str = "") -> CheckpointInfo:
    """Read only the header, without PyTorch and without the tensors.

    Raises:
        DataError: Nothing there, or an empty file.
        CorruptError: Not a checkpoint of causalprune, or a header that contradicts the file.
        NewerFormatError: Written by a newer version of the format.
    """
    header, source = read_safetensors_header(path, remedy=remedy), f"{path}"
    metadata = header.get("__metadata__")
    text = metadata.get(_METADATA_KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise CorruptError(
            source,
            expected="a checkpoint of causalprune",
            found="a safetensors file without its description",
            remedy="to start from foreign weights use pretrain `init_from` FILE `epochs` 0",
        )
    try:
        value = json.loads(text)
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise ValueError("another format")
        if type(value["format_version"]) is not int or value["format_version"] < 1:
            raise ValueError("a malformed format version")
        if value["format_version"] > FORMAT_VERSION:
            raise NewerFormatError(
                source,
                expected=f"format version {FORMAT_VERSION} or older",
                found=f"version {value['format_version']}",
                remedy="install a newer causalprune",
            )
        if value.pop("checksum") != _checksum(value):
            raise ValueError("that doesn't match its checksum")
        index = ParameterIndex.from_json(value["parameters"], source)
        kept = {e.name: int(value["kept"][e.name]) for e in index}
        if not all(0 <= kept[e.name] <= e.size for e in index):
            raise ValueError("more kept weights than there are")
        for name, kind in _PLAIN.items():
            if not isinstance(value[name], kind):
                raise ValueError(f"a malformed {name}")
        return CheckpointInfo(
            model=ModelSpec.from_json(value["model"], source),
            data=DataSpec.from_json(value["data"], source),
            index=index,
            kept=kept,
            **{name: value[name] for name in _PLAIN},
        )
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CorruptError(
            source, expected="the description of a checkpoint", found=f"{type(error).__name__} {error}"[:100]
        ) from error


def read_safetensors_header(path: Path, *, remedy: str = "") -> dict[str, Any]:
    """Read and check the header of a safetensors file: every size is compared with the file before it is believed.

    Raises:
        DataError: Nothing there, or an empty file.
        CorruptError: A header that is absurd, or that contradicts the file's length.
    """
    source = f"{path}"
    if not path.exists():
        raise DataError(source, expected="a checkpoint", found="nothing", remedy=remedy)
    if path.is_dir():
        raise DataError(source, expected="a checkpoint file", found="a directory", remedy=remedy)
    with storage_errors(path, "read"):
        size = path.stat().st_size
        if size == 0:
            raise DataError(source, expected="a checkpoint", found="an empty file", remedy=remedy)
        with path.open("rb") as file:
            first = file.read(8)
            length = struct.unpack("<Q", first)[0] if len(first) == 8 else math.inf
            if length > min(MAX_HEADER_BYTES, size - 8):
                raise CorruptError(source, expected="a safetensors header", found="other bytes (pickles are not read)")
            raw = file.read(int(length))
    try:
        header = json.loads(raw)
        spans = []
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            start, stop = entry["data_offsets"]
            if not all(type(n) is int and n >= 0 for n in (*entry["shape"], start, stop)):
                raise ValueError(f"tensor {name}: malformed numbers")
            if stop - start != math.prod(entry["shape"]) * _ITEM_BYTES[entry["dtype"]]:
                raise ValueError(f"tensor {name}: a shape that contradicts its length")
            spans.append((start, stop))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CorruptError(source, expected="a safetensors header", found=str(error)[:100] or repr(error)) from error
    end = 0
    for start, stop in sorted(spans):
        if start != end:
            raise CorruptError(source, expected="tensors end to end", found="a gap or an overlap")
        end = stop
    if 8 + length + end != size:
        raise CorruptError(
            source, expected=f"{int(8 + length + end)} bytes", found=f"{size}", remedy="restore the file"
        )
    return dict(header)


def _checksum(value: dict[str, Any]) -> str:
    """SHA-256 over the description, which the digest of the tensors doesn't cover."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        # A view of the bytes works for every dtype, bfloat16 too, which numpy doesn't know.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()
