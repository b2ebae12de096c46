"""Fixtures that several test folders share."""

import logging
import os
import urllib.request
import uuid
from pathlib import Path

import pytest

# Threads that wait must not spin while other processes of the suite need the core. OpenMP reads this when PyTorch is
# imported, also in the processes that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch):
    for name in [n for n in os.environ if n.startswith("CAUSALPRUNE_") and n != "CAUSALPRUNE_TEST_DATA"]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _messages_reach_the_test(monkeypatch):
    """A command that ran in this process earlier has its own handler, with a stream that may be closed, and level."""
    logger = logging.getLogger("causalprune")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", True)
    logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def object_server():
    """Endpoint of an S3 server in a thread of this process, with the bucket ``tests``."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    with urllib.request.urlopen(urllib.request.Request(f"{endpoint}/tests", method="PUT")):
        pass
    yield endpoint
    server.stop()


@pytest.fixture
def s3(object_server, monkeypatch):
    """A place in object storage where nothing is yet, with an environment that leads there."""
    from causalprune.trajectory.storage.object_client import client_of

    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", object_server)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    client_of.cache_clear()
    yield f"s3://tests/{uuid.uuid4().hex}"
    client_of.cache_clear()


@pytest.fixture(scope="session")
def real_data():
    """Folder with MNIST and CIFAR-10 images; the test is skipped where there is none."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CAUSALPRUNE_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip("no real data: set CAUSALPRUNE_TEST_DATA to a folder with MNIST/raw")
    return folder
