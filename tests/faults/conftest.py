"""A runner of commands under faults and the states between the stages, shared by the session."""

import pytest
from command_runner import Runner, Stages


@pytest.fixture(scope="session")
def runner():
    runner = Runner()
    yield runner
    runner.close()


@pytest.fixture(scope="session")
def stages(runner, tmp_path_factory):
    return Stages(runner, tmp_path_factory.mktemp("stages"))
