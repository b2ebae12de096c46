"""Addresses in object storage, where a path would do on a disk."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from causalprune.base.errors import UsageError

EXPECTED = "a path or s3://BUCKET/KEY"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_URL = re.compile(r"s3://([A-Za-z0-9][A-Za-z0-9._-]{2,62})/([^\x00-\x1f\x7f]+?)/*")
_LONGEST_KEY = 900
"""Bytes; S3 allows 1024, of which a store needs some for its own names."""


@dataclass(frozen=True)
class StoreUrl:
    """Where a store lies in object storage.

    Attributes:
        bucket: Name of the bucket.
        key: What the keys of its objects begin with, as it stands, without a slash at either end.
    """

    bucket: str
    key: str

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


def parse_place(text: str) -> Path | StoreUrl:
    """A path, or an address in object storage where the text has a scheme.

    Raises:
        UsageError: Another scheme than ``s3``, or no bucket and key that objects can have.
    """
    if not _SCHEME.match(text):
        return Path(text)
    match = _URL.fullmatch(text)
    if match is None or len(match[2].encode()) > _LONGEST_KEY or set(match[2].split("/")) & {"", ".", ".."}:
        raise UsageError("store", expected=EXPECTED, found=repr(text)[:120])
    return StoreUrl(match[1], match[2])


def is_url_taken_for_path(path: Path) -> bool:
    """Whether a path was made of an address, of which it has lost a slash."""
    return bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)))
