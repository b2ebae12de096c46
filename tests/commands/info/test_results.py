"""info of results that somebody altered, of checkpoints that no longer follow from each other, and of a sweep."""

import json
import shutil

import pytest
from causalprune_cli.main import main
from commands import call, call_json

TINY = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4"]
STAGES = {
    "pretrain": [*TINY, "--epochs", "2"],
    "record": ["--steps", "6"],
    "fit-gamma": ["--held-out", "0"],
    "apply-mask": ["--sparsity", "0.5", "--no-measure"],
    "posttrain": ["--epochs", "1"],
    "evaluate": [],
}
SWEEP = ["--sparsity", "0.5,0.6", "--criterion", "magnitude", "--seeds", "1", *TINY, "--pretrain-epochs", "1"]


def stage(run, name, *options):
    assert call(name, *STAGES[name], *options, "--run", run, "-q") == 0


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    run = tmp_path_factory.mktemp("info") / "run"
    for name in STAGES:
        stage(run, name)
    assert call("sweep", *SWEEP, "--run", run, "-q") == 0
    return run


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


def info(run, capsys, code=0, *options):
    capsys.readouterr()
    assert main(["info", str(run), *options, "--json", "-q"]) == code
    return json.loads(capsys.readouterr().out)


def edit(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_a_whole_run_is_healthy(run, capsys):
    assert info(run, capsys)["problems"] == []


@pytest.mark.parametrize("name", ["pretrain", "record", "fit-gamma", "apply-mask", "posttrain", "evaluate"])
@pytest.mark.parametrize(
    "change",
    [
        lambda value: value["metrics"].update(extra=1.0),
        lambda value: value.pop("seal"),
        lambda value: value.update(schema_version=3),
        lambda value: value["inputs"].clear() or value["metrics"].clear(),
    ],
)
def test_an_altered_result_is_named(run, capsys, name, change):
    edit(run / f"results/{name}.json", change)
    found = info(run, capsys, 4)
    (problem,) = found["problems"]
    assert f"results/{name}.json: expected the result of {name} as it was written, found an altered one" in problem
    assert name != "evaluate" or found["details"]["evaluation"] is None


def test_evaluate_replaces_no_result_that_was_altered(run, capsys):
    path = run / "results/evaluate.json"
    edit(path, lambda value: value["metrics"]["evaluation"].update(top1=1.0))
    before = path.read_bytes()
    assert call("evaluate", "--run", run, "-q") == 5
    assert path.read_bytes() == before
    stage(run, "evaluate", "--overwrite")
    assert info(run, capsys)["problems"] == []


def test_a_result_of_an_earlier_version_has_no_seal(run, capsys):
    def older(value):
        value.pop("seal")
        value.pop("warnings")
        value["schema_version"] = 1

    for path in (run / "results").glob("*.json"):
        edit(path, older)
    assert info(run, capsys)["problems"] == []


def stale(run, capsys):
    found = info(run, capsys)
    names = {p.split(" is stale: ")[0].rpartition("/")[2] for p in found["problems"] if " is stale: " in p}
    assert len(names) == len(found["problems"])
    assert found["healthy"] == (not names)
    return names


def test_what_no_longer_follows_is_stale(run, capsys):
    pair = [run / "pruned.safetensors", run / "pruned.mask.safetensors"]
    originals = [path.read_bytes() for path in pair]
    stage(run, "apply-mask", "--sparsity", "0.6", "--overwrite")
    assert stale(run, capsys) == {"final.safetensors"}
    (warning,) = [w for w in call_json(capsys, "evaluate", "--run", run)["warnings"] if "stale" in w]
    assert "final.safetensors is stale: it was made from another pruned.safetensors than" in warning
    stage(run, "posttrain", "--overwrite")
    assert stale(run, capsys) == set()
    # Copied by hand, beside a result file that tells another hash.
    for path, original in zip(pair, originals, strict=True):
        path.write_bytes(original)
    assert stale(run, capsys) == {"final.safetensors"}


def test_a_network_without_its_own_mask(run, capsys):
    network, mask = run / "final.safetensors", run / "final.mask.safetensors"
    pruned = (run / "pruned.mask.safetensors").read_bytes()
    assert info(network, capsys)["details"]["mask"] == str(mask)
    mask.write_bytes(pruned)
    for path in (run, network):
        (problem,) = info(path, capsys, 4)["problems"]
        assert f"{mask}: expected the mask of {network}, found that of another file" in problem
    assert main(["info", str(network), "--verify", "-q"]) == 5
    mask.unlink()
    for path in (run, network):
        (problem,) = info(path, capsys, 4)["problems"]
        assert f"{mask}: expected the mask of {network}, found nothing" in problem
        assert "pretrain --keep-zeros --init-from FILE --epochs 0" in problem
    capsys.readouterr()
    # No stage takes it for a dense network, nor for its own finished work.
    for command in (["evaluate"], ["export"], ["posttrain", *STAGES["posttrain"]]):
        assert call(*command, "--run", run, "-q") == 3
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert f"{mask}: expected the mask" in error
    stage(run, "posttrain", "--overwrite")
    assert info(run, capsys)["problems"] == []


def test_what_follows_from_something_stale_is_stale(run, capsys):
    stage(run, "pretrain", "--seed", "1", "--overwrite")
    assert stale(run, capsys) == {"recorded.safetensors", "pruned.safetensors", "final.safetensors"}


def test_another_fit(run, capsys):
    stage(run, "fit-gamma", "--alpha-ratio", "0.3", "--overwrite")
    assert stale(run, capsys) == {"pruned.safetensors", "final.safetensors"}


def test_what_was_made_beside_is_not_stale(run, capsys):
    stage(run, "apply-mask", "--sparsity", "0.6", "--output", run / "more.safetensors")
    options = ["--checkpoint", run / "more.safetensors", "--output", run / "final2.safetensors"]
    stage(run, "posttrain", *options)
    assert stale(run, capsys) == set()
    assert not call_json(capsys, "evaluate", "--checkpoint", run / "final2.safetensors", "--run", run)["warnings"]


def test_a_sweep(run, capsys):
    sweep = info(run, capsys)["details"]["sweep"]
    assert (sweep["points"], sweep["rows"], sweep["cells"], sweep["done"]) == (2, 2, 2, 2)
    assert sweep["settings"] == {"sparsity": ["0.5", "0.6"], "criterion": ["magnitude"], "seed": ["0"]}
    assert sweep["steps"] == {"evaluate": 1, "pretrain": 1, "record": 1}
    only = run.parent / "only"
    shutil.copytree(run / "sweep", only / "sweep")
    for place in (only, only / "sweep"):
        assert info(place, capsys)["details"]["sweep"] == sweep
    assert call("info", only, "-q") == 0
    assert "2 of 2 rows" in capsys.readouterr().out
    (step,) = (only / "sweep/shared").glob("pretrain-*")
    assert info(step, capsys)["details"]["artefacts"][0]["name"] == "pretrained.safetensors"  # codespell:ignore


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("shared/record-*/done.json", "done.json: expected the result of record as it was written"),
        ("shared/pretrain-*/results/pretrain.json", "expected the result of pretrain as it was written"),
        ("cells/*.json", "expected the result of a cell as it was measured"),
        ("grid.json", "expected the grid of a sweep as it was written"),
    ],
)
def test_an_altered_file_of_a_sweep_is_named(run, capsys, pattern, says):
    path = min((run / "sweep").glob(pattern))
    edit(path, lambda value: value.update(job={"job_id": "7"}))
    problems = info(run, capsys, 4)["problems"]
    assert [problem for problem in problems if str(path) in problem and says in problem], problems


def test_an_altered_step_is_not_used(run, capsys):
    """Another cell would show its numbers."""
    (path,) = (run / "sweep/shared").glob("record-*/done.json")
    edit(path, lambda value: value["metrics"].update(rows=999))
    assert call("sweep", "--sparsity", "0.5,0.6,0.7", *SWEEP[2:], "--run", run, "-q") == 4
    assert "done.json: expected the result of record as it was written, found an altered one" in capsys.readouterr().err
    assert "999" not in (run / "sweep/results.jsonl").read_text()


def test_an_altered_table_and_mask(run, capsys):
    table = run / "sweep/results.jsonl"
    before = table.read_text()
    table.write_text(before.replace('"seed": 0', '"seed": 1'))
    (problem,) = info(run, capsys, 4)["problems"]
    assert "results.jsonl isn't what the cells say" in problem
    table.write_text(before)
    first, second = sorted((run / "sweep/cells").glob("*.mask.safetensors"))
    first.write_bytes(second.read_bytes())
    assert info(run, capsys)["problems"] == []
    (problem,) = info(run, capsys, 4, "--verify")["problems"]
    assert str(first) in problem


def test_a_sweep_that_goes_on(run, capsys):
    cell = min((run / "sweep/cells").glob("*.json"))
    cell.unlink()
    found = info(run, capsys)
    (problem,) = found["problems"]
    assert "is not finished, 1 of 2 cells are done" in problem
    assert found["details"]["sweep"]["rows"] == 1
