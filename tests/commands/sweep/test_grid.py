"""A grid names its cells by what decides them: the user's code is part of that, the way to say a default isn't."""

import sys

import pytest

from causalprune.base.errors import MismatchError, UsageError
from causalprune.base.paths import SweepPaths
from causalprune.commands.pipeline.beforehand import Start
from causalprune.commands.sweep.grid import Grid
from causalprune.config.run import RunConfig, Setting
from causalprune.config.sweep import SweepConfig
from causalprune.config.sweep_values import Axis


def grid(*said, **options):
    base = RunConfig(dataset="breast-cancer", set=tuple(Setting.parse(one) for one in said), **options)
    return Grid.of(SweepConfig(base=base, sparsity=(0.5, 0.9), criterion=("effect",), seeds=1))


def cells(found):
    return [point.cell for point in found.points]


def test_a_default_that_is_said_is_the_same_cell():
    assert cells(grid("fit-gamma.alpha-ratio=0.1", "record.momentum=0", model="mlp")) == cells(grid())
    assert cells(grid("fit-gamma.alpha-ratio=0.2")) != cells(grid())


def test_an_exponent_is_of_the_criteria_that_have_one():
    base, vary = RunConfig(dataset="breast-cancer"), (Axis.parse("apply-mask.exponent=0.5,0.125"),)

    def config(*criteria):
        return SweepConfig(base=base, sparsity=(0.5,), criterion=criteria, seeds=1, vary=vary)

    points = Grid.of(config("effect", "magnitude")).points
    cells_of = {
        name: [point.cell for point in points if point.settings["criterion"] == name]
        for name in ("effect", "magnitude")
    }
    assert len(set(cells_of["effect"])) == 2
    assert len(set(cells_of["magnitude"])) == 1
    with pytest.raises(UsageError, match="formula of criterion magnitude has no exponent"):
        Grid.of(config("magnitude"))


def test_the_first_order_is_of_the_criterion_that_has_it():
    def points(*settings):
        base = RunConfig(dataset="breast-cancer", set=tuple(map(Setting.parse, settings)))
        found = Grid.of(SweepConfig(base=base, sparsity=(0.5,), criterion=("obs", "magnitude"), seeds=1)).points
        return {point.settings["criterion"]: point.cell for point in found}

    plain, with_gradient = points(), points("apply-mask.first-order=true")
    assert with_gradient["magnitude"] == plain["magnitude"]
    assert with_gradient["obs"] != plain["obs"]


def test_edited_code_makes_other_cells_and_touches_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = SweepPaths(tmp_path)
    code = "from torch import nn\n\ndef net(input_shape, num_outputs): return nn.Linear(*input_shape, num_outputs)\n"
    (tmp_path / "mine.py").write_text(code)
    grid(model="mine:net").claim(paths, lambda: "")
    written = paths.grid.read_bytes()
    grid(model="mine:net").claim(paths, lambda: "")
    assert paths.grid.read_bytes() == written
    (tmp_path / "mine.py").write_text(code + "# edited\n")
    sys.path_importer_cache.clear()
    with pytest.raises(
        MismatchError,
        match=r"that process 7 on node17 may be .* 2 of them .the code of mine:net changed",
    ):
        grid(model="mine:net").claim(paths, lambda: "process 7 on node17")
    assert paths.grid.read_bytes() == written


def test_a_switch_is_labeled_as_one_says_it():
    vary = (Axis.parse("repair=false,true"),)
    config = SweepConfig(base=RunConfig(dataset="breast-cancer"), criterion=("magnitude",), seeds=1, vary=vary)
    labels = {point.label.rpartition(" ")[2] for point in Grid.of(config).points}
    assert labels == {"repair=false", "repair=true"}


def test_a_cell_that_was_measured_a_moment_ago_is_not_lost(tmp_path):
    """By a process that ended while it was asked whether there is one."""
    paths, smaller = SweepPaths(tmp_path), RunConfig(dataset="breast-cancer")
    both = grid()
    both.claim(paths, lambda: "")

    def others():
        paths.cell(both.points[1].cell).parent.mkdir()
        paths.cell(both.points[1].cell).write_text("{}")
        return ""

    one = Grid.of(SweepConfig(base=smaller, sparsity=(0.5,), criterion=("effect",), seeds=1))
    with pytest.raises(MismatchError, match="every cell that is measured, and perhaps more, found one without 1 of"):
        one.claim(paths, others)


@pytest.mark.parametrize("criteria", [("curvature", "gamma"), ("gamma", "curvature")])
def test_every_criterion_is_asked_whether_it_reads_lags(criteria):
    lags = Setting.parse("fit-gamma.lags=1"), Setting.parse("record.loss-change=same-batch")
    base = RunConfig(dataset="breast-cancer", set=lags)
    with pytest.raises(MismatchError, match="criterion curvature: expected a fit without lags"):
        Grid.of(SweepConfig(base=base, sparsity=(0.5,), criterion=criteria, seeds=1))


def test_no_data_set_is_read_twice(monkeypatch):
    read = []

    def started(config, dense=None):
        read.append(config.dataset)
        return of(config, dense)

    of = Start.of
    monkeypatch.setattr(Start, "of", started)
    vary = Axis.parse("record.steps=20,30"), Axis.parse("dataset=breast-cancer,diabetes")
    Grid.of(SweepConfig(base=RunConfig(), sparsity=(0.5,), criterion=("effect",), seeds=1, vary=vary))
    assert read == ["breast-cancer", "diabetes"]
