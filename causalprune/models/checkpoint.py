"""Checkpoints: a ``.safetensors`` file of weights, mask and optimizer tensors, with a JSON string that explains them.

Weights keep their state-dict names, so that any safetensors reader can use the file. All other tensors have a prefix:
``mask/``, ``optimizer/``, ``best/``, ``pending/``. The JSON holds what the next stage needs and what a person needs to
trust the file. It contains nothing that differs between two runs of the same command: no times, hosts or paths.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causalprune.base.errors import CorruptError, DataError, NewerFormatError, storage_errors
from causalprune.base.files import require_file, write_atomic
from causalprune.base.json_files import sha256_file
from causalprune.base.paths import utf8_path
from causalprune.base.specs import DataSpec, ModelSpec
from causalprune.models.parameters import ParameterIndex

if TYPE_CHECKING:
    import torch

    from causalprune.models.mask import Mask

FORMAT = "causalprune-checkpoint"
FORMAT_VERSION = 1

_METADATA_KEY = "causalprune"
_PLAIN: dict[str, type] = dict.fromkeys(("config", "inputs", "position", "metrics", "versions"), dict)
_PLAIN |= dict.fromkeys(("stage", "data_fingerprint", "identity", "digest"), str)
"""Fields of :class:`CheckpointInfo` that the header holds unchanged, with their types."""
_OPTIONAL: dict[str, type] = {"ancestors": list, "sources": dict}
"""Those that the header has only if they aren't empty; version 0.1 didn't know them."""
PREFIXES = ("mask/", "optimizer/", "best/", "pending/")
"""Prefixes of the names of all tensors but the weights."""


@dataclass(frozen=True)
class CheckpointInfo:
    """The description in a checkpoint.

    Attributes:
        stage: The stage that wrote it.
        model: How to build the network.
        data: The data set it was trained on.
        data_fingerprint: Hash of that data set.
        index: The prunable parameters.
        config: The resolved configuration of the stage.
        identity: Hash of what determines the result: the configuration and the inputs.
        inputs: Hash of each input by its role.
        position: Progress of the stage, as JSON.
        metrics: Measurements of the stage, as JSON.
        kept: Number of unpruned elements of each prunable parameter.
        versions: Versions of the software that wrote it.
        digest: SHA-256 over all tensors.
        ancestors: Hashes, by :meth:`ParameterIndex.digest`, of the weights of all checkpoints from which it was made.
        sources: Hashes of the user's code and data files that it was made with, by what they are; see
            :mod:`causalprune.commands.provenance.sources`.
        checksum: SHA-256 over the description as it was read; equal for equal files.
        classes: What each output of a classifier stands for, in their order; empty for a regression, and in files of
            versions that didn't write it.
    """

    stage: str
    model: ModelSpec
    data: DataSpec
    data_fingerprint: str
    index: ParameterIndex
    config: dict[str, Any] = field(default_factory=dict)
    identity: str = ""
    inputs: dict[str, str] = field(default_factory=dict)
    position: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    digest: str = ""
    ancestors: list[str] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    checksum: str = field(default="", compare=False)

    @property
    def sparsity(self) -> float:
        """Fraction of prunable parameters that are pruned."""
        return 1.0 - sum(self.kept.values()) / self.index.total

    def to_json(self) -> dict[str, Any]:
        """The JSON value in the file's header."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "model": self.model.to_json(),
            "data": self.data.to_json(),
            "parameters": self.index.to_json(),
            "kept": self.kept,
            **({"classes": list(self.classes)} if self.classes else {}),
            **{name: getattr(self, name) for name in _PLAIN},
            **{name: getattr(self, name) for name in _OPTIONAL if getattr(self, name)},
        }


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory.

    Attributes:
        info: Its description.
        weights: The model's state dict.
        mask: The mask; None if the file has none, like that of a dense network.
        extra: Other tensors by prefixed name, such as ``optimizer/conv1.weight/momentum_buffer``.
        sha256: Hash of the file it was read from; empty if it wasn't read from a file.
    """

    info: CheckpointInfo
    weights: dict[str, torch.Tensor]
    mask: Mask | None = None
    extra: dict[str, torch.Tensor] = field(default_factory=dict)
    sha256: str = ""

    @property
    def weights_digest(self) -> str:
        """Hash of its prunable weights."""
        return self.info.index.digest(self.weights)

    @property
    def network_digest(self) -> str:
        """Hash of all its weights and buffers, also those that aren't prunable: of all that its outputs depend on."""
        return _digest({name: tensor.detach().cpu() for name, tensor in self.weights.items()})


def software_versions() -> dict[str, str]:
    """Versions of the software that can change the bits of a result."""
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
        path: The file; replaced if it exists.
        previous: Where to keep the replaced file.
        checkpoint: ``info.kept``, ``info.versions`` and ``info.digest`` are filled in here.

    Returns:
        SHA-256 of the file.

    Raises:
        StorageError: The file system refused; an existing file is unchanged.
    """
    data = encode_checkpoint(checkpoint)
    write_atomic(path, data, previous=previous)
    return hashlib.sha256(data).hexdigest()


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    """The bytes of a checkpoint's file; ``info.kept``, ``info.versions`` and ``info.digest`` are filled in here."""
    from safetensors.torch import save

    tensors = checkpoint.weights | checkpoint.extra
    kept = {e.name: e.size for e in checkpoint.info.index}
    if checkpoint.mask is not None:
        tensors |= {f"mask/{name}": keep for name, keep in checkpoint.mask.tensors().items()}
        kept |= {layer.name: layer.kept for layer in checkpoint.mask.per_layer()}
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    info = replace(checkpoint.info, kept=kept, versions=software_versions(), digest=_digest(tensors))
    # Through JSON once, so that the checksum covers what a reader gets.
    value = json.loads(json.dumps(info.to_json()))
    value["checksum"] = _checksum(value)
    encoded: bytes = save(tensors, metadata={_METADATA_KEY: json.dumps(value, sort_keys=True)})
    return encoded


def load_checkpoint(path: Path, *, remedy: str = "") -> Checkpoint:
    """Read a checkpoint and check that it is complete and unaltered.

    Args:
        path: The file.
        remedy: What to do if it is missing, such as ``run `causalprune pretrain` first``.

    Raises:
        DataError: The file is missing or empty.
        CorruptError: The file is damaged, or isn't a checkpoint of causalprune.
        NewerFormatError: The file has a newer version of the format.
        MismatchError: The mask has other parameters.
    """
    info = read_checkpoint_info(path, remedy=remedy)
    from causalprune.models.mask import Mask

    tensors = load_tensors(path)
    if _digest(tensors) != info.digest:
        raise CorruptError(
            f"{path}",
            expected="tensors that match the checksum in the header",
            found="altered tensors",
            remedy="restore the file, or run the stage that wrote it again with `overwrite`",
        )
    weights = {name: t for name, t in tensors.items() if not name.startswith(PREFIXES)}
    masks = {name.removeprefix("mask/"): t for name, t in tensors.items() if name.startswith("mask/")}
    extra = {name: t for name, t in tensors.items() if name.startswith(PREFIXES[1:])}
    for name, keep in masks.items():
        if name not in weights or keep.shape != weights[name].shape or str(keep.dtype) != "torch.bool":
            raise CorruptError(f"mask {name} in {path}", expected="bools in the shape of the weight", found="others")
    mask = Mask.from_tensors(info.index, masks) if masks else None
    return Checkpoint(info, weights, mask, extra, sha256_file(path))


def read_checkpoint_info(path: Path, *, remedy: str = "") -> CheckpointInfo:
    """Read only the header, without PyTorch and without the tensors.

    Raises:
        DataError: The file is missing or empty.
        CorruptError: The file isn't a checkpoint of causalprune, or its header contradicts it.
        NewerFormatError: The file has a newer version of the format.
    """
    from safetensors import safe_open

    source = f"{path}"
    with _reading_safetensors(path, remedy=remedy), safe_open(path, framework="numpy") as file:
        text = (file.metadata() or {}).get(_METADATA_KEY)
    if text is None:
        raise CorruptError(
            source,
            expected="a checkpoint of causalprune",
            found="a safetensors file without its description",
            remedy="to start from foreign weights use pretrain `init_from=FILE, epochs=0`",
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
        checksum = value.pop("checksum")
        if checksum != _checksum(value):
            raise ValueError("that doesn't match its checksum")
        index = ParameterIndex.from_json(value["parameters"], source)
        kept = {e.name: int(value["kept"][e.name]) for e in index}
        if not all(0 <= kept[e.name] <= e.size for e in index):
            raise ValueError("more kept weights than there are")
        others = {name: value[name] for name in _PLAIN} | {n: value[n] for n in _OPTIONAL if n in value}
        for name, kind in (_PLAIN | _OPTIONAL).items():
            if name in others and not isinstance(others[name], kind):
                raise ValueError(f"a malformed {name}")
        classes = value.get("classes", [])
        model = ModelSpec.from_json(value["model"], source)
        named = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
        if not named or len(classes) not in (0, model.num_outputs):
            raise ValueError("malformed classes")
        return CheckpointInfo(
            model=model,
            data=DataSpec.from_json(value["data"], source),
            index=index,
            kept=kept,
            checksum=checksum,
            classes=tuple(classes),
            **others,
        )
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CorruptError(
            source, expected="the description of a checkpoint", found=f"{type(error).__name__} {error}"[:100]
        ) from error


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a safetensors file.

    Raises:
        DataError: The file is missing or empty.
        CorruptError: The file is of another kind, its header contradicts its length, or it holds complex or packed
            numbers.
        StorageError: The file system refused.
    """
    from safetensors.torch import load_file

    with _reading_safetensors(path), utf8_path(path) as name:
        tensors: dict[str, torch.Tensor] = load_file(name)
    for name, tensor in tensors.items():
        if tensor.is_complex() or str(tensor.dtype).endswith("_x2"):
            raise CorruptError(f"{name} in {path}", expected="real numbers", found=str(tensor.dtype))
    return tensors


@contextmanager
def _reading_safetensors(path: Path, *, remedy: str = "") -> Iterator[None]:
    """Turn errors of safetensors, which checks a file before it allocates anything, into errors of causalprune."""
    from safetensors import SafetensorError

    if require_file(path, expected="a checkpoint", remedy=remedy).st_size == 0:
        raise DataError(f"{path}", expected="a checkpoint", found="an empty file", remedy=remedy)
    with storage_errors(path, "read"):
        try:
            yield
        except SafetensorError as error:
            expected = "a whole safetensors file (pickles are not read)"
            raise CorruptError(f"{path}", expected=expected, found=str(error)[:120]) from error


def _checksum(value: dict[str, Any]) -> str:
    """SHA-256 over the description, which the digest of the tensors doesn't cover."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        # A view as bytes works for every dtype, even bfloat16, which NumPy doesn't know.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()
