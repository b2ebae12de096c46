import csv
import html
import json
import re
import shlex
import shutil
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from causalprune_cli.main import main
from sweeps import QUICK, call, table

from causalprune.base.paths import RunPaths, SweepPaths
from causalprune.commands.sweep.table import read_mask
from causalprune.models.checkpoint import load_checkpoint
from causalprune.trajectory import Store

ITERATED = [*QUICK[6:], "--criterion", "effect,magnitude", "--seeds", "2", "--sparsity", "0.5,0.8"]
ITERATED += [
    "--iterations",
    "2",
    "--train-epochs",
    "1",
    "--posttrain-epochs",
    "1",
    "--vary",
    "apply-mask.scope=global,layer",
]
ITERATED += ["--set", "fit-gamma.normalize=column"]


class Reader(HTMLParser):
    """The texts and the links of a page."""

    def __init__(self):
        super().__init__()
        self.links, self.texts, self.open = [], [], []

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def report(run, capsys, *args):
    capsys.readouterr()
    code = main(["report", "--run", str(run), "--quiet", "--json", *map(str, args)])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out)["metrics"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    pytest.importorskip("matplotlib")
    run = tmp_path_factory.mktemp("report")
    assert call(run, *ITERATED) == 0
    # A report doesn't need what the cells shared.
    shutil.rmtree(run / "sweep/shared")
    assert main(["report", "--run", str(run), "--quiet"]) == 0
    return run


SMALL = [*QUICK[6:], "--seeds", "1", "--sparsity", "0.5,0.8"]


@pytest.fixture(scope="module")
def small_once(tmp_path_factory):
    """A sweep of two cells, whose report has few pictures."""
    run = tmp_path_factory.mktemp("small") / "run"
    assert call(run, *SMALL, "--criterion", "magnitude", "--vary", "iterations=1") == 0
    assert main(["report", "--run", str(run), "--quiet"]) == 0
    return run


@pytest.fixture
def small(small_once, tmp_path):
    return shutil.copytree(small_once, tmp_path / "run")


def test_the_page_holds_all_that_it_shows(run):
    pictures = [path.name for path in (run / "report").glob("*.png") if "-dark" not in path.name]
    page = (run / "report/index.html").read_text()
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    inside = [link for link in reader.links if link.startswith("data:image/png;base64,")]
    assert len(inside) == len(pictures)
    # The others lead to headings, and to files that are there.
    beside = [link for link in reader.links if link not in inside and not link.startswith("#")]
    assert {"results.csv", "01-scores.csv", "results.jsonl"} <= {link.rpartition("/")[2] for link in beside}
    assert all((run / "report" / link).is_file() for link in beside)
    assert "default-src 'none'" in page[:800]
    kinds = {re.sub(r"^\d+-|-[\d.]+$|-(effect|magnitude)$", "", name.removesuffix(".png")) for name in pictures}
    expected = {"score", "loss", "layers", "gamma", "correlation", "overlap", "iterations"}
    assert kinds == expected
    for heading in (
        "apply-mask.scope = global",
        "Overlap of the kept weights",
        "Loss of each iteration",
        "Not in this report",
    ):
        assert heading in reader.texts
    (absent,) = [text for text in reader.texts if "evaluate.hessian" in text]
    assert "evaluate.noise=true" in absent
    # Two sparsities show none.
    assert "the phase shift (three or more sparsities)" in absent
    assert "Phase shift" not in reader.texts
    assert "--iterations" not in absent
    assert any("dense kernels compute with them all the same" in text for text in reader.texts)


def test_only_an_earlier_page_is_replaced(small_once, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    report(small_once, capsys)
    page = tmp_path / "index.html"
    page.write_text("<!DOCTYPE html>my own page")
    assert main(["report", "--run", str(small_once), "--output", str(tmp_path), "--quiet"]) == 5
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--overwrite to replace it" in error
    assert [p.name for p in tmp_path.iterdir()] == ["index.html"]
    assert page.read_text() == "<!DOCTYPE html>my own page"
    for more in (["--overwrite"], []):
        report(small_once, capsys, "--output", tmp_path, *more)
        # Except for the links to the data, which are relative.
        own, other = (re.sub("<dd>.*</dd>", "", p.read_text()) for p in (page, small_once / "report/index.html"))
        assert own == other


def test_the_table_on_the_page_is_the_mean_over_the_seeds(run):
    page = (run / "report/index.html").read_text()
    rows = [r for r in table(run) if (r["apply-mask.scope"], r["criterion"], r["sparsity"]) == ("layer", "effect", 0.8)]
    scores = np.array([row["score"] for row in rows])
    block = page[page.index("apply-mask.scope = layer</h2>") :]
    line = re.search(r"<td>80</td><td[^>]*>([\d.]+) <span class=\"spread\">±([\d.]+)</span>", block)
    assert line.groups() == (f"{100 * scores.mean():.2f}", f"{100 * scores.std(ddof=1):.2f}")


def test_the_table_on_the_terminal_is_the_mean_over_the_seeds(run, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    capsys.readouterr()
    assert call(run, *ITERATED) == 0
    printed = capsys.readouterr().out
    rows = [r for r in table(run) if r["apply-mask.scope"] == "layer"]
    block = printed[printed.index("apply-mask.scope=layer") :]
    dense = 100 * np.array([rows[0]["dense"], next(r["dense"] for r in rows if r["seed"] != rows[0]["seed"])])
    assert f"not pruned {dense.mean():.1f} ±{dense.std(ddof=1):.1f}" in block
    scores = {
        c: 100 * np.array([r["score"] for r in rows if (r["criterion"], r["sparsity"]) == (c, 0.8)])
        for c in ("effect", "magnitude")
    }
    line = re.search(r"^80 % pruned +(\S+ \S+) +(\S+ \S+) *$", block, re.MULTILINE)
    assert line.groups() == tuple(f"{s.mean():.1f} ±{s.std(ddof=1):.1f}" for s in scores.values())


def test_pictures_of_an_earlier_report_go_and_no_others(small, capsys):
    folder = small / "report"
    alone = {path.name for path in folder.glob("*.png")}
    mine = [folder / name for name in ("score-of-mine.png", "overlap-of-mine.png")]
    for path in mine:
        path.write_bytes((folder / "score.png").read_bytes()[:-1])
    # With another number of iterations the page has two blocks, and other names of pictures.
    assert call(small, *SMALL, "--criterion", "magnitude,random", "--vary", "iterations=1,2") == 0
    result = report(small, capsys)
    assert alone
    # Of all settings together there is a picture of the same name.
    together = {"score.png", "score-dark.png", "phase-shift.png"}
    assert alone - together
    assert not (alone - together) & set(result["pictures"])
    assert {path.name for path in folder.glob("*.png")} == {*result["pictures"], *(path.name for path in mine)}
    page = (folder / "index.html").read_text()
    assert "Pruned over 1 or 2 iterations, some trained afterwards" in page


def test_masks_are_those_of_the_networks(tmp_path):
    options = ["--criterion", "magnitude", "--sparsity", "0.7", "--seeds", "1", "--keep-networks"]
    assert call(tmp_path, *QUICK[6:], *options) == 0
    cell = table(tmp_path)[0]["cell"]
    network = load_checkpoint(next((tmp_path / "sweep/cells" / cell).glob("apply_mask-*/pruned.safetensors")))
    expected = network.mask.numpy()
    assert np.array_equal(read_mask(SweepPaths(tmp_path / "sweep"), cell), expected)


def test_a_report_of_nothing(tmp_path, capsys):
    assert main(["report", "--run", str(tmp_path), "--quiet"]) == 3
    error = capsys.readouterr().err
    assert (error.count("\n"), "`causalprune sweep` first" in error) == (1, True)
    options = [*QUICK[6:], "--criterion", "magnitude", "--sparsity", "0.7", "--seeds", "1"]
    assert call(tmp_path, *options, "--set", "record.lr=1e18") == 3
    capsys.readouterr()
    assert main(["report", "--run", str(tmp_path), "--quiet"]) == 3
    error = capsys.readouterr().err
    assert (error.count("\n"), "expected at least one finished cell, found none of 1" in error) == (1, True)
    assert not (tmp_path / "report").exists()


def test_a_regression_of_one_cell(tmp_path, capsys):
    options = ["--dataset", "diabetes", "--model", "mlp", "--hidden", "8", "--pretrain-epochs", "1", "--seeds", "1"]
    measured = ["--set", "evaluate.hessian=2", "--set", "evaluate.noise=true", "--set", "evaluate.samples=40"]
    assert call(tmp_path, *options, "--criterion", "random", "--sparsity", "0.5", *measured) == 0
    result = report(tmp_path, capsys, "--title", "<script>alert(1)</script>")
    assert result["phase_shift"] == [{"settings": {}, "criterion": "random", "reason": "fewer than three sparsities"}]
    (row,) = table(tmp_path)
    largest = {space: row["hessian"][space]["eigenvalues"][0] for space in ("unpruned", "all")}
    before, after = result["eigenvalues"]
    assert (before["criterion"], before["all"]["mean"]) == (None, row["dense_hessian"]["all"]["eigenvalues"][0])
    assert (after["criterion"], after["sparsity"]) == ("random", 0.5)
    assert {space: after[space] for space in largest} == {s: {"mean": v, "std": None} for s, v in largest.items()}
    assert main(["report", "--run", str(tmp_path), "--quiet", "--title", "<script>alert(1)</script>"]) == 0
    printed = capsys.readouterr().out
    # No phase shift: one sparsity has none.
    assert "half is lost at" not in printed
    assert re.search(rf"random, 50 % pruned +{largest['unpruned']:.3g} +{largest['all']:.3g}", printed)
    page = (tmp_path / "report/index.html").read_text()
    assert "R² against percent pruned" in page
    assert "Phase shift</h2>" not in page
    assert "phase-shift.csv" not in result["tables"]
    # One seed has no mean and no deviation.
    assert "standard deviation" not in page[: page.index("Not in this report</h2>")]
    assert {"eigenvalues-unpruned.png", "density-50.png", "noise-50.png"} <= set(result["pictures"])
    absent = page[page.index("Not in this report</h2>") : page.index("Where this comes from</h2>")]
    for option in (
        "three or more sparsities",
        "--seeds 2",
        "gamma or effect",
        "--criterion with two",
        "--iterations 2",
    ):
        assert option in absent
    assert "evaluate." not in absent
    assert "On 40 samples of the test split" in page
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page


def test_the_table_of_all_rows_is_a_file(run, capsys):
    report(run, capsys)
    with (run / "report/results.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    rows = table(run)
    assert [float(line["score"]) for line in found] == [row["score"] for row in rows]
    assert [line["apply-mask.scope"] for line in found] == [row["apply-mask.scope"] for row in rows]
    assert [int(line["seed"]) for line in found] == [row["seed"] for row in rows]


def test_the_command_on_the_page_makes_the_same_sweep(small, capsys):
    page = (small / "report/index.html").read_text()
    said = html.unescape(re.search(r"<dt>sweep</dt>\s*<dd>(.*?)</dd>", page)[1])
    command, *arguments = shlex.split(said)
    assert command == "causalprune"
    capsys.readouterr()
    assert main([*arguments, "--run", str(small), "--quiet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["already_done"]


@pytest.fixture(scope="module")
def one_run(tmp_path_factory):
    run = tmp_path_factory.mktemp("one") / "run"
    options = [
        "--dataset",
        "breast-cancer",
        "--model",
        "mlp",
        "--hidden",
        "8",
        "--iterations",
        "2",
        "--sparsity",
        "0.8",
    ]
    options += ["--pretrain-epochs", "2", "--train-epochs", "1", "--record-epochs", "1", "--posttrain-epochs", "3"]
    assert main(["run", *options, "--run", str(run), "--quiet"]) == 0
    return run


def test_a_page_of_one_run(one_run, capsys):
    result = report(one_run, capsys)
    assert result["subject"] == "run"
    evaluation = json.loads((one_run / "results/evaluate.json").read_text())["metrics"]["evaluation"]
    before, after = evaluation["reference"]["top1"], evaluation["top1"]
    (found,) = result["found"]
    assert "of mlp are pruned by effect, and the accuracy on the test split went" in found
    assert f"from {100 * before:.2f} % to {100 * after:.2f} %" in found
    page = (one_run / "report/index.html").read_text()
    reader = Reader()
    reader.feed(page)
    for heading in ("Before and after", "Sparsity per layer", "Training", "Stages", "Recordings and γ"):
        assert heading in reader.texts
    assert {"layers.png", "training-loss.png", "validation.png", "loss-change-1.png", "gamma.png"} <= set(
        result["pictures"]
    )
    with (one_run / "report/layers.csv").open(newline="") as file:
        kept = {line["layer"]: int(line["kept"]) for line in csv.DictReader(file)}
    assert kept == {layer["name"]: layer["kept"] for layer in evaluation["layers"]}
    with (one_run / "report/history.csv").open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["stage"] == "posttrain"]
    history = json.loads((one_run / "results/posttrain.json").read_text())["metrics"]["history"]
    assert [float(line["training loss"]) for line in lines] == [epoch["train_loss"] for epoch in history]
    assert len(history) == 3
    with (one_run / "report/recordings.csv").open(newline="") as file:
        means = [float(line["mean ΔL"]) for line in csv.DictReader(file)]
    stores = [Store.open(part.store).recording() for part in RunPaths(one_run).iterations()]
    assert means == [float(store.loss_change.mean()) for store in stores]


def test_an_evaluation_of_another_network_is_not_that_of_the_run(one_run, tmp_path, capsys):
    run = shutil.copytree(one_run, tmp_path / "run")
    assert main(["evaluate", str(run / "iteration-001/pruned.safetensors"), "--run", str(run), "--quiet"]) == 0
    (found,) = report(run, capsys)["found"]
    dense, final = (
        json.loads((run / f"results/{stage}.json").read_text())["metrics"]["validation"]["top1"]
        for stage in ("pretrain", "posttrain")
    )
    assert "on the validation split went" in found
    assert f"from {100 * dense:.2f} % to {100 * final:.2f} %" in found
    assert "Before and after" not in (run / "report/index.html").read_text()


def test_the_command_on_the_page_makes_the_same_run(one_run, capsys):
    report(one_run, capsys)
    page = (one_run / "report/index.html").read_text()
    _, *arguments = shlex.split(html.unescape(re.search(r"<dt>run</dt>\s*<dd>(.*?)</dd>", page)[1]))
    assert main([*arguments, "--run", str(one_run), "--quiet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["already_done"]


def test_a_run_that_isnt_finished_is_shown_as_far_as_it_is(tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["pretrain", "--dataset", "breast-cancer", "--hidden", "4", "--epochs", "1", "--run", str(run)]) == 0
    result = report(run, capsys)
    assert result["found"] == ["Nothing is pruned yet: mlp on breast-cancer has all of its 128 prunable weights."]
    page = (run / "report/index.html").read_text()
    said = shlex.split(re.search(r"<dt>pretrain</dt>\s*<dd>(.*?)</dd>", page)[1])
    assert said[:2] == ["causalprune", "pretrain"]
    assert {" ".join(said[at : at + 2]) for at in range(2, len(said), 2)} == {
        "--dataset breast-cancer",
        "--hidden 4",
        "--model mlp",
        "--epochs 1",
    }


def test_a_page_of_single_stages_has_all_options_of_each(tmp_path, capsys):
    run = tmp_path / "run"
    tiny = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4", "--epochs", "1"]
    assert main(["pretrain", *tiny, "--run", str(run), "--quiet"]) == 0
    assert main(["record", "--steps", "3", "--lr", "0.02", "--run", str(run), "--quiet"]) == 0
    report(run, capsys)
    page = (run / "report/index.html").read_text().partition("All options that decide the results")[2]
    options = dict(re.findall(r"<dt>(\S+)</dt>\s*<dd>(.*?)</dd>", page))
    # One that was said, and one that wasn't.
    assert (options["record.lr"], options["pretrain.optimizer"]) == ("0.02", "sgd")


def test_without_plotly_the_page_has_pictures_and_says_so(small, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    capsys.readouterr()
    assert main(["report", "--run", str(small), "--json"]) == 0
    captured = capsys.readouterr()
    assert "pip install '.[plots]'" in captured.err
    (warning,) = json.loads(captured.out)["warnings"]
    assert warning.endswith("interactive charts need plotly: pip install '.[plots]'")
    page = (small / "report/index.html").read_text()
    assert "data:image/png;base64," in page
    assert "<script" not in page


def test_without_matplotlib_nothing_is_begun(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["report", "--run", str(small), "--output", str(tmp_path / "new"), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "plots need matplotlib: pip install" in error
    assert not (tmp_path / "new").exists()
