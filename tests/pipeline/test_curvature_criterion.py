"""Where γ isn't −1/η + h/2, the criterion, fit-gamma's table and diagnose all say so, and in the same words."""

import numpy as np
import pytest
from commands import call, call_json

from causalprune.models.checkpoint import load_checkpoint
from causalprune.trajectory import RecordingInfo, Store


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("curvature") / "run"
    tiny = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4", "--epochs", "1"]
    assert call("pretrain", *tiny, "--run", path, "--quiet") == 0
    return path


def record(run, path, rates=(0.1,), **options):
    """A recording of the run's network, of noise; how it was made is what its metadata say."""
    index = load_checkpoint(run / "pretrained.safetensors").info.index
    store = Store.create(path, index=index, model={}, start_sha256="")
    info = RecordingInfo(lr=0.1, batch_size=4, seed=0, **options)
    writer = store.create_recording(info, np.ones(index.total, bool), max_rows=20, codec="exact", block_rows=20)
    rng = np.random.default_rng(0)
    for row in range(20):
        delta = 0.01 * rng.standard_normal(index.total).astype(np.float32)
        losses = {"loss_before": 1.0, "loss_after": 1.0 - 10 * float(delta @ delta)}
        writer.append(delta, **losses, lr=rates[row % len(rates)], epoch=0, batch=row, grad_norm=1.0)
    writer.finish()
    return ["--store", path, "--run", run]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"momentum": 0.9}, "momentum 0.9"),
        ({"stride": 2}, "stride 2"),
        ({"loss_change": "next-batch"}, "next-batch losses"),
        ({"rates": (0.1, 0.2)}, "learning rates from 0.1 to 0.2"),
        (
            {"optimizer": "adam", "momentum": 0.9, "extra": {"weight_decay": 0.1}},
            "optimizer adam, momentum 0.9, weight decay 0.1",
        ),
        ({"extra": {"maximize": True}}, "steps that ascend"),
    ],
    ids=str,
)
def test_all_three_refuse_the_same_recordings(run, tmp_path, capsys, options, found):
    where = record(run, tmp_path / "t.zarr", **options)
    checkpoint = ["--checkpoint", run / "pretrained.safetensors"]
    prune = ["apply-mask", "--criterion", "curvature", "--sparsity", "0.5", *checkpoint, *where]
    prune += ["--output", tmp_path / "pruned.safetensors"]
    # Before a fit is asked for: none would help.
    assert call(*prune, "--quiet") == 5
    error = capsys.readouterr().err
    assert "expected a same-batch recording of plain SGD without weight decay" in error
    assert f"found one with {found}; record with --momentum 0 --stride 1" in error
    assert error.count("\n") == 1
    layers = call_json(capsys, "fit-gamma", "--granularity", "layer", "--name", "layers", *where)
    assert layers["metrics"]["curvature"]["unavailable"].endswith(f"this has {found}")
    call_json(capsys, "fit-gamma", *where)
    few = ["--placebo", "0", "--interventions", "5", "--samples", "20"]
    diagnosis = call_json(capsys, "diagnose", *few, *checkpoint, *where)["metrics"]["diagnosis"]
    assert set(diagnosis["interventions"]["groups"]["predictors"]) == {"fit", "effect", "magnitude"}
    assert call(*prune, "--quiet") == 5


def test_all_three_serve_plain_sgd_but_no_lags(run, tmp_path, capsys):
    where = record(run, tmp_path / "t.zarr")
    checkpoint = ["--checkpoint", run / "pretrained.safetensors"]
    prune = ["apply-mask", "--criterion", "curvature", "--sparsity", "0.5", *checkpoint, *where]
    prune += ["--output", tmp_path / "pruned.safetensors", "--overwrite", "--quiet"]
    layers = ["fit-gamma", "--granularity", "layer", *where]
    few = ["diagnose", "--placebo", "0", "--interventions", "5", "--samples", "20", *checkpoint, *where]
    for lags, code in (([], 0), (["--lags", "1"], 5)):
        call_json(capsys, "fit-gamma", *lags, "--overwrite", *where)
        assert call(*prune) == code
        assert ("a fit without lags" in capsys.readouterr().err) == bool(lags)
        table = call_json(capsys, *layers, *lags, "--name", f"layers{len(lags)}")["metrics"]["curvature"]
        assert table.get("unavailable", "").endswith("this has lags" if lags else "")
        groups = call_json(capsys, *few)["metrics"]["diagnosis"]["interventions"]["groups"]
        assert ("curvature" in groups["predictors"]) == (not lags)
