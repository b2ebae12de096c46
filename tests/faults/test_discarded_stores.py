"""``run --discard-stores`` killed around a removal: whatever is left, the same command ends with the same networks."""

import json

import pytest
from stage_cases import artifacts, command_of, leftovers, require_whole

ITERATIONS = ["--iterations", "2"]


def command(run, *more):
    return [*command_of("run", run), *ITERATIONS, *more, "--quiet"]


def networks(run):
    """Everything but the stores, what is said of them, and the results, which say whether there were some."""
    found = artifacts(run).items()
    return {name: content for name, content in found if ".zarr" not in name and name.endswith(".safetensors")}


@pytest.fixture(scope="module")
def kept(runner, tmp_path_factory):
    run = tmp_path_factory.mktemp("kept") / "run"
    code, _, error = runner(*command(run))
    assert code == 0, error
    return run


@pytest.fixture(scope="module")
def discarded(runner, tmp_path_factory):
    """A run that nothing disturbed, and the changes that it made to the disk."""
    run = tmp_path_factory.mktemp("discarded") / "run"
    code, changes, error = runner(*command(run, "--discard-stores"))
    assert code == 0, error
    return run, changes


def test_the_networks_are_those_of_a_run_that_keeps_its_stores(kept, discarded):
    run, _ = discarded
    assert len(list(kept.rglob("*.zarr"))) == 2
    assert list(run.rglob("*.zarr")) == []
    assert networks(run) == networks(kept)
    assert len(networks(run)) > 6
    said = [json.loads((one / "results/run.json").read_text())["metrics"] for one in (kept, run)]
    assert said[0]["iterations"] == said[1]["iterations"]
    assert said[1]["stores"] == {"kept": 0, "bytes": 0, "discarded": 2}
    size = sum(p.stat().st_size for store in kept.rglob("*.zarr") for p in store.rglob("*") if p.is_file())
    assert said[0]["stores"] == {"kept": 2, "bytes": size, "discarded": 0}


@pytest.mark.parametrize(
    ("iteration", "before", "there"),
    [
        # The mask is there, but nothing says yet that its store may go.
        (0, 7, ["trajectory.zarr"]),
        # That is committed, and the store still in its place.
        (0, 2, ["discarded.json", "trajectory.zarr"]),
        (1, 2, ["discarded.json", "trajectory.zarr"]),
        # Renamed, and half removed.
        (0, 1, ["discarded.json"]),
        (0, 0, ["discarded.json"]),
        (1, 0, ["discarded.json"]),
    ],
)
def test_a_kill_around_the_removal_costs_nothing(runner, discarded, tmp_path, iteration, before, there):
    expected, changes = discarded
    removals = [place for place, name in enumerate(changes, start=1) if name == "rmtree"]
    assert len(removals) == 2
    run = tmp_path / "run"
    code, _, _ = runner(*command(run, "--discard-stores"), fault="SIGKILL", fail_at=removals[iteration] - before)
    assert code == -9
    require_whole(run)
    folder = run / f"iteration-00{iteration}"
    assert [name for name in ("discarded.json", "trajectory.zarr") if (folder / name).exists()] == there
    code, _, error = runner(*command(run, "--discard-stores"))
    assert (code, error) == (0, "")
    assert artifacts(run) == artifacts(expected)
    assert leftovers(run) == []


def test_a_resume_needs_no_store_and_none_comes_back(runner, discarded, tmp_path):
    """Also without the option, and after a kill in the second iteration."""
    expected, changes = discarded
    first = next(place for place, name in enumerate(changes, start=1) if name == "rmtree")
    run = tmp_path / "run"
    code, _, _ = runner(*command(run, "--discard-stores"), fault="SIGKILL", fail_at=first + 12)
    assert code == -9
    assert not (run / "iteration-000/trajectory.zarr").exists()
    code, _, error = runner(*command(run))
    assert (code, error) == (0, "")
    assert networks(run) == networks(expected)
    assert [str(p.relative_to(run)) for p in run.rglob("*.zarr")] == ["iteration-001/trajectory.zarr"]


def test_overwriting_forgets_what_was_discarded(runner, discarded, tmp_path):
    run = tmp_path / "run"
    assert runner(*command(run, "--discard-stores"))[0] == 0
    assert runner(*command(run, "--overwrite"))[0] == 0
    assert len(list(run.rglob("*.zarr"))) == 2
    assert list(run.rglob("discarded.json")) == []
    assert networks(run) == networks(discarded[0])
