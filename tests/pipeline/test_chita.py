"""CHITA over the command line: how well it prunes in one shot, what it leaves in the checkpoint, what it refuses."""

import numpy as np
import pytest
import torch
from commands import call, call_json

from causalprune.models.checkpoint import load_checkpoint
from causalprune.pruning.gradients import GradientMatrix
from causalprune.training.recorder import Recorder
from causalprune.trajectory import Store


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """MLPNet on the digits, and gradients of single samples at a learning rate that hardly moves it."""
    run = tmp_path_factory.mktemp("chita") / "run"
    assert call("pretrain", "--model", "mlpnet", "--epochs", 20, "--run", run, "--quiet") == 0
    assert call("record", "--steps", 300, "--batch-size", 1, "--lr", 0.001, "--run", run, "--quiet") == 0
    return run


def one_shot_accuracy(capsys, criterion, sparsity, folder, *where):
    """Test accuracy in percent of the recorded network, pruned by a criterion and not trained again."""
    output = folder / f"{criterion}.safetensors"
    options = ["--criterion", criterion, "--sparsity", sparsity, "--output", output, "--overwrite", *where]
    assert call_json(capsys, "apply-mask", *options)["metrics"]["sparsity"] == pytest.approx(sparsity, abs=1e-3)
    options = ["--checkpoint", output, "--output", folder / "e.json", *where]
    return 100 * call_json(capsys, "evaluate", *options)["metrics"]["evaluation"]["top1"]


@pytest.mark.parametrize(("sparsity", "points"), [(0.8, 0), (0.9, 0), (0.95, 4)])
def test_one_shot_without_retraining_ahead_of_magnitude(recorded, tmp_path, capsys, sparsity, points):
    where = ["--run", recorded]
    accuracy = {c: one_shot_accuracy(capsys, c, sparsity, tmp_path, *where) for c in ("magnitude", "chita")}
    assert accuracy["chita"] > accuracy["magnitude"] + points


@pytest.mark.slow
def test_on_mnist_it_is_ahead_of_magnitude_from_eighty_percent_up(real_data, tmp_path, capsys):
    """As in the table of Benbaki et al. (arXiv 2302.14623); settings are those of ``benchmarks/one_shot.py``."""
    data, where = ["--data-root", real_data], ["--run", tmp_path / "run"]
    network = ["--dataset", "mnist", "--model", "mlpnet", "--epochs", 10, "--batch-size", 256]
    call_json(capsys, "pretrain", *network, *data, *where)
    call_json(capsys, "record", "--steps", 1000, "--batch-size", 1, "--lr", 0.001, *data, *where)
    ahead = {}
    for sparsity in (0.8, 0.9, 0.95):
        found = {c: one_shot_accuracy(capsys, c, sparsity, tmp_path, *where, *data) for c in ("magnitude", "chita")}
        ahead[sparsity] = found["chita"] - found["magnitude"]
    assert min(ahead.values()) > 0
    assert ahead[0.95] >= 4


@pytest.mark.parametrize("options", [[], ["--scope", "layer"], ["--granularity", "neuron"]])
def test_the_kept_weights_are_least_squares_on_the_mask(recorded, tmp_path, options):
    output, ridge = tmp_path / "pruned.safetensors", 0.05
    command = ["apply-mask", "--criterion", "chita", "--ridge", ridge, "--sparsity", 0.6, *options]
    assert call(*command, "--output", output, "--run", recorded, "--quiet") == 0
    before, after = load_checkpoint(recorded / "recorded.safetensors"), load_checkpoint(output)
    index = before.info.index
    theta, new, keep = (index.flatten(t).numpy() for t in (before.weights, after.weights, after.mask.tensors()))
    reader = Store.open(recorded / "trajectory.zarr").recording()
    matrix = reader.read_columns(0, reader.num_columns).astype(float) / -0.001
    penalty = ridge * np.sum(matrix**2) / len(theta)
    gradient = matrix.T @ (matrix @ (new - theta)) + penalty * (new - theta)
    assert np.all(new[~keep] == 0)
    assert np.abs(gradient[keep]).max() < 1e-2 * np.abs(gradient[~keep]).max()
    for name in before.weights.keys() - set(after.mask.tensors()):
        assert torch.equal(before.weights[name], after.weights[name])


def test_a_matrix_beyond_the_memory_gives_the_same(recorded, tmp_path):
    for name, memory in (("whole", "2GiB"), ("streamed", "1kB")):
        output = tmp_path / f"{name}.safetensors"
        options = ["--criterion", "chita", "--sparsity", 0.9, "--memory", memory, "--output", output]
        assert call("apply-mask", *options, "--run", recorded, "--quiet") == 0
    whole, streamed = (load_checkpoint(tmp_path / f"{name}.safetensors") for name in ("whole", "streamed"))
    for name, mask in whole.mask.tensors().items():
        assert torch.equal(mask, streamed.mask.tensors()[name])
        assert torch.allclose(whole.weights[name], streamed.weights[name], rtol=1e-3, atol=1e-6)


def test_run_prunes_in_several_stages(tmp_path, capsys):
    options = ["--model", "mlpnet", "--iterations", 2, "--sparsity", 0.8, "--criterion", "chita"]
    options += ["--pretrain-epochs", 3, "--train-epochs", 0, "--posttrain-epochs", 0]
    sets = ["--set", "record.lr=0.001", "--set", "record.batch_size=4", "--set", "record.steps=100"]
    report = call_json(capsys, "run", *options, *sets, "--run", tmp_path / "run")
    assert [round(i["sparsity"], 2) for i in report["metrics"]["iterations"]] == [0.7, 0.8]
    first, second = (load_checkpoint(tmp_path / "run" / f"iteration-00{i}" / "pruned.safetensors") for i in (0, 1))
    for name, mask in second.mask.tensors().items():
        assert not (mask & ~first.mask.tensors()[name]).any()
        assert not torch.equal(first.weights[name][mask], second.weights[name][mask])


def test_rewinding_would_undo_it(recorded, capsys):
    options = ["--criterion", "chita", "--sparsity", 0.5, "--rewind", "pretrained", "--run", recorded, "--quiet"]
    assert call("apply-mask", *options) == 2
    assert "--rewind: expected none, because chita sets the weights it keeps" in capsys.readouterr().err
    assert call("run", "--criterion", "chita", "--rewind", "pretrained", "--run", recorded / "no", "--quiet") == 2
    assert not (recorded / "no").exists()


@pytest.mark.parametrize("criterion", ["chita", "fisher", "obd", "obs"])
@pytest.mark.parametrize(
    ("options", "found"), [(["--momentum", "0.9"], "one with momentum 0.9"), (["--stride", "2"], "one with stride 2")]
)
def test_a_recording_without_gradients_is_refused(recorded, tmp_path, capsys, criterion, options, found):
    store, output = tmp_path / "other.zarr", tmp_path / "other.safetensors"
    where = ["--store", store, "--run", recorded, "--quiet"]
    assert call("record", "--steps", 6, *options, "--output", output, *where) == 0
    pruned = tmp_path / "pruned.safetensors"
    options = ["--criterion", criterion, "--sparsity", 0.5, "--checkpoint", output, "--output", pruned]
    assert call("apply-mask", *options, *where) == 5
    error = capsys.readouterr().err
    assert f"criterion {criterion}: expected the gradients of a plain-SGD recording, found {found}" in error
    assert not pruned.exists()


def test_the_recorder_tells_of_weight_decay(tmp_path):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.01)
    with Recorder(model, optimizer, tmp_path / "t.zarr", max_rows=2) as recorder:
        for _ in range(2):
            inputs = torch.randn(4, 3)
            loss = model(inputs).square().mean()
            optimizer.zero_grad()
            loss.backward()
            recorder.step(loss, lambda inputs=inputs: model(inputs).square().mean())
    assert Store.open(tmp_path / "t.zarr").recording().info.extra == {"weight_decay": 0.01}


def test_gradients_are_read_in_full(recorded):
    reader = Store.open(recorded / "trajectory.zarr").recording()
    found = GradientMatrix.from_deltas(
        lambda c: reader.column_blocks(columns=c), reader.learning_rates, reader.column_index, max_rows=300, max_bytes=0
    )
    # Of a gradient much smaller than the weights' last bits over η, nothing is left in θ_{t+1} − θ_t.
    norm = reader.steps.grad_norm
    assert np.sqrt(np.diag(found.gram())) == pytest.approx(norm, rel=1e-3, abs=1e-4 * norm.max())
