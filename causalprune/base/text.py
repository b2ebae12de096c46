"""Text of unknown origin, such as a name in a file, before people see it."""

from __future__ import annotations

import json
import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What moves a cursor, changes colors or ends a line on a terminal, and what turns the direction of writing."""

_USER = re.compile(r"(?<=://)(?:[^/\s]*|[^/\s:]*:(?!\d+/)\S*)@")
"""The user and the password in a URL. A password may hold a slash; a host with a port is none."""

_USER_IN_PATH = re.compile(r"(?<=\bhttp:/)(?!/)\S*@|(?<=\bhttps:/)(?!/)\S*@|(?<=\bs3:/)(?!/)\S*@")
"""The same in a URL that was taken for a path, which made one slash of two."""


def printable(text: str, keep: str = "") -> str:
    r"""Text with its control characters spelled as in JSON, such as ``\u001b``, except those to ``keep``."""
    return _CONTROL.sub(lambda match: match[0] if match[0] in keep else json.dumps(match[0])[1:-1], text)


def masked(text: str) -> str:
    """Text without the users and passwords in its URLs: ``https://***@host``."""
    return _USER_IN_PATH.sub("***@", _USER.sub("***@", text))
