import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from causalprune_cli.main import main
from sweeps import QUICK, call, table

from causalprune.base.paths import SweepPaths
from causalprune.commands.sweep.table import read_mask
from causalprune.models.checkpoint import load_checkpoint

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
        if tag not in ("meta", "img"):
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
    pictures = [path.name for path in (run / "report").glob("*.png")]
    page = (run / "report/index.html").read_text()
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert len(reader.links) == len(pictures)
    assert all(link.startswith("data:image/png;base64,") for link in reader.links)
    assert "http" not in re.sub(r"base64,[^\"]*", "", page)
    kinds = {re.sub(r"^\d+-|-[\d.]+$|-(effect|magnitude)$", "", name.removesuffix(".png")) for name in pictures}
    assert kinds == {"score", "loss", "layers", "gamma", "correlation", "overlap", "iterations"}
    for heading in (
        "apply-mask.scope = global",
        "Phase shift",
        "Overlap of the kept weights",
        "Loss of each iteration",
        "Not in this report",
    ):
        assert heading in reader.texts
    (absent,) = [text for text in reader.texts if "evaluate.hessian" in text]
    assert "evaluate.noise=true" in absent
    assert "--iterations" not in absent
    assert any("dense kernels compute with them all the same" in text for text in reader.texts)


def test_only_an_earlier_page_is_replaced(small_once, tmp_path, capsys):
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
        assert page.read_bytes() == (small_once / "report/index.html").read_bytes()


def test_the_table_on_the_page_is_the_mean_over_the_seeds(run):
    page = (run / "report/index.html").read_text()
    rows = [r for r in table(run) if (r["apply-mask.scope"], r["criterion"], r["sparsity"]) == ("layer", "effect", 0.8)]
    scores = np.array([row["score"] for row in rows])
    block = page[page.index("apply-mask.scope = layer") :]
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
    assert not alone & set(result["pictures"])
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
    assert (error.count("\n"), "run `causalprune sweep` first" in error) == (1, True)
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
    assert re.search(rf"random, 50 % pruned +{largest['unpruned']:.3g} +{largest['all']:.3g}", printed)
    page = (tmp_path / "report/index.html").read_text()
    assert "R² against percent pruned" in page
    assert {"eigenvalues-unpruned.png", "density-50.png", "noise-50.png"} <= set(result["pictures"])
    absent = page[page.index("Not in this report") :]
    for option in ("--seeds 2", "gamma or effect", "--criterion with two", "--iterations 2"):
        assert option in absent
    assert "evaluate." not in absent
    assert "On 40 samples of the test split" in page
    assert "<script" not in page
    assert "&lt;script&gt;" in page
