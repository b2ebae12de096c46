"""``obs`` over the command line: what it leaves in the checkpoint, what it reads of a recording, and what it shares."""

import numpy as np
import pytest
import torch
from commands import call, call_json

import causalprune as cp
from causalprune.commands._network import load_network
from causalprune.models.checkpoint import load_checkpoint
from causalprune.pruning.gradients import measured_curvature
from causalprune.pruning.surgery import chita, criterion
from causalprune.trajectory import Store


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """MLPNet on the digits, and gradients of single samples with the curvature along them."""
    run = tmp_path_factory.mktemp("obs") / "run"
    assert call("pretrain", "--model", "mlpnet", "--epochs", 20, "--run", run, "--quiet") == 0
    assert call("record", "--hold", "--steps", 200, "--batch-size", 1, "--run", run, "--quiet") == 0
    return run


def prune(run, output, *options):
    command = ["apply-mask", "--criterion", "obs", *options, "--output", output, "--run", run, "--no-measure"]
    assert call(*command, "--quiet") == 0
    return load_checkpoint(output)


def same(one, other):
    return all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


@pytest.mark.parametrize(
    "options", [[], ["--first-order"], ["--scope", "layer"], ["--granularity", "neuron"], ["--keep", "layers.2"]]
)
def test_the_kept_weights_are_the_optimum_on_the_mask(held, tmp_path, options):
    ridge = 0.05
    after = prune(held, tmp_path / "pruned.safetensors", "--ridge", ridge, "--sparsity", 0.6, *options)
    before = load_checkpoint(held / "recorded.safetensors")
    index = before.info.index
    theta, new, keep = (index.flatten(t).numpy() for t in (before.weights, after.weights, after.mask.tensors()))
    reader = Store.open(held / "trajectory.zarr").recording()
    matrix = reader.read_columns(0, reader.num_columns).astype(float) / -reader.steps.lr[:, None]
    measured = measured_curvature(reader.steps, reader.precision)
    d = np.clip(measured.values, 0, measured.values[~measured.noisy].max())
    rows = np.sqrt(np.maximum(d, 1e-6 * d.mean()))[:, None] * matrix
    change = (new - theta).astype(float)
    slope = rows.T @ (rows @ change) + ridge * np.sum(rows**2) / len(theta) * change
    if "--first-order" in options:
        slope += matrix.sum(0)
    assert np.all(new[~keep] == 0)
    assert np.abs(slope[keep]).max() < 1e-2 * np.abs(slope[~keep]).max()
    if "--keep" in options:
        assert keep[index["layers.2.weight"].offset :].all()


@pytest.mark.parametrize("sparsity", [0.9, 0.95])
def test_one_shot_ahead_of_magnitude(held, tmp_path, capsys, sparsity):
    accuracy = {}
    for name in ("magnitude", "obs"):
        output = tmp_path / f"{name}.safetensors"
        where = ["--output", output, "--run", held]
        call_json(capsys, "apply-mask", "--criterion", name, "--sparsity", sparsity, *where)
        where = ["--checkpoint", output, "--output", tmp_path / "e.json", "--run", held]
        accuracy[name] = call_json(capsys, "evaluate", *where)["metrics"]["evaluation"]["top1"]
    assert accuracy["obs"] > accuracy["magnitude"] + 0.05


def test_neither_memory_nor_repetition_changes_a_byte(held, tmp_path):
    first = prune(held, tmp_path / "a.safetensors", "--sparsity", 0.9)
    for memory in ("500kB", "1kB"):
        assert same(prune(held, tmp_path / f"{memory}.safetensors", "--sparsity", 0.9, "--memory", memory), first)


def test_masks_of_one_recording_are_nested(held, tmp_path):
    masks = [prune(held, tmp_path / f"{s}.safetensors", "--sparsity", s).mask.keep for s in (0.5, 0.98)]
    assert not (masks[1] & ~masks[0]).any()
    assert masks[1].any()


def test_in_memory_it_is_the_same(held, tmp_path):
    after = prune(held, tmp_path / "pruned.safetensors", "--sparsity", 0.8)
    source = held / "recorded.safetensors"
    model, _ = load_network(load_checkpoint(source), source, torch.device("cpu"), trust_code=False)
    mask = cp.prune(model, held / "trajectory.zarr", sparsity=0.8, criterion="obs")
    assert torch.equal(mask.keep, after.mask.keep)
    assert all(torch.equal(value, after.weights[name]) for name, value in model.state_dict().items())


def test_a_recording_that_moves_counts_every_gradient_alike(held, tmp_path, capsys):
    store, output = tmp_path / "moving.zarr", tmp_path / "moving.safetensors"
    where = ["--store", store, "--run", held, "--quiet"]
    assert call("record", "--steps", 50, "--batch-size", 4, "--lr", 0.001, "--output", output, *where) == 0
    options = ["--criterion", "obs", "--sparsity", 0.5, "--checkpoint", output, "--no-measure"]
    capsys.readouterr()
    assert call("apply-mask", *options, "--output", tmp_path / "p.safetensors", "--store", store, "--run", held) == 0
    assert "every gradient counts alike (--hold measures curvature)" in capsys.readouterr().err


def test_only_obs_has_a_first_order_term(held, tmp_path, capsys):
    options = ["--criterion", "chita", "--first-order", "--sparsity", 0.5, "--run", held, "--quiet"]
    assert call("apply-mask", *options, "--output", tmp_path / "no.safetensors") == 2
    assert "--first-order: expected none, because the formula of criterion chita" in capsys.readouterr().err


def test_run_prunes_in_stages(tmp_path, capsys):
    options = ["--model", "mlpnet", "--iterations", 2, "--sparsity", 0.8, "--criterion", "obs", "--run", tmp_path]
    options += ["--pretrain-epochs", 3, "--train-epochs", 0, "--posttrain-epochs", 0, "--set", "record.hold=true"]
    call_json(capsys, "run", *options, "--set", "record.batch_size=1", "--set", "record.steps=100")
    first, second = (load_checkpoint(tmp_path / f"iteration-00{i}" / "pruned.safetensors") for i in (0, 1))
    assert second.mask.num_kept < first.mask.num_kept
    assert not (second.mask.keep & ~first.mask.keep).any()
    assert not any(second.weights[name][~keep].any() for name, keep in second.mask.tensors().items())


@pytest.mark.parametrize(
    ("name", "module", "shared"), [("obs", criterion, "surgery_order"), ("chita", chita, "_spectrum")]
)
def test_the_cells_of_a_sweep_share_what_they_can(held, tmp_path, capsys, monkeypatch, name, module, shared):
    """One order for all sparsities (for ``chita`` one Gram matrix), and the weights of masks that were made alone."""
    calls, compute = [], getattr(module, shared)
    monkeypatch.setattr(module, shared, lambda *args: calls.append(1) or compute(*args))
    sparsities = (0.5, 0.95)
    options = ["--sparsity", ",".join(map(str, sparsities)), "--seeds", 1, "--criterion", f"magnitude,{name}"]
    options += ["--recorded", held, "--keep-networks", "--run", tmp_path]
    call_json(capsys, "sweep", *options)
    assert len(calls) == 1
    swept = [load_checkpoint(path) for path in tmp_path.glob("sweep/**/pruned.safetensors")]
    alone = {}
    for sparsity in sparsities:
        output = tmp_path / f"{sparsity}.safetensors"
        options = ["--criterion", name, "--sparsity", sparsity, "--output", output, "--run", held, "--no-measure"]
        assert call("apply-mask", *options, "--quiet") == 0
        alone[sparsity] = load_checkpoint(output)
    assert len(calls) == 3
    found = {c.info.config["sparsity"]: c for c in swept if c.info.config["criterion"] == name}
    assert found.keys() == alone.keys()
    assert all(same(found[s], alone[s]) for s in sparsities)
    assert all(torch.equal(found[s].mask.keep, alone[s].mask.keep) for s in sparsities)
