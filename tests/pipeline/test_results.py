"""Result files: a stage that measures anew replaces its own earlier one and no other file; nothing measured is lost."""

import json
import shutil
import sys

import pytest
from commands import call, call_json

from causalprune.base.json_files import seal

TINY = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4"]
QUICK_DIAGNOSIS = ["--placebo", "0", "--interventions", "2", "--samples", "50"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A run with two fits, the other of two alphas."""
    run = tmp_path_factory.mktemp("results") / "run"
    stages = [["pretrain", *TINY, "--epochs", "1"], ["record", "--steps", "8"]]
    stages += [["fit-gamma"], ["fit-gamma", "--name", "b", "--alphas", "2"]]
    stages += [["apply-mask", "--sparsity", "0.5"], ["posttrain", "--epochs", "1"]]
    for stage in stages:
        assert call(*stage, "--run", run, "--quiet") == 0
    return run


@pytest.fixture
def run(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "run")


@pytest.fixture
def without_matplotlib(monkeypatch):
    for name in [m for m in sys.modules if m.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def refused(capsys, code, *args, says):
    capsys.readouterr()
    assert call(*args, "--quiet") == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert says in error


def test_every_fit_has_a_result_of_its_own(run, capsys):
    names = {name: json.loads((run / "results" / file).read_text())["metrics"]["name"] for name, file in
             {"default": "fit-gamma.json", "b": "fit-gamma.b.json"}.items()}  # fmt: skip
    assert names == {"default": "default", "b": "b"}
    for fit in ("default", "b"):
        call_json(capsys, "diagnose", "--fit", fit, *QUICK_DIAGNOSIS, "--run", run)
    written = {name: json.loads((run / "results" / name).read_text())["metrics"]["fit"] for name in
               ("diagnose.json", "diagnose.b.json")}  # fmt: skip
    assert written == {"diagnose.json": "default", "diagnose.b.json": "b"}


@pytest.mark.parametrize("left", ["nothing", "the result of an earlier fit"])
def test_a_crash_between_a_fit_and_its_result_is_repaired(run, capsys, left):
    result, other = run / "results/fit-gamma.json", run / "results/fit-gamma.b.json"
    expected, untouched = json.loads(result.read_text()), other.read_bytes()
    result.unlink()
    if left != "nothing":
        stale = {**expected, "metrics": {**expected["metrics"], "evidence": {"r2": 0.0}}}
        result.write_text(json.dumps(seal(stale, "seal")))
    assert call_json(capsys, "fit-gamma", "--run", run)["already_done"]
    repaired = json.loads(result.read_text())
    assert {**repaired["metrics"], "part_seconds": 0} == {**expected["metrics"], "part_seconds": 0}
    assert other.read_bytes() == untouched
    written = result.stat().st_mtime_ns
    call_json(capsys, "fit-gamma", "--run", run)
    assert result.stat().st_mtime_ns == written


@pytest.mark.parametrize("stage", ["evaluate", "diagnose"])
def test_an_input_is_never_overwritten(run, capsys, stage):
    source = run / {"evaluate": "final.safetensors", "diagnose": "recorded.safetensors"}[stage]
    inputs = [source, run / ("pretrained.safetensors" if stage == "evaluate" else "trajectory.zarr/zarr.json")]
    (run / "up").mkdir()
    for path in inputs:
        before = path.read_bytes()
        named = run / "up" / ".." / path.relative_to(run)
        for more in ([], ["--overwrite"]):
            refused(capsys, 2, stage, "--output", named, *more, "--run", run, says="output path")
        assert path.read_bytes() == before


@pytest.mark.parametrize("stage", ["evaluate", "diagnose"])
def test_only_an_earlier_result_of_the_stage_is_replaced(run, tmp_path, capsys, stage):
    options = [stage, *(QUICK_DIAGNOSIS if stage == "diagnose" else []), "--run", run]
    for foreign in (b"my notes", b'{"x": 1}', (run / "results/pretrain.json").read_bytes()):
        path = tmp_path / "result"
        path.write_bytes(foreign)
        refused(capsys, 5, *options, "--output", path, says="--overwrite to replace it")
        assert path.read_bytes() == foreign
    for more in (["--overwrite"], [], []):
        call_json(capsys, *options, "--output", path, *more)
        assert json.loads(path.read_text())["stage"] == stage
    refused(capsys, 2, *options, "--output", tmp_path, says="found the directory")
    refused(capsys, 2, *options, "--output", ".", says="a path that ends in a name")


def test_a_foreign_file_where_a_fit_reports_is_kept(run, capsys):
    path = run / "results/fit-gamma.c.json"
    path.write_text('{"x": 1}')
    refused(capsys, 5, "fit-gamma", "--name", "c", "--run", run, says="an earlier result of fit-gamma")
    assert path.read_text() == '{"x": 1}'
    fits = call_json(capsys, "info", run / "trajectory.zarr")["details"]["recordings"][0]["fits"]
    assert sorted(fits) == ["b", "default"]


PLOTTING = [["evaluate"], ["fit-gamma", "--alphas", "2", "--name", "new"], ["info", "STORE"]]


@pytest.mark.parametrize("command", PLOTTING, ids=lambda c: c[0])
def test_a_plot_that_cannot_be_drawn_shows_before_the_work(run, capsys, monkeypatch, command):
    command = [run / "trajectory.zarr" if part == "STORE" else part for part in command]
    refused(capsys, 2, *command, "--plot", "x.jpg", "--run", run, says="--plot: expected a file name that ends in .png")


@pytest.mark.parametrize(
    "command",
    [["evaluate", "--plot"], ["evaluate", "--landscape"], ["fit-gamma", "--alphas", "2", "--name", "new", "--plot"]],
    ids=" ".join,
)
def test_a_missing_matplotlib_shows_before_the_work(run, capsys, monkeypatch, without_matplotlib, command):
    def work(*args, **kwargs):
        raise AssertionError("worked first")

    monkeypatch.setattr("causalprune.commands.evaluate.command.set_up", work)
    monkeypatch.setattr("causalprune.commands.fit_gamma.Regression", work)
    picture = [run / "x.png"] if command[-1] == "--plot" else []
    refused(capsys, 2, *command, *picture, "--run", run, says="pip install '.[plots]'")


def test_a_plot_and_a_result_do_not_share_a_file(run, tmp_path, capsys):
    both = tmp_path / "x.png"
    refused(capsys, 2, "evaluate", "--output", both, "--plot", both, "--run", run, says="output path")
    assert not both.exists()


def test_what_was_measured_is_kept_when_drawing_fails(run, capsys):
    nowhere = run / "absent" / "p.png"
    refused(capsys, 6, "evaluate", "--plot", nowhere, "--run", run, says="p.png")
    assert json.loads((run / "results/evaluate.json").read_text())["stage"] == "evaluate"
    refused(capsys, 6, "fit-gamma", "--alphas", "2", "--name", "c", "--plot", nowhere, "--run", run, says="p.png")
    assert json.loads((run / "results/fit-gamma.c.json").read_text())["metrics"]["name"] == "c"


def test_a_fit_that_exists_is_drawn(run, capsys):
    picture = run / "path.png"
    result = call_json(capsys, "fit-gamma", "--alphas", "2", "--name", "b", "--plot", picture, "--run", run)
    assert result["already_done"]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_name_of_a_fit_is_checked_before_the_work(run, capsys, monkeypatch):
    monkeypatch.setattr(
        "causalprune.commands.fit_gamma.Regression", lambda *args, **kwargs: pytest.fail("worked first")
    )
    refused(capsys, 2, "fit-gamma", "--name", "../x", "--run", run, says="letters, digits")


TINY_RUN = ["run", *TINY, "--iterations", "1", "--sparsity", "0.5", "--pretrain-epochs", "1", "--train-epochs", "1"]
TINY_RUN += ["--record-epochs", "1", "--posttrain-epochs", "1"]


def test_a_run_finds_out_at_once_that_its_evaluation_has_no_place(tmp_path, capsys):
    run = tmp_path / "run"
    (run / "results").mkdir(parents=True)
    path = run / "results/evaluate.json"
    path.write_text("mine")
    refused(capsys, 5, *TINY_RUN, "--run", run, says="evaluate.json")
    assert path.read_text() == "mine"
    assert not (run / "pretrained.safetensors").exists()
    path.unlink()
    assert call(*TINY_RUN, "--run", run, "--quiet") == 0


@pytest.mark.parametrize("content", ['{"x": 1}', "[]", "my notes", '{"stage": "evaluate", "metrics": {}}'])
def test_info_says_what_is_no_evaluation(run, capsys, content):
    (run / "results/evaluate.json").write_text(content)
    report = call_json(capsys, "info", run)
    assert report["details"]["evaluation"] is None
    assert report["problems"] == [f"{run}/results/evaluate.json isn't a result of evaluate: move it away"]


def test_info_hashes_a_checkpoint_whose_result_is_foreign(run, capsys):
    (run / "results/pretrain.json").write_text("[]")
    details = call_json(capsys, "info", run)["details"]
    artifacts = {a["name"]: a for a in details["artefacts"]}  # codespell:ignore artefacts
    assert artifacts["recorded.safetensors"]["made_from"] == {"checkpoint": "pretrained.safetensors"}


def test_info_looks_for_the_fit_that_was_named(run, capsys):
    store = run / "trajectory.zarr"
    refused(capsys, 3, "info", store, "--fit", "nothing", says="expected one of b, default")
    assert call("info", store, "--fit", "b", "--quiet") == 0
