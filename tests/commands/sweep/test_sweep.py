import json
import os
import random
import re
import shutil
import time
from collections import Counter
from types import SimpleNamespace

import pytest
from causalprune_cli.main import main
from sweeps import QUICK, call, call_json, stages_finished, start, table

from causalprune.base import locks
from causalprune.base.leases import Lease
from causalprune.base.locks import FileLock, lock_holder
from causalprune.commands import repair
from causalprune.commands.apply_mask import command as mask_command
from causalprune.commands.names import FUNCTIONS
from causalprune.commands.sweep import command


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = tmp_path_factory.mktemp("sweep")
    assert call(run, *QUICK) == 0
    return run


def test_what_cells_share_is_done_once(tmp_path, capsys):
    result = call_json(capsys, tmp_path, *QUICK)
    # Two seeds; magnitude reads no fit; each seed's dense network is evaluated once, and so is every cell.
    shared = {"pretrain": 2, "record": 2, "fit_gamma": 2}
    assert result["steps_made"] == {**shared, "apply_mask": 8, "evaluate": 10}
    assert stages_finished(tmp_path) == {"pretrain": 2, "record": 2}
    assert (result["points"], result["done"], result["cells_made"]) == (8, 8, 8)
    again = call_json(capsys, tmp_path, *QUICK)
    assert (again["steps_made"], again["cells_made"]) == ({}, 0)


def test_a_row_is_what_the_stages_give_one_by_one(finished, tmp_path, capsys):
    row = next(r for r in table(finished) if (r["sparsity"], r["criterion"], r["seed"]) == (0.9, "effect", 1))
    for stage in (
        ["pretrain", *QUICK[6:12], "--epochs", 2, "--seed", 1],
        ["record", "--epochs", 2, "--seed", 1001],
        ["fit-gamma", "--seed", 1001],
        ["apply-mask", "--sparsity", 0.9, "--criterion", "effect", "--seed", 1001],
        ["evaluate", "--checkpoint", tmp_path / "pruned.safetensors"],
    ):
        assert main([*map(str, stage), "--run", str(tmp_path), "--quiet"]) == 0, capsys.readouterr().err
    evaluation = json.loads((tmp_path / "results/evaluate.json").read_text())["metrics"]["evaluation"]
    assert row["dataset"] == "breast-cancer"
    assert {name: row[name] for name in ("loss", "top1", "layers")} == {
        name: evaluation[name] for name in ("loss", "top1", "layers")
    }
    assert row["dense"] == evaluation["reference"]["top1"]


def test_the_table_is_in_the_order_of_the_grid(finished, tmp_path):
    # Shards finish their cells in another order.
    for shard in ("2/3", "0/3", "1/3"):
        assert call(tmp_path, *QUICK, "--shard", shard) == 0
    rows = table(tmp_path)
    assert rows == table(finished)
    settings = [(r["seed"], r["criterion"], r["sparsity"]) for r in rows]
    assert settings == [(s, c, p) for s in (0, 1) for c in ("effect", "magnitude") for p in (0.5, 0.9)]
    assert stages_finished(tmp_path) == {"pretrain": 2, "record": 2}


def test_pandas_reads_the_table(finished):
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_json(finished / "sweep/results.jsonl", lines=True)
    means = frame.groupby(["criterion", "sparsity"])["score"].mean()
    rows = [r["score"] for r in table(finished) if (r["criterion"], r["sparsity"]) == ("magnitude", 0.5)]
    assert means["magnitude", 0.5] == pytest.approx(sum(rows) / 2)


def test_an_iterated_sweep_is_run(tmp_path, capsys):
    small = [*QUICK[6:], "--iterations", "2", "--posttrain-epochs", "1", "--train-epochs", "1"]
    small += ["--set", "fit-gamma.normalize=column"]
    options = [*small, "--criterion", "effect", "--seeds", "1", "--vary", "record.lr=0.01,0.02"]
    result = call_json(capsys, tmp_path / "sweep", *options, "--sparsity", "0.6,0.8")
    # The dense network, and the training before the first recording, are the same at both learning rates.
    assert result["steps_made"] == {
        "pretrain": 1, "posttrain": 1 + 4 + 4, "record": 2 + 4, "fit_gamma": 2 + 4, "apply_mask": 8, "evaluate": 5,
    }  # fmt: skip
    row = next(r for r in table(tmp_path / "sweep") if (r["record.lr"], r["sparsity"]) == (0.02, 0.8))
    alone = [*small, "--sparsity", "0.8", "--criterion", "effect", "--set", "record.lr=0.02"]
    capsys.readouterr()
    assert main(["run", *alone, "--run", str(tmp_path / "run"), "--quiet", "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert row["loss"] == metrics["evaluation"]["loss"]
    assert row["layers"] == metrics["evaluation"]["layers"]
    logged = [{k: line[k] for k in ("iteration", "rows", "r2", "sparsity")} for line in row["iterations_log"][:2]]
    assert logged == [{k: line[k] for k in ("iteration", "rows", "r2", "sparsity")} for line in metrics["iterations"]]
    assert not list((tmp_path / "sweep/sweep/cells").glob("*/"))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    run = tmp_path_factory.mktemp("recorded")
    for stage in (["pretrain", *QUICK[6:12], "--epochs", "2"], ["record", "--epochs", "2", "--seed", "1"]):
        assert main([*stage, "--run", str(run), "--quiet"]) == 0
    return run


def test_a_recording_that_exists_is_pruned(finished, recorded, tmp_path, capsys):
    options = ["--recorded", recorded, *QUICK[:4], "--seeds", "1"]
    result = call_json(capsys, tmp_path, *options)
    assert result["steps_made"] == {"fit_gamma": 1, "apply_mask": 4, "evaluate": 5}
    # It was made as the sweep makes its own.
    rows = [row for row in table(finished, drop=("seconds", "cell")) if row["seed"] == 0]
    assert table(tmp_path, drop=("seconds", "cell")) == rows
    assert call(tmp_path / "other", "--recorded", tmp_path / "nothing", *QUICK[:4]) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "nothing/trajectory.zarr" in error
    assert not (tmp_path / "other").exists()


ONE_FIT = [*QUICK[:2], "--criterion", "effect", "--seeds", "1", "--set", "fit-gamma.alpha_ratio=0.37"]
"""To a recording that has none of this name yet."""


def foreign(lease):
    """The lease of a process on another host."""
    lease.write_text("filelock/2\npid=1\nhost=elsewhere\nmode=lease\ntoken=ab\nduration=300.0\n")


def test_a_fit_that_another_process_writes_into_the_same_store_is_waited_for(recorded, tmp_path, monkeypatch):
    run = shutil.copytree(recorded, tmp_path / "recorded")
    lock, waits = FileLock(run / "trajectory.zarr/.fits-lock"), []

    def sleep(_):
        waits.append(lock_holder(lock.path).pid)
        lock.release()

    monkeypatch.setattr(locks, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    with lock:
        assert call(tmp_path / "run", "--recorded", run, *ONE_FIT) == 0
    assert waits == [os.getpid()]


def test_of_two_sweeps_over_one_recording_one_makes_the_fit(recorded, tmp_path, monkeypatch):
    run = shutil.copytree(recorded, tmp_path / "recorded")
    options = ["--recorded", run, *ONE_FIT]
    assert call(tmp_path / "first", *options) == 0
    fit = max(run.glob("trajectory.zarr/recordings/*/fits/*"), key=lambda path: path.stat().st_mtime)
    elsewhere, claimed = fit.rename(tmp_path / fit.name), run / f".trajectory.zarr.{fit.name}.lock"
    foreign(claimed)
    naps = []

    def sleep(_):
        # The other sweep is done with it.
        naps.append(claimed.exists())
        elsewhere.rename(fit)
        claimed.unlink()

    monkeypatch.setattr(command, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    assert call(tmp_path / "second", *options) == 0
    assert naps == [True]
    assert table(tmp_path / "second") == table(tmp_path / "first")


def test_who_holds_what_is_waited_for_is_said_after_seconds_and_once(recorded, tmp_path, monkeypatch, capsys):
    run = shutil.copytree(recorded, tmp_path / "recorded")
    options = ["--recorded", run, *ONE_FIT]
    assert main(["sweep", *map(str, options), "--run", str(tmp_path / "first"), "--quiet"]) == 0
    cell = min((tmp_path / "first/sweep/cells").glob("*.json"))
    cell.unlink()
    lease, clock, naps = cell.with_name(f".{cell.stem}.lock"), [0.0], []
    foreign(lease)

    def sleep(_):
        naps.append(clock[0])
        clock[0] += 1.0
        if clock[0] == 9.0:
            lease.unlink()

    monkeypatch.setattr(command, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: clock[0]))
    capsys.readouterr()
    assert main(["sweep", *map(str, options), "--run", str(tmp_path / "first")]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "waiting for" in line]
    assert "waiting for process 1 on elsewhere, last sign of life 20" in line
    assert lease.name in line
    assert len(naps) == 9


@pytest.mark.parametrize(
    "option",
    [
        ["--dataset", "mnist"],
        ["--vary", "record.lr=0.1"],
        ["--iterations", "2"],
        ["--vary", "validation_fraction=0.1,0.3"],
        ["--vary", "validation-fraction=0.2"],
        ["--vary", "dataset=npz:a.npz,npz:b.npz"],
        ["--validation-fraction", "0.2"],
        ["--augment", "none"],
        ["--split-seed", "3"],
        ["--batch-size", "32"],
        ["--train-epochs", "1"],
        ["--set", "pretrain.lr=0.1"],
    ],
)
def test_what_made_a_recording_is_settled(recorded, tmp_path, capsys, option):
    assert call(tmp_path / "run", "--recorded", recorded, *option) == 2
    assert "beside --recorded" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def with_momentum(recorded, tmp_path_factory):
    run = tmp_path_factory.mktemp("momentum")
    shutil.copy(recorded / "pretrained.safetensors", run)
    record = ["record", "--epochs", "1", "--momentum", "0.9", "--loss-change", "next-batch"]
    assert main([*record, "--run", str(run), "--quiet"]) == 0
    return run


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (["--criterion", "magnitude,fisher"], "--criterion fisher: expected the gradients of a plain-SGD recording"),
        (["--criterion", "curvature"], "found one with momentum 0.9, next-batch losses in"),
        (["--criterion", "magnitude", "--vary", "granularity=parameter,filter"], "network with Conv layers"),
    ],
)
def test_what_a_recording_can_not_serve_is_said_before_the_first_cell(with_momentum, tmp_path, capsys, option, says):
    assert call(tmp_path / "run", "--recorded", with_momentum, *QUICK[:2], *option) == 5
    error = capsys.readouterr().err
    assert (error.count("\n"), says in error) == (1, True), error
    assert not (tmp_path / "run").exists()


def test_training_of_what_a_recording_left_may_be_varied(recorded, tmp_path):
    options = ["--recorded", recorded, "--sparsity", "0.5", "--criterion", "magnitude", "--seeds", "1"]
    options += ["--vary", "rewind=none,pretrained", "--posttrain-epochs", "1", "--vary", "batch_size=16,32"]
    assert call(tmp_path, *options) == 0
    assert len({row["cell"] for row in table(tmp_path)}) == 4


def test_settings_that_make_no_difference_are_measured_once(tmp_path, capsys):
    varied = [*QUICK[:2], "--criterion", "magnitude", "--seeds", "1", *QUICK[6:]]
    varied += ["--vary", "fit-gamma.alpha_ratio=0.1,0.3"]
    result = call_json(capsys, tmp_path, *varied)
    assert (result["points"], result["done"], result["cells_made"]) == (4, 4, 2)
    assert len({r["cell"] for r in table(tmp_path)}) == 2


def test_lists_may_grow_and_nothing_else_may_change(tmp_path, capsys):
    file = tmp_path / "grid.toml"
    text = 'sparsity = [0.5]\ncriterion = ["magnitude"]\nseeds = 1\ndataset = "breast-cancer"\nmodel = "mlp"\n'
    text += 'hidden = "16"\npretrain-epochs = 1\nrecord-epochs = 1\n[record]\nlr = [0.01]\n'
    file.write_text(text)
    call_json(capsys, tmp_path, file)
    before = table(tmp_path)
    file.write_text(text.replace("[0.5]", "[0.5, 0.8]").replace("[0.01]", "[0.01, 0.02]"))
    grown = call_json(capsys, tmp_path, file)
    assert (grown["cells_made"], grown["steps_made"]["record"], "pretrain" in grown["steps_made"]) == (3, 1, False)
    assert before[0] in table(tmp_path)
    rows = (tmp_path / "sweep/results.jsonl").read_bytes()
    for changed, difference in (
        (text, None),
        (text.replace("lr = [0.01]", "lr = 0.02"), "--vary record.lr=[0.01,0.02] → none"),
        (text.replace("pretrain-epochs = 1", "pretrain-epochs = 2"), "--pretrain-epochs 1 → 2)"),
    ):
        file.write_text(changed)
        assert call(tmp_path, file) == 5
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "lists may only grow" in error
        assert difference is None or difference in error
        assert (tmp_path / "sweep/results.jsonl").read_bytes() == rows


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--criterion", "gamma,magic"], "one of gamma"),
        (["--sparsity", "0.5,1.5"], "[0, 1)"),
        (["--sparsity", "0.5,0.50"], "different"),
        (["--sparsity", "half"], "[0, 1)"),
        (["--seeds", "0"], "at least 1"),
        (["--shard", "3/3"], "0 to N"),
        (["--vary", "record.lr"], "VALUES"),
        (["--vary", "record.lr=0.1,-1"], "above 0"),
        (["--vary", "record.speed=1,2"], "expected an option of record"),
        (["--vary", "recrd.lr=1"], "one of the stages"),
        (["--vary", "sparsity=0.1"], "--sparsity"),
        (["--vary", "device=cpu,cuda"], "decides its result"),
        (["--vary", "fit-gamma.memory=1,2GiB"], "expected an option of fit-gamma that decides its result, found fit-g"),
        (["--vary", "apply-mask.deterministic=false,true"], "expected an option of apply-mask that decides its result"),
        (["--vary", "record.lr=0.1", "--set", "record.lr=0.2"], "not varied"),
        (["--overwrite"], "expected no --overwrite"),
        (["--criterion", "chita,magnitude", "--set", "record.momentum=0.9"], "; pass --set record.momentum=0, or"),
        (
            ["--criterion", "obd", "--vary", "record.stride=1,4"],
            "found --vary record.stride=4; pass --vary record.stride=1,",
        ),
        (
            ["--criterion", "curvature", "--set", "record.loss_change=next-batch"],
            "pass --set record.loss-change=same-batch, or",
        ),
        (["--criterion", "chita", "--iterations", "2", "--rewind", "pretrained"], "sets the weights it keeps"),
        (["--set", "apply-mask.criterion=gamma"], "--criterion for it"),
        (["--vary", "apply-mask.sparsity=0.1,0.2"], "--sparsity for it"),
        (["--device", "cuda:99"], "--device"),
    ],
)
def test_what_can_not_be_used_is_said_before_the_first_cell(tmp_path, capsys, options, says):
    assert call(tmp_path / "run", *options) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert says in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("sparsity = [0.5\n", 2, "TOML"),
        ("sparsities = [0.5]\n", 2, "did you mean sparsity"),
        ("lr = [0.1, 0.2]\n", 2, "expected an option of"),
        ("[recording]\nlr = 1\n", 2, "did you mean record"),
        ("[record]\nrate = 1\n", 2, "expected an option of"),
        ("[record]\nlr = []\n", 2, "values"),
        ("seeds = [1, 2]\n", 2, "how many"),
        (None, 3, "a TOML file"),
    ],
)
def test_a_sweep_file_that_can_not_be_used(tmp_path, capsys, text, code, says):
    file = tmp_path / "grid.toml"
    if text is not None:
        file.write_text(text)
    assert call(tmp_path / "run", file) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert says in error


def test_a_cell_that_fails_leaves_the_others_alone(tmp_path, capsys):
    options = [*QUICK[6:], "--sparsity", "0.5", "--criterion", "magnitude", "--seeds", "1"]
    assert call(tmp_path, *options, "--vary", "record.lr=0.01,1e18") == 3
    error = capsys.readouterr().err
    assert "cell sparsity=0.5 criterion=magnitude seed=0 record.lr=1e+18 failed (1 of 2 cells are done): " in error
    assert "lower --vary record.lr=… of the recording" in error
    assert [row["record.lr"] for row in table(tmp_path)] == [0.01]


def test_options_are_shown_as_they_are_typed(tmp_path, capsys):
    options = [*QUICK[6:], "--sparsity", "0.5,0.6", "--criterion", "magnitude", "--seeds", "1", "--repair"]
    options += ["--set", "record.layer-statistics=true", "--vary", "repair.from-statistics=false,true"]
    options += ["--vary", "posttrain-epochs=0"]
    assert main(["sweep", *options, "--run", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "repair.from-statistics=true posttrain-epochs=0" in said.err
    assert "posttrain-epochs=0  repair.from-statistics=false" in said.out
    assert main(["info", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^repair\.from-statistics +false, true *$", shown, re.MULTILINE)
    assert main(["report", "--run", str(tmp_path)]) == 0
    reported = capsys.readouterr()
    page = (tmp_path / "report/index.html").read_text()
    assert "posttrain-epochs = 0, repair.from-statistics = true" in page
    # The tables of numbers have the names of results.jsonl.
    for text in (*said, shown, *reported, page):
        assert not re.search("from_statistics|posttrain_epochs", text)


def test_a_step_that_failed_is_tried_once(tmp_path, monkeypatch, capsys):
    tried = Counter()

    load = FUNCTIONS.load

    def counted(stage):
        tried[stage] += 1
        return load(stage)

    monkeypatch.setattr(FUNCTIONS, "load", counted)
    options = [*QUICK[6:], "--sparsity", "0.5", "--criterion", "magnitude,random", "--seeds", "1"]
    assert call(tmp_path, *options, "--set", "record.lr=1e18") == 3
    assert tried == {"sweep": 1, "pretrain": 1, "record": 1}
    assert "and 1 more failed (0 of 2 cells are done): " in capsys.readouterr().err


def test_a_shard_without_a_cell_says_so(tmp_path, capsys):
    options = [*QUICK[6:], "--sparsity", "0.5", "--criterion", "magnitude", "--seeds", "1"]
    assert main(["sweep", *options, "--shard", "1/2", "--run", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "nothing to do" not in said.err
    assert re.search(r"rows +0 of 1\s.*this shard +has no cell", said.out, re.DOTALL)


def test_damaged_files_are_named(tmp_path, capsys):
    options = [*QUICK[6:], "--sparsity", "0.5", "--criterion", "magnitude", "--seeds", "1"]
    assert call(tmp_path, *options) == 0
    cell = next((tmp_path / "sweep/cells").glob("*.json"))
    whole = cell.read_text()
    cell.write_text(whole[:40])
    assert call(tmp_path, *options) == 4
    assert cell.name in capsys.readouterr().err
    cell.write_text(whole)
    (tmp_path / "sweep/grid.json").write_text("[]")
    assert call(tmp_path, *options) == 4
    assert "grid.json" in capsys.readouterr().err


@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments_the_table_is_that_of_an_uninterrupted_sweep(finished, tmp_path, rounds):
    moments = random.Random(5)
    deaths = 0
    for number in range(rounds):
        # Until one has begun to work; most of the time goes into importing PyTorch.
        processes = [start(tmp_path, *QUICK) for _ in range(2 if number % 2 == 0 else 1)]
        processes[0].stderr.readline()
        time.sleep(moments.uniform(0, 1))
        for process in processes:
            deaths += process.poll() is None
            process.kill()
        for process in processes:
            process.communicate()
    assert deaths >= 2
    assert call(tmp_path, *QUICK) == 0
    assert table(tmp_path) == table(finished)
    assert stages_finished(tmp_path) == {"pretrain": 2, "record": 2}
    # A step that was done just before a kill is not taken up again, nor is its lock; nobody holds that.
    for path in (tmp_path / "sweep").rglob("*.lock"):
        with (Lease if path.read_bytes().startswith(b"filelock") else FileLock)(path):
            pass


def test_cells_read_the_statistics_of_layers_that_their_recording_kept(tmp_path, capsys, monkeypatch):
    def measure(*args):
        raise AssertionError("measured")

    repaired = []
    original = repair.reconstruct_layers
    monkeypatch.setattr(mask_command, "measured_layers", measure)
    monkeypatch.setattr(repair, "reconstruct_layers", lambda *a, **o: repaired.append(1) or original(*a, **o))
    tiny = ["--model", "mlp", "--hidden", "12", "--pretrain-epochs", "1", "--record-epochs", "1"]
    tiny += ["--posttrain-epochs", "0", "--sparsity", "0.6", "--criterion", "surgeon,magnitude", "--seeds", "1"]
    kept = ["--set", "record.layer-statistics=true", "--repair", "--vary", "repair.from-statistics=false,true"]
    result = call_json(capsys, tmp_path, *tiny, *kept)
    assert (result["steps_made"]["record"], result["steps_made"]["repair"], len(repaired)) == (1, 4, 2)
