"""What fit-gamma says of resamples of the steps."""

import numpy as np
import pytest
from commands import call, call_json

from causalprune.trajectory import Store

TINY = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = tmp_path_factory.mktemp("fit") / "run"
    assert call("pretrain", *TINY, "--epochs", "1", "--run", run, "-q") == 0
    assert call("record", "--steps", "12", "--run", run, "-q") == 0
    return run


def test_resamples_are_told_in_words_and_numbers(run, capsys):
    fit = ["fit-gamma", "--bootstrap", "20", "--name", "stability", "--run", run]
    found = call_json(capsys, *fit)["metrics"]["selection"]
    # Counted anew from what is stored.
    arrays = Store.open(run / "trajectory.zarr").recording().read_fit("stability").arrays
    selected = arrays["selection_probability"][0][arrays["gamma"][0] != 0]
    assert found["nonzero"] == len(selected) > 0
    half, most = (int(np.sum(selected >= share - 1e-6)) for share in (0.5, 0.9))
    expected = f"of {len(selected)} selected, {half} are in at least half of 20 resamples of the steps, {most} in 90 %"
    assert found["finding"].startswith(expected)
    # So does the fit that is there already, for people.
    capsys.readouterr()
    assert call(*fit, "-q") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert found["finding"] in text
    thresholds = dict(zip(found["thresholds"], found["selected"], strict=True))
    assert (thresholds[0.5], thresholds[0.9]) == (half, most)
    assert "selection probability ≥ 0.1 ≥ 0.25 ≥ 0.5 ≥ 0.75 ≥ 0.9 ≥ 1" in text
    assert f"of {len(selected)} with γ ≠ 0 {' '.join(map(str, found['selected']))}" in text


def test_without_resamples_there_is_nothing_to_tell(run, capsys):
    assert call_json(capsys, "fit-gamma", "--run", run)["metrics"]["selection"] is None
    assert call("fit-gamma", "--run", run, "-q") == 0
    assert "selection" not in capsys.readouterr().out
