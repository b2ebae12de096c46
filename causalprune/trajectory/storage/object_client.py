"""Requests to a bucket: each method makes one, with a time limit and one-line errors that say what to do."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from causalprune.base.errors import CorruptError, DataError, StorageError, UsageError, missing_extra
from causalprune.trajectory.storage.object_environment import allows_http, check_environment

Result = TypeVar("Result")

CONNECT_TIMEOUT = "5s"
REQUEST_TIMEOUT = "300s"
"""For a request including its body: enough for a shard of 100 MB at 3 Mbit/s."""

FIRST_RETRIES = 3
"""For the first request, so that a wrong address fails in about a second. Later ones are retried for three minutes."""

_CUT_ATTEMPTS = 5
"""Of a request whose answer breaks off; the library repeats only those that get none, and the ranges of an object."""

_CUT_WAIT_SECONDS = 0.2

_AGAIN = "then run the same command again"


class ConflictError(Exception):
    """The object is missing, exists already, or has another version than the request demanded."""


class NoAnswerError(StorageError):
    """No answer came, so nobody knows whether the request took effect."""


class CutAnswerError(NoAnswerError):
    """The answer broke off."""


@dataclass(frozen=True)
class ObjectInfo:
    """An object.

    Attributes:
        key: Its key.
        size: Length in bytes.
        version: Its entity tag, which differs for different bytes.
    """

    key: str
    size: int
    version: str


class ObjectClient:
    """A bucket. Credentials, endpoint and region come from the environment (``AWS_*``).

    Every method raises StorageError if storage can't be reached or refuses. Each change is one request.

    Attributes:
        bucket: Its name.
        store: The bucket, for another library that reads it through obstore.
    """

    def __init__(self, bucket: str) -> None:
        self.bucket = bucket
        self._first: Any = _connect(bucket, {"max_retries": FIRST_RETRIES})
        self.store: Any = _connect(bucket, None)

    def url(self, key: str) -> str:
        """The address of an object, as users write it."""
        return f"s3://{self.bucket}/{key}"

    def read(self, key: str, max_bytes: int) -> tuple[bytes, ObjectInfo]:
        """Read a whole object of bounded size.

        Raises:
            DataError: There is no such object.
            CorruptError: Larger than ``max_bytes``.
        """
        try:
            data, info = self.get(key, limit=max_bytes)
        except FileNotFoundError as error:
            raise DataError(self.url(key), expected="a file", found="nothing") from error
        if info.size > max_bytes:
            raise CorruptError(self.url(key), expected=f"at most {max_bytes} bytes", found=f"{info.size}")
        return bytes(data), info

    def get(
        self,
        key: str,
        span: tuple[int, int] | None = None,
        *,
        suffix: int = 0,
        limit: int | None = None,
        version: str | None = None,
    ) -> tuple[memoryview, ObjectInfo]:
        """Bytes of an object, and its description.

        Args:
            key: Its key.
            span: Return only these bytes, as far as they exist.
            suffix: Return only this many bytes at the end.
            limit: Return no bytes if the object is larger.
            version: The version that the object must have.

        Raises:
            FileNotFoundError: There is no such object.
            ConflictError: It has another version.
        """
        options: dict[str, Any] = {"if_match": version} if version else {}
        if span:
            options["range"] = span
        elif suffix:
            options["range"] = {"suffix": suffix}

        def call(obstore: Any, store: Any) -> tuple[memoryview, ObjectInfo]:
            result = obstore.get(store, key, options=options)
            info = _info(result.meta)
            return memoryview(b"" if limit is not None and info.size > limit else result.bytes()), info

        return self._repeated("read", key, call)

    def head(self, key: str) -> ObjectInfo | None:
        """Description of an object; None if there is none."""
        try:
            return _info(self._repeated("read", key, lambda obstore, store: obstore.head(store, key)))
        except FileNotFoundError:
            return None

    def put(self, key: str, data: Any) -> None:
        """Write an object, replacing any that exists."""
        self._repeated("write", key, lambda obstore, store: obstore.put(store, key, data, use_multipart=False))

    def put_if(self, key: str, data: Any, version: str | None) -> str:
        """Write an object if the existing one has this version; with ``None``, only if there is none.

        Returns:
            The new version.

        Raises:
            ConflictError: Another version exists.
            NoAnswerError: Nobody knows whether it was written.
        """
        mode: Any = "create" if version is None else {"e_tag": version}
        result = self._request("write", key, lambda obstore, store: obstore.put(store, key, data, mode=mode))
        return str(result["e_tag"])

    def copy(self, source: str, target: str) -> None:
        """Copy an object within the bucket."""
        self._repeated("write", target, lambda obstore, store: obstore.copy(store, source, target))

    def delete(self, *keys: str) -> None:
        """Delete objects; missing ones are no error."""
        if keys:
            self._repeated("delete", keys[0], lambda obstore, store: obstore.delete(store, list(keys)))

    def below(self, key: str, first: int | None = None) -> list[ObjectInfo]:
        """Objects whose key begins with ``key/``, ordered by key; all, or only the ``first`` few."""

        def call(obstore: Any, store: Any) -> list[Any]:
            pages = obstore.list(store, key, chunk_size=first or 1000)
            return list(next(iter(pages), [])) if first else [entry for page in pages for entry in page]

        return [_info(entry) for entry in self._repeated("list", key, call)]

    def children(self, key: str) -> tuple[list[str], dict[str, int]]:
        """Names of the folders, and names and lengths of the objects, directly below ``key/``."""
        found = self._repeated("list", key, lambda obstore, store: obstore.list_with_delimiter(store, key))
        folders = [name.rpartition("/")[2] for name in found["common_prefixes"]]
        return folders, {entry["path"].rpartition("/")[2]: entry["size"] for entry in found["objects"]}

    def _repeated(self, action: str, key: str, call: Callable[[Any, Any], Result]) -> Result:
        """A request that may be made twice, until its answer is whole."""
        for attempt in range(_CUT_ATTEMPTS - 1):
            try:
                return self._request(action, key, call)
            except CutAnswerError:
                time.sleep(_CUT_WAIT_SECONDS * 2**attempt)
        return self._request(action, key, call)

    def _request(self, action: str, key: str, call: Callable[[Any, Any], Result]) -> Result:
        import obstore

        with _translated(action, self.url(key), self.bucket):
            if self._first is None:
                return call(obstore, self.store)
            try:
                result = call(obstore, self._first)
            except (FileNotFoundError, obstore.exceptions.AlreadyExistsError, obstore.exceptions.PreconditionError):
                self._first = None
                raise
            self._first = None
            return result


@lru_cache(maxsize=8)
def client_of(bucket: str) -> ObjectClient:
    """The client of a bucket, one per process.

    Raises:
        UsageError: obstore isn't installed, or the environment variables can't be used.
    """
    return ObjectClient(bucket)


def _connect(bucket: str, retry: Any) -> Any:
    try:
        import obstore.store
    except ImportError as error:
        raise missing_extra(f"s3://{bucket} needs obstore", "s3") from error
    check_environment()
    options: Any = {"timeout": REQUEST_TIMEOUT, "connect_timeout": CONNECT_TIMEOUT, "allow_http": allows_http()}
    try:
        return obstore.store.S3Store(bucket, client_options=options, retry_config=retry)
    except (obstore.exceptions.BaseError, ValueError) as error:
        found, remedy = f"{error}".partition("\n")[0][:160], "set them again, or unset them"
        raise UsageError("variables AWS_*", expected="values that fit", found=found, remedy=remedy) from error


def _info(entry: Any) -> ObjectInfo:
    return ObjectInfo(entry["path"], entry["size"], entry["e_tag"] or "")


@contextmanager
def _translated(action: str, url: str, bucket: str) -> Iterator[None]:
    """Turn an error of obstore into one of ours."""
    from obstore import exceptions

    try:
        yield
    except (exceptions.AlreadyExistsError, exceptions.PreconditionError) as error:
        raise ConflictError(url) from error
    except FileNotFoundError as error:
        if "NoSuchBucket" not in str(error):
            raise FileNotFoundError(url) from error
        raise _storage_error(action, url, bucket, str(error)) from error
    except (exceptions.BaseError, ValueError, OSError) as error:
        raise _storage_error(action, url, bucket, str(error)) from error
    except BaseException as error:
        # A panic of the library, which is no Exception.
        if type(error).__name__ != "PanicException":
            raise
        raise _storage_error(action, url, bucket, str(error)) from error


def _storage_error(action: str, url: str, bucket: str, text: str) -> StorageError:
    line = text.partition("\n\nDebug source")[0]
    code = re.search(r"<Code>(\w+)</Code>", text)
    status = re.search(r"status code: (\d+)", line)
    address = re.search(r"https?://[^/\s]+", line)
    host = address[0] if address else "the endpoint"
    reason = code[1] if code else f"HTTP status {status[1]}" if status else ""
    kind: type[StorageError] = StorageError
    if re.search(r"/latest/(api/token|meta-data)|/169\.254\.", line):
        found = "no credentials"
        remedy = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    elif reason == "NoSuchBucket":
        found, remedy = f"no bucket {bucket} at {host}", "create it, or name another; check AWS_ENDPOINT_URL"
    elif reason == "AuthorizationHeaderMalformed" or "incorrectly configured region" in line:
        found, remedy = "a bucket in another region", "set AWS_REGION to the bucket's"
    elif status and status[1] in ("401", "403"):
        found, remedy = f"access denied ({reason})", "check the AWS_* variables and the bucket's policy"
    elif "BadScheme" in text or "URL scheme is not allowed" in text:
        found, remedy = f"plain http at {host}", "set AWS_ALLOW_HTTP=true if that is meant"
    elif status:
        found, remedy = reason, "see to the storage"
    elif re.search(r"body error|Got invalid \w+ response", line):
        kind, found, remedy = CutAnswerError, "an answer that breaks off", "check the network and AWS_ENDPOINT_URL"
    elif "error sending request" in line or "HTTP error" in line:
        kind, found, remedy = NoAnswerError, f"no answer from {host}", "check the network and AWS_ENDPOINT_URL"
    else:
        found, remedy = line[:160], "check the AWS_* variables"
    return kind(f"cannot {action} {url}", found=found, remedy=f"{remedy}, {_AGAIN}")
