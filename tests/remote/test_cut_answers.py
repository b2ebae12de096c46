"""Connections that break off in the middle of an answer, and those that fail while a store is verified."""

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import numpy as np
import pytest
from causalprune_cli.main import main
from objects import local_tree, tree
from store_builders import make_recording

from causalprune.base.errors import StorageError
from causalprune.trajectory import Store
from causalprune.trajectory.storage import object_client
from causalprune.trajectory.storage.object_client import NoAnswerError, ObjectClient


class Cutting:
    """Between the client and the server: cuts some answers in the middle.

    Attributes:
        cuts: How many answers are still to be cut; of each kind of request, every second one is.
        count: How many were.
        tells_length: Whether an answer says how long it should have been.
    """

    def __init__(self, endpoint):
        self.cuts, self.count, self.tells_length = 0, 0, True
        self.seen = {}
        server = urlsplit(endpoint)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(handler):  # noqa: N805
                body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
                connection = http.client.HTTPConnection(server.hostname, server.port)
                connection.request(handler.command, handler.path, body, dict(handler.headers))
                found = connection.getresponse()
                data = found.read()
                connection.close()
                cut = bool(data) and self._cuts(handler)
                handler.send_response(found.status)
                for name in ("Content-Type", "ETag", "Last-Modified", "Content-Range"):
                    if name in found.headers:
                        handler.send_header(name, found.headers[name])
                if cut and not self.tells_length:
                    handler.send_header("Connection", "close")
                else:
                    handler.send_header("Content-Length", found.headers.get("Content-Length", str(len(data))))
                handler.end_headers()
                handler.wfile.write(data[: len(data) // 2] if cut else data)
                handler.close_connection = cut

            do_GET = do_HEAD = do_PUT = do_DELETE = do_POST = answer  # noqa: N815

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _cuts(self, request):
        """Lists and deletions: what the library doesn't repeat itself."""
        if not self.cuts or not ("list-type" in request.path or request.command == "POST"):
            return False
        kind = request.command, "delimiter" in request.path
        self.seen[kind] = self.seen.get(kind, 0) + 1
        if self.seen[kind] % 2 == 0:
            return False
        self.cuts -= 1
        self.count += 1
        return True


@pytest.fixture
def cutting(s3, object_server, monkeypatch):
    """The proxy, which the environment leads to."""
    monkeypatch.setattr(object_client, "_CUT_WAIT_SECONDS", 0)
    proxy = Cutting(object_server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    yield proxy
    proxy.server.shutdown()
    proxy.server.server_close()


@pytest.mark.parametrize("tells_length", [True, False])
def test_an_answer_that_breaks_off_is_asked_for_again(cutting, s3, tmp_path, tells_length):
    expected, _ = make_recording(tmp_path / "t.zarr", rows=11)
    cutting.cuts, cutting.tells_length = 10**6, tells_length
    store, _ = make_recording(f"{s3}/t.zarr", rows=11)
    assert store.verify() == []
    # Lists of two kinds, and deletions.
    assert len(cutting.seen) == 3
    assert cutting.count > 10
    cutting.cuts = 0
    assert tree(f"{s3}/t.zarr").keys() == local_tree(expected.path).keys()


def test_answers_that_always_break_off_are_a_failure_of_the_connection(cutting, s3, capsys, monkeypatch):
    make_recording(f"{s3}/t.zarr", rows=3)
    cutting.cuts = 10**6
    monkeypatch.setattr(Cutting, "_cuts", lambda self, request: "list-type" in request.path)
    for command in (["info"], ["store", "verify"]):
        assert main([*command, f"{s3}/t.zarr", "--quiet"]) == 6
        assert ": an answer that breaks off; check the network" in capsys.readouterr().err


@pytest.mark.parametrize("failing", ["c.1.0", "commits.log", "fits/default/gamma/c.0"])
def test_a_connection_that_fails_is_not_taken_for_damage(s3, capsys, monkeypatch, failing):
    store, _ = make_recording(f"{s3}/t.zarr", rows=11, columns=40)
    store.fits().write("default", {"gamma": np.zeros(40)}, {})
    real = ObjectClient._request

    def request(client, action, key, call):
        if action == "read" and key.endswith(failing):
            raise NoAnswerError("cannot read it", found="no answer", remedy="run the same command again")
        return real(client, action, key, call)

    monkeypatch.setattr(ObjectClient, "_request", request)
    for command in (["store", "verify"], ["info", "--verify"]):
        assert main([*command, f"{s3}/t.zarr", "--quiet"]) == 6
        assert "no answer" in capsys.readouterr().err


def test_less_than_was_asked_for_is_not_taken_for_damage(s3, monkeypatch):
    store, _ = make_recording(f"{s3}/t.zarr", rows=11)
    reader = store.recording()
    reader.read_rows(0, 1)
    real = ObjectClient.get

    def get(client, key, span=None, **options):
        data, info = real(client, key, span, **options)
        return (data[:-1] if span else data), info

    monkeypatch.setattr(ObjectClient, "get", get)
    with pytest.raises(StorageError, match=r"cannot read .*c\.0\.0"):
        reader.read_rows(0, 1)
    with pytest.raises(StorageError, match=r"cannot read .*c\.0\.0"):
        Store.open(store.path).verify()
