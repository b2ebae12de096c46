"""Any one change of a store in object storage fails: nothing is lost, and the same command ends with the same bytes.

In full, printing how many cases were tried: ``pytest tests/faults/test_storage_faults.py -m slow -s``.
"""

import os
import shutil
import signal
import time

import pytest
from faulty_storage import STORAGE_FAULTS
from stage_cases import artifacts

from causalprune.base.errors import CausalpruneError
from causalprune.base.paths import RunPaths, fit_result_path, parse_place
from causalprune.trajectory import Store
from causalprune.trajectory.storage import locate

CASES = [("record", False), ("record", True), ("fit-gamma", False), ("fit-gamma", True)]
"""Stage, and whether it replaces what it made before."""


def objects(url):
    """What lies below an address, but for locks of processes that are dead."""
    location = locate(url)
    infos = location.client.below(location.key)
    found = {info.key[len(location.key) + 1 :]: bytes(location.client.get(info.key)[0]) for info in infos}
    return {name: data for name, data in found.items() if "lock" not in name or not is_dead(location / name)}


def is_dead(lock):
    return lock.holder().is_known_dead


def result_of(run, url):
    """The result of the fit in a store."""
    return fit_result_path(RunPaths(run), parse_place(url), "fit-gamma", "default")


def nameless(files):
    """Artifacts without the addresses of stores in their names."""
    found = {name.partition("@")[0]: content for name, content in files.items()}
    assert len(found) == len(files)
    return found


class Remote:
    """Stages whose store lies in object storage, with what they make there when nothing fails.

    With ``overwrite`` the stage replaces what it made before, with another seed or penalty.
    """

    def __init__(self, runner, stages, s3, folder):
        self._runner, self._stages, self._s3, self._folder = runner, stages, s3, folder
        self._before, self._expected = {}, {}
        self._number = 0
        self.environment = {n: v for n, v in os.environ.items() if n.startswith("AWS_")}

    def run(self, stage, run, url, *options, **fault):
        command = (*self._stages.command(stage, run), "--store", url, *options)
        return self._runner(*command, in_storage=True, environment=self.environment, **fault)

    def before(self, stage, run, overwrite):
        """A fresh run directory and a fresh address, ready for the stage."""
        key = (stage, overwrite)
        if key not in self._before:
            before, url = self._folder / f"{stage}-{overwrite}", f"{self._s3}/before-{stage}-{overwrite}/t.zarr"
            self._stages.copy("record", before)
            if stage == "fit-gamma" or overwrite:
                assert self.run("record", before, url, *["--seed", "1"][: 2 * (stage == "record")])[0] == 0
            if stage == "record":
                (before / "recorded.safetensors").unlink(missing_ok=True)
            elif overwrite:
                assert self.run("fit-gamma", before, url, "--alpha-ratio", "0.9")[0] == 0
            self._before[key] = before, url
        self._number += 1
        source, target = locate(self._before[key][1]), locate(f"{self._s3}/{self._number}/t.zarr")
        for info in source.client.below(source.key):
            source.client.copy(info.key, target.key + info.key[len(source.key) :])
        shutil.copytree(self._before[key][0], run)
        # An earlier result is named by its store's address.
        for path in (run / "results").glob("*@*"):
            path.rename(result_of(run, f"{target}"))
        return f"{target}"

    def expected(self, stage, overwrite):
        """Objects, artifacts and changes of the stage without a fault."""
        key = (stage, overwrite)
        if key not in self._expected:
            run = self._folder / f"after-{stage}-{overwrite}"
            url = self.before(stage, run, overwrite)
            code, changes, error = self.run(stage, run, url, *["--overwrite"][: int(overwrite)])
            assert code == 0, error
            self._expected[key] = objects(url), nameless(artifacts(run)), changes
        return self._expected[key]


@pytest.fixture
def remote(runner, stages, s3, tmp_path):
    return Remote(runner, stages, s3, tmp_path)


def require_survival(remote, stage, overwrite, fault, number, folder):
    """Let change ``number`` of a stage fail; check what is left, and what the same command makes of it."""
    expected, files, changes = remote.expected(stage, overwrite)
    options = ["--overwrite"][: int(overwrite)]
    run = folder / "run"
    url = remote.before(stage, run, overwrite)
    code, _, error = remote.run(stage, run, url, *options, fault=fault, fail_at=number)
    case = f"{fault} at change {number} of {stage}, {changes[number - 1]}"
    if fault.startswith("SIGKILL"):
        assert code == -9, case
    else:
        # A lost answer is looked for; cleaning up may fail without harm.
        assert (code, error.count("\n")) in ((6, 1), (0, 0)), f"{case}: {error}"
    if locate(url).exists():
        assert Store.open(url).verify() == [], case
    code, _, error = remote.run(stage, run, url, *options)
    assert (code, error) == (0, ""), f"{case}: {error}"
    assert objects(url) == expected, case
    assert nameless(artifacts(run)) == files, case
    shutil.rmtree(run)


@pytest.mark.parametrize(("stage", "overwrite"), [("record", False), ("fit-gamma", True)])
def test_some_changes_fail(remote, stage, overwrite, tmp_path):
    changes = remote.expected(stage, overwrite)[2]
    for position, fault in enumerate(STORAGE_FAULTS, start=1):
        require_survival(remote, stage, overwrite, fault, position * len(changes) // 7, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fault", STORAGE_FAULTS)
@pytest.mark.parametrize(("stage", "overwrite"), CASES)
def test_every_change_fails(remote, stage, overwrite, fault, tmp_path):
    changes = remote.expected(stage, overwrite)[2]
    for number in range(1, len(changes) + 1):
        require_survival(remote, stage, overwrite, fault, number, tmp_path)
    print(f"\n{stage}{' --overwrite' if overwrite else ''}: {len(changes)} cases of {fault}, nothing lost")


def committed_rows(url: str) -> int:
    """Rows of the recording that a crash now would leave."""
    try:
        return Store.open(url).recording().num_rows
    except CausalpruneError:
        return 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_in_the_middle_of_a_recording(remote, runner, stages, s3, number, code, tmp_path):
    options = ["--steps", "150", "--checkpoint-every", "30steps", "--batch-size", "128"]
    runs = [stages.copy("record", tmp_path / name) for name in ("whole", "interrupted")]
    urls = [f"{s3}/{run.name}/t.zarr" for run in runs]
    command = ["record", *options, "--quiet"]
    assert runner(*command, "--run", runs[0], "--store", urls[0], environment=remote.environment)[0] == 0
    runner.start(*command, "--run", runs[1], "--store", urls[1], environment=remote.environment)
    deadline = time.monotonic() + 60
    while not committed_rows(urls[1]) and time.monotonic() < deadline:
        time.sleep(0.01)
    runner.signal(number)
    assert runner.finish()[0] == code
    assert Store.open(urls[1]).verify() == []
    assert 0 < Store.open(urls[1]).recording().num_rows < 150
    result, _, error = runner(*command, "--run", runs[1], "--store", urls[1], environment=remote.environment)
    assert (result, error) == (0, "")
    assert objects(urls[1]) == objects(urls[0])
    assert artifacts(runs[1]) == artifacts(runs[0])
