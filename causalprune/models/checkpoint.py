"""Checkpoints: a ``.safetensors`` file of a network, with a JSON string that explains it, and its mask beside it.

The file holds what ``model.state_dict()`` does, by the same names, so that a strict ``load_state_dict`` takes it
whoever reads it. The mask of a pruned network is a file of its own (:mod:`causalprune.models.file_pair`). The JSON
holds what the next stage needs and what a person needs to trust the file. It contains nothing that differs between two
runs of the same command: no times, hosts or paths.

A saved state, from which only the stage that wrote it resumes, is one file. In it, and in checkpoints of the first
version of the format, all tensors but the weights have a prefix: ``mask/``, ``optimizer/``, ``best/``, ``pending/``.
"""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causalprune.base.errors import CorruptError, NewerFormatError
from causalprune.base.files import write_atomic
from causalprune.base.json_files import sha256_file
from causalprune.base.specs import DataSpec, ModelSpec
from causalprune.models.file_pair import find_mask, write_pair
from causalprune.models.mask_file import MASKED_STATE_DICT, load_mask, read_header
from causalprune.models.parameters import ParameterIndex
from causalprune.models.tensor_file import encode_tensors, load_tensors, read_metadata, tensors_digest

if TYPE_CHECKING:
    import torch

    from causalprune.models.mask import Mask

FORMAT = "causalprune-checkpoint"
FORMAT_VERSION = 2
"""Since 2, the mask of a checkpoint is a file of its own."""

_METADATA_KEY = "causalprune"
_PLAIN: dict[str, type] = dict.fromkeys(("config", "inputs", "position", "metrics", "versions"), dict)
_PLAIN |= dict.fromkeys(("stage", "data_fingerprint", "identity", "digest"), str)
"""Fields of :class:`CheckpointInfo` that the header holds unchanged, with their types."""
_OPTIONAL: dict[str, type] = {"ancestors": list, "sources": dict, "mask_digest": str}
"""Those that the header has only if they aren't empty; format version 1 didn't know them."""
PREFIXES = ("mask/", "optimizer/", "best/", "pending/")
"""Prefixes of the names of all tensors but the weights, where they are in one file."""


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
        digest: SHA-256 over all tensors in the file.
        mask_digest: The same over those of the mask in the file beside it; empty if there is none.
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
    mask_digest: str = ""
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
        extra: Of a saved state, other tensors by prefixed name, such as ``optimizer/conv1.weight/momentum_buffer``.
        sha256: Hash of the network's file that it was read from, whose header has the digest of the mask; empty if it
            wasn't read from a file.
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
        return tensors_digest({name: tensor.detach().cpu() for name, tensor in self.weights.items()})


def software_versions() -> dict[str, str]:
    """Versions of the software that can change the bits of a result."""
    versions = {"python": platform.python_version()}
    for package in ("causalprune", "torch", "torchvision", "numpy", "zarr", "scikit-learn"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> str:
    """Write a network, and its mask beside it, so that a crash leaves the earlier ones or both of these.

    Args:
        path: The network's file; it and its mask are replaced if they exist.
        checkpoint: Without ``extra``. Of its description, ``kept``, ``versions``, ``digest`` and ``mask_digest`` are
            filled in here.

    Returns:
        SHA-256 of the network's file.

    Raises:
        StorageError: The file system refused; existing files are unchanged.
    """
    return write_pair(path, encode_checkpoint(checkpoint), checkpoint.mask)


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    """The bytes of a network's file as :func:`save_checkpoint` writes it, without its mask."""
    assert not checkpoint.extra
    mask_digest = "" if checkpoint.mask is None else tensors_digest(checkpoint.mask.tensors())
    return _encoded(checkpoint, checkpoint.weights, mask_digest)


def save_state(path: Path, checkpoint: Checkpoint, *, previous: Path | None = None) -> None:
    """Write the state of a stage, with all of its tensors, atomically into one file.

    Args:
        path: The file; replaced if it exists.
        checkpoint: See :func:`save_checkpoint`.
        previous: Where to keep the replaced file.

    Raises:
        StorageError: The file system refused; an existing file is unchanged.
    """
    masks = {} if checkpoint.mask is None else checkpoint.mask.tensors()
    tensors = checkpoint.weights | checkpoint.extra | {f"mask/{name}": keep for name, keep in masks.items()}
    write_atomic(path, _encoded(checkpoint, tensors), previous=previous)


def _encoded(checkpoint: Checkpoint, tensors: dict[str, torch.Tensor], mask_digest: str = "") -> bytes:
    """The bytes of a file that holds some tensors of a checkpoint, and its description."""
    kept = {e.name: e.size for e in checkpoint.info.index}
    if checkpoint.mask is not None:
        kept |= {layer.name: layer.kept for layer in checkpoint.mask.per_layer()}
    tensors = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
    info = replace(
        checkpoint.info,
        kept=kept,
        versions=software_versions(),
        digest=tensors_digest(tensors),
        mask_digest=mask_digest,
    )
    # Through JSON once, so that the checksum covers what a reader gets.
    value = json.loads(json.dumps(info.to_json()))
    value["checksum"] = _checksum(value)
    return encode_tensors(tensors, _METADATA_KEY, value)


def load_checkpoint(path: Path, *, remedy: str = "") -> Checkpoint:
    """Read a checkpoint, or a saved state, and check that it is complete and unaltered.

    Args:
        path: The network's file; its mask lies beside it.
        remedy: What to do if it is missing, such as ``run `causalprune pretrain` first``.

    Raises:
        DataError: The file is missing or empty, or the mask is missing.
        CorruptError: A file is damaged, or isn't a checkpoint of causalprune.
        NewerFormatError: The file has a newer version of the format.
        MismatchError: The mask is another network's, or has other parameters.
    """
    info = read_checkpoint_info(path, remedy=remedy)
    from causalprune.models.mask import Mask

    tensors = load_tensors(path)
    if tensors_digest(tensors) != info.digest:
        raise _altered(path)
    sha256 = sha256_file(path)
    if info.mask_digest:
        return Checkpoint(info, tensors, _mask_beside(path, info, sha256), sha256=sha256)
    weights = {name: t for name, t in tensors.items() if not name.startswith(PREFIXES)}
    masks = {name.removeprefix("mask/"): t for name, t in tensors.items() if name.startswith("mask/")}
    extra = {name: t for name, t in tensors.items() if name.startswith(PREFIXES[1:])}
    for name, keep in masks.items():
        if name not in weights or keep.shape != weights[name].shape or str(keep.dtype) != "torch.bool":
            raise CorruptError(f"mask {name} in {path}", expected="bools in the shape of the weight", found="others")
    mask = Mask.from_tensors(info.index, masks) if masks else None
    return Checkpoint(info, weights, mask, extra, sha256)


def load_masks(path: Path) -> dict[str, torch.Tensor]:
    """The mask that lies beside a safetensors file, if this is a checkpoint that has one there, else nothing.

    Returns:
        Bools by the name of the weight behind ``mask/``, as they are in one file.

    Raises:
        CausalpruneError: As :func:`load_checkpoint` does.
    """
    if _METADATA_KEY not in read_metadata(path):
        return {}
    info = read_checkpoint_info(path)
    if not info.mask_digest:
        return {}
    mask = _mask_beside(path, info, sha256_file(path))
    return {f"mask/{name}": keep for name, keep in mask.tensors().items()}


def _mask_beside(path: Path, info: CheckpointInfo, sha256: str) -> Mask:
    from causalprune.models.mask import Mask

    at = find_mask(path, sha256)
    keep = load_mask(at).tensors()
    if tensors_digest(keep) != info.mask_digest:
        raise _altered(at)
    return Mask.from_tensors(info.index, keep)


def _altered(path: Path) -> CorruptError:
    return CorruptError(
        f"{path}",
        expected="tensors that match the checksum in the header of the network's file",
        found="altered tensors",
        remedy="restore the file, or run the stage that wrote it again with `overwrite`",
    )


_FOREIGN = (
    "a safetensors file without its description",
    "to start from foreign weights use pretrain `init_from=FILE, epochs=0`",
)
_OTHER_FILES = {
    "mask": ("a mask", "name the network that it is of, which lies beside it"),
    MASKED_STATE_DICT: (
        "the state dict that apply-mask `weights` wrote, which says neither its network nor its data",
        "load it in Python, or make a checkpoint of it: pretrain `init_from=FILE, epochs=0, keep_zeros=true` with its "
        "`model` and `dataset`",
    ),
}
"""What a safetensors file may be that is no checkpoint, and what to do with it; those of ours by their kind."""


def read_checkpoint_info(path: Path, *, remedy: str = "") -> CheckpointInfo:
    """Read only the header, without PyTorch and without the tensors.

    Raises:
        DataError: The file is missing or empty.
        CorruptError: The file isn't a checkpoint of causalprune, or its header contradicts it.
        NewerFormatError: The file has a newer version of the format.
    """
    source = f"{path}"
    text = read_metadata(path, remedy=remedy).get(_METADATA_KEY)
    if text is None:
        found, remedy = _OTHER_FILES.get(read_header(path).get("kind", ""), _FOREIGN)
        raise CorruptError(source, expected="a checkpoint of causalprune", found=found, remedy=remedy)
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


def _checksum(value: dict[str, Any]) -> str:
    """SHA-256 over the description, which the digest of the tensors doesn't cover."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
