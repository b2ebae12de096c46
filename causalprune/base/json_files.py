"""JSON files: bounded when read, equal bytes for equal values, and sealed against editing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from causalprune.base.errors import CorruptError, storage_errors
from causalprune.base.files import require_file, write_atomic

MAX_JSON_BYTES = 64 * 2**20
"""A larger JSON file is not one of ours."""


def read_bytes(path: Path, max_bytes: int, *, remedy: str = "") -> bytes:
    """Read a whole file of bounded size.

    Args:
        path: The file.
        max_bytes: A larger file is refused before it is read.
        remedy: What to do when the file is missing.

    Raises:
        DataError: Nothing there, or not a file.
        CorruptError: Larger than ``max_bytes``.
        StorageError: The file system refused.
    """
    size = require_file(path, remedy=remedy).st_size
    if size > max_bytes:
        raise CorruptError(f"{path}", expected=f"at most {max_bytes} bytes", found=f"{size}")
    with storage_errors(path, "read"):
        return Path(path).read_bytes()


def json_text(value: Any, *, plain: bool = False) -> str:
    """A value as JSON with sorted keys, indented by 2.

    Args:
        value: What to write.
        plain: Whether to write ASCII only.

    Raises:
        ValueError: A float that isn't finite, which JSON can't express: use ``None``.
    """
    text = json.dumps(value, sort_keys=True, indent=2, allow_nan=False, ensure_ascii=plain)
    # The bytes of a path that are no UTF-8 are surrogates in Python, and \\udcXX in JSON, from which they come back.
    return text.encode(errors="backslashreplace").decode()


def encode_json(value: Any) -> bytes:
    """The bytes of a JSON file; raises as :func:`json_text` does."""
    return (json_text(value) + "\n").encode()


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES, *, remedy: str = "") -> Any:
    """Read a JSON file; raises as :func:`read_bytes` and :func:`decode_json` do."""
    return decode_json(read_bytes(path, max_bytes, remedy=remedy), f"{path}")


def decode_json(data: bytes | str, source: str) -> Any:
    """Decode JSON that came from ``source``.

    Raises:
        CorruptError: It isn't JSON (NaN and Infinity are not).
    """
    try:
        return json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise CorruptError(source, expected="JSON", found=str(error)[:120]) from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name}, which is not JSON")


def seal(value: dict[str, Any], key: str = "sha256") -> dict[str, Any]:
    """Add the SHA-256 of a JSON object's content to it, so that :func:`is_sealed` notices any change."""
    content = {name: inner for name, inner in value.items() if name != key}
    return {**content, key: hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()}


def is_sealed(value: dict[str, Any], key: str = "sha256") -> bool:
    """Whether a JSON object is still what :func:`seal` returned."""
    return value == seal(value, key)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        DataError: Nothing there, or not a file.
        StorageError: The file system refused.
    """
    require_file(path)
    with storage_errors(path, "read"), Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys, indented by 2, atomically; equal values give equal bytes.

    Raises:
        ValueError: A float that isn't finite, which JSON can't express: use ``None``.
        StorageError: The file system refused.
    """
    write_atomic(path, encode_json(value))
