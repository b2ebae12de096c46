"""A runner of commands under faults and the states between the stages, shared by the session; the table of cases."""

import pytest
import torch
from command_runner import Runner, Stages
from faulty_disk import FAULTS
from stage_cases import STAGE_OPTIONS


@pytest.fixture(autouse=True)
def _as_many_threads_as_the_runner_has():
    """What runs in this process comes out with the bits of what runs there."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def runner():
    runner = Runner()
    yield runner
    runner.close()


@pytest.fixture(scope="session")
def stages(runner, tmp_path_factory):
    return Stages(runner, tmp_path_factory.mktemp("stages"))


def pytest_terminal_summary(terminalreporter):
    """Print how many cases of the fault matrix were tried, as docs/reliability.md has it."""
    tried, changes, lost, interruptions = {}, {}, set(), []
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in report.user_properties:
                if name == "cases":
                    stage, fault, count, changes[stage] = value
                    tried[stage, fault] = count
                    lost |= {stage} if outcome == "failed" else set()
                elif name == "interruptions":
                    interruptions.append(value)
    if tried:
        terminalreporter.section("faults tried")
        terminalreporter.line(f"| stage | changes | {' | '.join(FAULTS)} | lost |")
        terminalreporter.line("|---" * (3 + len(FAULTS)) + "|")
        for stage in [stage for stage in STAGE_OPTIONS if any((stage, fault) in tried for fault in FAULTS)]:
            counts = " | ".join(str(tried.get((stage, fault), "–")) for fault in FAULTS)
            terminalreporter.line(
                f"| `{stage}` | {changes[stage]} | {counts} | {'see above' if stage in lost else 'nothing'} |"
            )
        terminalreporter.line(f"{sum(tried.values()):,} cases")
    for count, finished in interruptions:
        terminalreporter.line(f"{count} interruptions of {finished} pipelines, nothing lost")
