"""What is wrong with storage is one line that says what to do; a place that can't be one is a usage error."""

import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from causalprune_cli.main import main

from causalprune.base.errors import UsageError
from causalprune.base.options import option_text
from causalprune.base.paths import StoreUrl, parse_place
from causalprune.config.record import RecordConfig


def refuse(capsys, code, *args):
    capsys.readouterr()
    assert main([*map(str, args), "--quiet"]) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "Traceback" not in error
    return error


@pytest.fixture
def answering(monkeypatch, s3):
    """Makes every answer a status with an error code."""
    servers = []

    def start(status, code):
        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_HEAD = do_PUT = do_DELETE = do_POST = answer  # noqa: N815

            def log_message(self, *args):
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


COMMANDS = [["info"], ["store", "verify"]]


@pytest.mark.parametrize("command", COMMANDS)
def test_no_such_bucket(s3, capsys, command):
    error = refuse(capsys, 6, *command, "s3://nowhere/t.zarr")
    assert "no bucket nowhere" in error
    assert "run the same command again" in error


def test_no_such_store(s3, capsys):
    assert f"{s3}/t.zarr: expected a trajectory store, found nothing" in refuse(capsys, 3, "info", f"{s3}/t.zarr")


def test_nobody_answers(s3, run, capsys, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    error = refuse(capsys, 6, "record", "--run", run, "--store", f"{s3}/t.zarr")
    assert "no answer from http://127.0.0.1:1; check the network and AWS_ENDPOINT_URL" in error
    assert not (run / "recorded.safetensors").exists()


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (403, "AccessDenied", "access denied (AccessDenied); check the AWS_* variables"),
        (403, "SignatureDoesNotMatch", "access denied (SignatureDoesNotMatch)"),
        (401, "InvalidToken", "access denied (InvalidToken)"),
        (301, "PermanentRedirect", "set AWS_REGION"),
        (400, "AuthorizationHeaderMalformed", "set AWS_REGION"),
        (507, "NoSpace", "NoSpace"),
    ],
)
def test_storage_refuses(answering, s3, capsys, status, code, said):
    answering(status, code)
    assert said in refuse(capsys, 6, "info", f"{s3}/t.zarr")


def test_no_credentials(answering, s3, capsys, monkeypatch):
    answering(404, "none")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    import os

    monkeypatch.setenv("AWS_METADATA_ENDPOINT", os.environ["AWS_ENDPOINT_URL"])
    error = refuse(capsys, 6, "info", f"{s3}/t.zarr")
    assert "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in error


def test_plain_http_must_be_meant(s3, capsys, monkeypatch):
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    assert "AWS_ALLOW_HTTP=true" in refuse(capsys, 2, "info", f"{s3}/t.zarr")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("AWS_ENDPOINT_URL", "127.0.0.1:9000", "expected http:// or https://, a host"),
        ("AWS_ENDPOINT_URL", "minio", "found minio"),
        ("AWS_ENDPOINT_URL", "me:secret@minio:9000", "found minio:9000"),
        ("AWS_ENDPOINT_URL", "", "found nothing"),
        ("AWS_ENDPOINT_URL", "http://", "a host"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:99999", "found http://127.0.0.1:99999"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:port", "found http://127.0.0.1:port"),
        ("AWS_ENDPOINT_URL", "http://me:secret@127.0.0.1:x", "found 127.0.0.1:x"),
        ("AWS_ENDPOINT_URL", "http://[::1", "found http://[::1"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1 ", "a space"),
        ("AWS_ENDPOINT_URL_S3", "minio:9000", "found minio:9000"),
        ("AWS_ENDPOINT", "ftp://minio", "found ftp://minio"),
        ("AWS_METADATA_ENDPOINT", "minio", "found minio"),
        ("AWS_ACCESS_KEY_ID", "secret\n", "a line end"),
        ("AWS_ACCESS_KEY_ID", "", "found nothing"),
        ("AWS_SECRET_ACCESS_KEY", "sec\nret", "a line end"),
        ("AWS_SESSION_TOKEN", "secret\r", "a line end"),
        ("AWS_REGION", "eu\n", "a line end"),
        ("AWS_SKIP_SIGNATURE", "perhaps", "failed to parse"),
        ("AWS_SECRET_ACCESS_KEY", None, "Missing SecretAccessKey"),
    ],
)
def test_a_mistake_in_the_environment(s3, capfd, monkeypatch, name, value, said):
    monkeypatch.delenv(name, raising=False)
    if value is not None:
        monkeypatch.setenv(name, value)
    error = refuse(capfd, 2, "info", f"{s3}/t.zarr")
    assert (name if value is not None and name != "AWS_SKIP_SIGNATURE" else "AWS_*") in error
    assert said in error
    assert "secret" not in error
    assert "\n" not in error.rstrip("\n")


def test_what_else_the_library_cannot_stand_is_a_line(s3, capsys, monkeypatch):
    class PanicException(BaseException):
        pass

    def panic(*_, **__):
        raise PanicException("called `Result::unwrap()`")

    import obstore

    monkeypatch.setattr(obstore, "list", panic)
    assert "Result::unwrap()" in refuse(capsys, 6, "info", f"{s3}/t.zarr")


def test_a_password_in_the_endpoint_is_not_shown(s3, capsys, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://me:secret@127.0.0.1:1")
    error = refuse(capsys, 6, "info", f"{s3}/t.zarr")
    assert "no answer from http://***@127.0.0.1:1" in error
    assert "secret" not in error


def test_the_extra_is_missing(s3, capsys, monkeypatch):
    for name in [n for n in sys.modules if n.partition(".")[0] == "obstore"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "obstore", None)
    assert "pip install '.[s3]'" in refuse(capsys, 2, "info", f"{s3}/t.zarr")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((text, "a path or s3://BUCKET/KEY") for text in (
            "gs://bucket/t.zarr", "http://host/t.zarr", "file:///t.zarr", "s4://b/t.zarr", "s3://", "s3://bucket",
            "s3://bucket/", "s3:///t.zarr", "s3:/bucket/t.zarr",
        )),
        *((text, "a bucket name of 3 to 63 characters: letters, digits") for text in (
            "s3://b/k", "s3://" + "b" * 64 + "/k", "s3://key:secret@bucket/t.zarr", "s3://.bucket/k", "s3://bücket/k",
        )),
        *((text, "a key without empty parts, . and ..") for text in (
            "s3://bucket//t.zarr", "s3://bucket/a/../t.zarr", "s3://bucket/a/./t",
        )),
        ("s3://bucket/a\nb", "a key without control characters"),
        ("s3://bucket/" + "x" * 901, "a key of at most 900 bytes"),
    ],
)  # fmt: skip
def test_an_address_that_cannot_be_one(text, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert f"--store: expected {expected}" in refuse(capsys, 2, "record", "--store", text)
    error = refuse(capsys, 2, "info", text)
    assert f"expected {expected}" in error
    assert "secret" not in error
    assert list(tmp_path.iterdir()) == []


def test_only_a_store_can_lie_elsewhere(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for option in ("--run", "--output", "--checkpoint"):
        error = refuse(capsys, 2, "record", option, "s3://bucket/x.safetensors")
        assert f"{option}: expected a path, because only a store can lie elsewhere" in error
    assert list(tmp_path.iterdir()) == []


def test_addresses_as_they_stand():
    for text in ("s3://bucket/t.zarr", "s3://my.bucket-1/a b/ü/100%25/t.zarr", "s3://bucket/#?&+'\"/t"):
        assert str(parse_place(text)) == text
        assert str(RecordConfig(store=text).store) == text
        assert option_text(RecordConfig(store=text).store) == text
    assert parse_place("s3://bucket/a/t.zarr//") == StoreUrl("bucket", "a/t.zarr")
    assert parse_place("s3://bucket/a/t.zarr").name == "t.zarr"
    with pytest.raises(UsageError):
        RecordConfig(store="gs://bucket/t.zarr")
