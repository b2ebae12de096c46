"""evaluate measures the flatness that it is asked for."""

import json
import sys
from pathlib import Path

import pytest
from causalprune_cli.main import main


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = tmp_path_factory.mktemp("flatness")
    model = ["--model", "mlp", "--hidden", "12", "--dataset", "breast-cancer"]
    for stage in (
        ["pretrain", *model, "--epochs", "1"],
        ["apply-mask", "--checkpoint", run / "pretrained.safetensors", "--criterion", "magnitude", "--sparsity", "0.8"],
    ):
        assert main([*map(str, stage), "--run", str(run), "--quiet"]) == 0
    return run


def test_evaluate_measures_what_it_is_asked_for(run, capsys):
    pytest.importorskip("matplotlib")
    pruned_network = ["--checkpoint", run / "pruned.safetensors", "--samples", "50", "--run", run, "--quiet", "--json"]
    asked = ["--hessian", "2", "--noise", "--draws", "2", "--landscape", "--landscape-points", "3"]
    capsys.readouterr()
    assert main([str(a) for a in ["evaluate", *asked, "--flatness-split", "validation", *pruned_network]]) == 0
    result = json.loads(capsys.readouterr().out)
    found = result["metrics"]["evaluation"]
    # A tenth of the 455 training samples is held out for validation.
    assert (found["flatness_samples"], found["flatness_split"]) == (46, "validation")
    assert found["hessian"]["all"]["dimension"] == found["parameters_total"]
    assert found["hessian"]["unpruned"]["dimension"] == found["parameters_nonzero"]
    assert len(found["hessian"]["all"]["eigenvalues"]) == 2
    assert found["noise"]["loss"] == pytest.approx(found["landscape"]["loss"][1][1])
    assert Path(result["outputs"]["landscape"]).stat().st_size > 1000
    dense = ["--checkpoint", run / "pretrained.safetensors", "--run", run, "--quiet", "--json"]
    assert main([str(a) for a in ["evaluate", *dense]]) == 0
    assert "hessian" not in json.loads(capsys.readouterr().out)["metrics"]["evaluation"]


def evaluated(run, capsys, *options, network="pruned"):
    command = ["evaluate", *options, "--checkpoint", run / f"{network}.safetensors", "--run", run, "--quiet", "--json"]
    capsys.readouterr()
    assert main([str(a) for a in command]) == 0
    found = json.loads(capsys.readouterr().out)["metrics"]["evaluation"]
    assert json.loads((run / "results/evaluate.json").read_text())["metrics"]["evaluation"] == found
    return found


def test_what_was_measured_of_the_same_network_is_kept(run, capsys):
    pytest.importorskip("curvlinops")
    hessian = evaluated(run, capsys, "--hessian", "1", "--samples", "40", "--overwrite")
    noise = evaluated(run, capsys, "--noise", "--draws", "2", "--samples", "30")
    assert noise["hessian"] == hessian["hessian"]
    assert (noise["flatness_samples"], noise["flatness_split"]) == (30, "test")
    assert noise["flatness_of"] == {"hessian": {"flatness_samples": 40, "flatness_split": "test"}}
    neither = evaluated(run, capsys)
    assert {name: neither[name] for name in ("hessian", "noise")} == {
        "hessian": hessian["hessian"],
        "noise": noise["noise"],
    }
    # Measured anew, it is replaced.
    again = evaluated(run, capsys, "--hessian", "2", "--samples", "30")
    assert len(again["hessian"]["all"]["eigenvalues"]) == 2
    assert again["noise"] == noise["noise"]
    assert "flatness_of" not in again
    # Of another network nothing is kept, and nothing with --overwrite.
    assert not {"hessian", "noise"} & evaluated(run, capsys, network="pretrained").keys()
    evaluated(run, capsys, "--noise", "--draws", "1", "--samples", "30")
    assert "noise" in evaluated(run, capsys)
    assert "noise" not in evaluated(run, capsys, "--overwrite")


@pytest.mark.parametrize(
    "options", [["--hessian", "-1"], ["--landscape-points", "4"], ["--samples", "0"], ["--flatness-split", "train"]]
)
def test_what_can_not_be_measured(run, options, capsys):
    assert main(["evaluate", *options, "--run", str(run), "--quiet"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_missing_extra_is_named(run, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "curvlinops", None)
    arguments = ["evaluate", "--hessian", "1", "--checkpoint", str(run / "pruned.safetensors"), "--run", str(run)]
    assert main([*arguments, "--quiet"]) == 2
    assert "pip install '.[flatness]'" in capsys.readouterr().err
