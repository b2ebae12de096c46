import pytest

from causalprune.base.files import Disk


@pytest.fixture(scope="module", autouse=True)
def no_waiting_for_the_disk():
    """No power fails during a test, so that syncing would only cost time; that it happens, test_files.py checks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Disk, "fsync", staticmethod(lambda descriptor: None))
        yield
