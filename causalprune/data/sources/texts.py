"""Texts, cut into windows of tokens."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import torch

from causalprune.base.errors import DataError
from causalprune.base.specs import DataSpec
from causalprune.data.splits import RawData, Split, data_in_memory
from causalprune.data.tasks.next_token import NextToken

CONTEXT = 64
"""Tokens that a network sees at once."""

BYTES = 256
"""Tokens of a text that isn't tokenized."""

_TEST, _VALIDATION = 0, 4
"""What the hash of a topic's name, modulo 10, makes it a part of; others are for training."""


def topics(_: DataSpec) -> RawData:
    """The pages of Python's ``help()`` on its language, about 460,000 bytes of English and code, byte by byte.

    They come with every Python (``pydoc_data.topics``), each version with its own text, which the fingerprint tells.
    A page belongs to one split as a whole, which depends on its name alone. Five pages of Python 3.11, 9 % of the text,
    are the test split, six, 7 %, that for validation.

    Raises:
        DataError: A Python without them.
    """
    try:
        from pydoc_data.topics import topics as pages
    except ImportError as error:
        raise DataError(
            "data set topics",
            expected="pydoc_data, which comes with Python",
            found=str(error),
            remedy="install the documentation of this Python, or use another one",
        ) from error
    parts: dict[str, list[bytes]] = {"train": [], "validation": [], "test": []}
    for name in sorted(pages):
        place = zlib.crc32(name.encode()) % 10
        parts["test" if place == _TEST else "validation" if place == _VALIDATION else "train"].append(
            pages[name].encode()
        )
    splits = {part: windows(texts) for part, texts in parts.items()}
    return data_in_memory(
        splits["train"],
        splits["test"],
        (),
        validation=splits["validation"],
        vocabulary=BYTES,
        task=NextToken(num_outputs=BYTES),
    )


def windows(texts: Iterable[bytes], length: int = CONTEXT) -> Split:
    """Cut texts into windows that follow each other: inputs (N, length), and as targets the bytes one place later.

    Every byte of a text but its first is a target once, except for up to ``length`` − 1 at its end.
    """
    inputs, targets = [], []
    for text in texts:
        tokens = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
        count = (len(tokens) - 1) // length
        inputs.append(tokens[: count * length].view(count, length))
        targets.append(tokens[1 : count * length + 1].view(count, length))
    return Split(torch.cat(inputs), torch.cat(targets))
