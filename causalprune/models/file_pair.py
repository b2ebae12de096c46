"""A network's file and that of its mask: a crash leaves the old pair or the new one, never half of each.

The network's file holds the network's tensors and nothing else, so that a strict ``load_state_dict`` takes them. The
mask lies beside it (:func:`causalprune.base.paths.mask_path`) and names the network's file by its SHA-256. It is
committed first: once the network is there, so is all. Until then an earlier mask is kept under another name, and a
reader takes the one of the two that names the network's file as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causalprune.base.errors import CorruptError, DataError, MismatchError, StorageError
from causalprune.base.files import atomic_file, remove_file, rename
from causalprune.base.json_files import sha256_file
from causalprune.base.paths import mask_path, real_path, replaced_mask_path
from causalprune.base.signals import uninterrupted
from causalprune.models.mask_file import is_mask, read_header, save_mask

if TYPE_CHECKING:
    from causalprune.models.mask import Mask


def write_pair(network: Path, data: bytes, mask: Mask | None, provenance: Mapping[str, Any] | None = None) -> str:
    """Write a network and its mask, or a network without one; one writer at a time.

    Args:
        network: The network's file; it and its mask are replaced if they exist.
        data: Its content.
        mask: The mask; None for a dense network.
        provenance: What the mask was made of, JSON-ready.

    Returns:
        SHA-256 of the network's file.

    Raises:
        StorageError: The file system refused; the earlier network and its mask are as they were.
    """
    sha256 = hashlib.sha256(data).hexdigest()
    own, kept = mask_path(network), replaced_mask_path(network)
    with uninterrupted():
        settle(network)
        try:
            with atomic_file(network) as file:
                file.write(data)
                if named_network(own):
                    rename(own, kept)
                if mask is not None:
                    save_mask(mask, own, {**(provenance or {}), "network": sha256})
            if kept.exists():
                remove_file(kept)
        except BaseException:
            with suppress(StorageError):
                settle(network)
            raise
    return sha256


def settle(network: Path) -> None:
    """Bring back, or delete, the earlier mask that a crash left; only the single writer may call this.

    Raises:
        StorageError: The file system refused.
    """
    kept = replaced_mask_path(network)
    if not kept.exists():
        return
    if network.is_file() and named_network(kept) == sha256_file(network):
        rename(kept, mask_path(network))
    else:
        remove_file(kept)


def find_mask(network: Path, sha256: str) -> Path:
    """The file of a network's own mask.

    Args:
        network: The network's file.
        sha256: Its hash.

    Raises:
        DataError: No mask lies beside it.
        MismatchError: Another network's.
        CorruptError: Something else.
        StorageError: The file system refused.
    """
    # A link may lead to a network that has its mask where it lies itself.
    for beside in dict.fromkeys((network, real_path(network))):
        for path in (mask_path(beside), replaced_mask_path(beside)):
            if named_network(path) == sha256:
                return path
    own = mask_path(network)
    again = f"in the directory of a run, delete {network.name} and repeat the run, which makes both again"
    remedy = f"keep the two files together, or run the stage that wrote them again with `overwrite`; {again}"
    expected = f"the mask of {network}"
    if not own.exists():
        alone = "copy it from where the network is from, or start from the network alone with pretrain "
        alone += f"`keep_zeros, init_from=FILE, epochs=0`; {again}"
        raise DataError(f"{own}", expected=expected, found="nothing", remedy=alone)
    named = named_network(own)
    if not named:
        raise CorruptError(f"{own}", expected=expected, found="something else, or damage", remedy=remedy)
    found = f"that of another file, {named[:12]}…, where {network.name} is {sha256[:12]}…"
    raise MismatchError(f"{own}", expected=expected, found=found, remedy=remedy)


def named_network(mask: Path) -> str:
    """The hash of the network's file that a mask is of; empty where nothing or anything else lies.

    Raises:
        StorageError: The file system refused.
    """
    return str(read_header(mask).get("network", "")) if mask.is_file() and is_mask(mask) else ""
