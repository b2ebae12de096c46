"""What the environment says of object storage, checked before it is used.

The library that sends the requests ends the process on some of these mistakes, and takes others for a network that
doesn't answer.
"""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from causalprune.base.errors import UsageError

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_METADATA = "AWS_METADATA_ENDPOINT"
_HEADERS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION")
"""What becomes part of a request's headers."""


def allows_http() -> bool:
    """Whether plain http is meant."""
    return os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true", "yes", "on")


def check_environment() -> None:
    """Check the variables ``AWS_*`` that name the endpoint and the credentials.

    Raises:
        UsageError: One that is empty, or can't be part of a request; its value is named only if it is an address.
    """
    values = {name: os.environ[name] for name in (*_ENDPOINTS, _METADATA, *_HEADERS) if name in os.environ}
    for name, value in values.items():
        # Without what may be a user and a password.
        place = value.rpartition("@")[2][:200]
        found = remedy = ""
        if not re.fullmatch(r"[\x21-\x7e]+", value):
            expected = "visible ASCII characters"
            found = "a space, a line end or another character" if value else "nothing"
        elif name not in _HEADERS and not _is_endpoint(value):
            expected, found = "http:// or https://, a host, and perhaps a port, as in https://host:9000", place
        elif name in _ENDPOINTS and value.lower().startswith("http://") and not allows_http():
            expected, found, remedy = "https", f"plain http at {place}", "set AWS_ALLOW_HTTP=true if that is meant"
        if found:
            remedy = remedy or "set it to another value, or unset it"
            raise UsageError(name, expected=expected, found=found, remedy=remedy)


def _is_endpoint(value: str) -> bool:
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        return False
    is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0
    return is_address and not (parts.query or parts.fragment)
