import json

import pytest

from causalprune.base.errors import UsageError
from causalprune.base.text import masked, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", r"\u001b[2J\u001b]0;title\u0007"),
        ("a\nb\rc\td", r"a\nb\rc\td"),
        ("\x9b31m\x7f\x85", r"\u009b31m\u007f\u0085"),
        ("\u202egnp.exe\u2066\u2028", r"\u202egnp.exe\u2066\u2028"),
        ("fc1.weight γ ü 日本 😀 \\ \"'", "fc1.weight γ ü 日本 😀 \\ \"'"),
    ],
)
def test_control_characters_are_spelled(text, shown):
    assert printable(text) == shown
    assert f"{UsageError(text)}" == shown


def test_json_stays_the_same_json():
    value = {"name\x1b\x9b": ["\u202e\x7f\n", 1.5]}
    for indent in (None, 2):
        text = printable(json.dumps(value, ensure_ascii=False, indent=indent), keep="\n")
        assert json.loads(text) == value
        assert all(character.isprintable() or character == "\n" for character in text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:secret@host:9000/path", "https://***@host:9000/path"),
        ("s3://KEY:se/cr+et=@bucket/t.zarr", "s3://***@bucket/t.zarr"),
        ("found 'http://token@host', and http://a:b@c", "found 'http://***@host', and http://***@c"),
        ("http://me:p@ss@host/x", "http://***@host/x"),
        ("found 'https:/me:p@ss@host/x'", "found 'https:/***@host/x'"),
        ("npz:/home/me@host/x.npz", "npz:/home/me@host/x.npz"),
        ("https://host:9000/a@b", "https://host:9000/a@b"),
        ("s3://bucket/a@b/t.zarr", "s3://bucket/a@b/t.zarr"),
        ("mail@host, user:secret", "mail@host, user:secret"),
    ],
)
def test_passwords_are_masked(text, shown):
    assert masked(text) == shown
    assert f"{UsageError(text)}" == shown
