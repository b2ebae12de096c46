"""A recording goes with the weights it was made of; a result that no longer follows from its input is stale."""

import hashlib
import json
import shutil

import numpy as np
import pytest
import torch
from commands import call, call_json
from torch import nn

from causalprune import Recorder, Store
from causalprune.models.checkpoint import load_checkpoint, read_checkpoint_info
from causalprune.models.parameters import ParameterIndex

TINY = ["pretrain", "--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4"]
PRUNE = ["apply-mask", "--sparsity", "0.5", "--criterion", "fisher", "--no-measure"]


def loop(model, store, optimizer=torch.optim.SGD, steps=6):
    """A user's training loop, recorded."""
    torch.manual_seed(0)
    made = optimizer(model.parameters(), lr=0.01)
    inputs, targets = torch.randn(steps, 16, 30), torch.randint(2, (steps, 16))
    with Recorder(model, made, store, max_rows=steps) as recorder:
        for x, y in zip(inputs, targets, strict=True):
            made.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            recorder.step(loss, lambda x=x, y=y: nn.functional.cross_entropy(model(x), y))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two networks of one shape, ``start`` and ``other``; a loop of the user's recorded ``start`` up to ``end``."""
    folder = tmp_path_factory.mktemp("lineage")
    for seed, name in enumerate(("start", "other")):
        output = folder / f"{name}.safetensors"
        assert call(*TINY, "--epochs", "1", "--seed", seed, "--output", output, "--run", folder, "-q") == 0
    from causalprune.models.registry import build_model

    start = load_checkpoint(folder / "start.safetensors")
    model = build_model(start.info.model, seed=0)
    model.load_state_dict(start.weights)
    loop(model, folder / "loop.zarr")
    torch.save(model.state_dict(), folder / "end.pt")
    end = ["--init-from", folder / "end.pt", "--epochs", "0", "--output", folder / "end.safetensors"]
    assert call(*TINY, *end, "--run", folder, "-q") == 0
    return folder


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


def prune(run, name, *options):
    named = ["--store", run / "loop.zarr", "--checkpoint", run / f"{name}.safetensors"]
    return call(*PRUNE, *named, "--output", run / "out.safetensors", "--run", run, *options)


def test_the_hashes_are_of_the_weights_as_float32(made):
    recording = Store.open(made / "loop.zarr").recording()
    for name, found in (("start", recording.info.start_weights), ("end", recording.end_weights)):
        checkpoint = load_checkpoint(made / f"{name}.safetensors")
        index = checkpoint.info.index
        values = [checkpoint.weights[entry.name].numpy().astype("<f4").tobytes() for entry in index]
        assert found == hashlib.sha256(index.fingerprint.encode() + b"".join(values)).hexdigest()


def test_a_hash_does_not_know_the_sign_of_zero():
    model = nn.Linear(3, 2)
    index = ParameterIndex.from_model(model)
    digests = {index.digest({"weight": torch.full((2, 3), zero)}) for zero in (0.0, -0.0)}
    assert len(digests) == 1
    assert index.digest({"weight": torch.full((2, 3), 1e-30)}) not in digests


@pytest.mark.parametrize("name", ["start", "end"])
def test_a_recording_of_a_loop_goes_with_its_start_and_its_end(run, name):
    assert prune(run, name, "-q") == 0


def test_another_network_of_the_same_shapes_is_refused(run, capsys):
    assert prune(run, "other", "-q") == 5
    error = capsys.readouterr().err
    assert "other.safetensors: expected the weights that recording" in error
    assert "--allow-other-weights" in error
    assert not (run / "out.safetensors").exists()
    said = call_json(capsys, *PRUNE, "--store", run / "loop.zarr", "--checkpoint", run / "other.safetensors",
                     "--output", run / "out.safetensors", "--run", run, "--allow-other-weights")  # fmt: skip
    assert "of other weights" in said["warnings"][0]


def test_what_was_trained_on_is_derived(run):
    train = ["posttrain", "--epochs", "1", "--checkpoint", run / "end.safetensors", "--output", run / "on.safetensors"]
    assert call(*train, "--run", run, "-q") == 0
    index = read_checkpoint_info(run / "end.safetensors").index
    assert read_checkpoint_info(run / "on.safetensors").ancestors[-1] == index.digest(torch.load(run / "end.pt"))
    # Nothing but the header is needed: the files of the ancestors may be gone.
    (run / "end.safetensors").unlink()
    assert prune(run, "on", "-q") == 0
    train[4:5] = [run / "other.safetensors"]
    assert call(*train, "--run", run, "--overwrite", "-q") == 0
    assert prune(run, "on", "--overwrite", "-q") == 5


def test_a_recording_without_hashes_is_said_to_be_one(run, capsys):
    """As version 0.1 made them in a loop."""
    old = Store.open(run / "loop.zarr")
    new = Store.create(run / "old.zarr", index=old.index, model={}, start_sha256="")
    reader = old.recording()
    import dataclasses

    info = dataclasses.replace(reader.info, start_weights="")
    writer = new.create_recording(info, reader.active, max_rows=reader.num_rows)
    for row, delta in enumerate(reader.read_rows(0, reader.num_rows)):
        writer.append(delta, **{name: float(reader.steps[name][row]) for name in ("loss_before", "loss_after", "lr")},
                      epoch=0, batch=row, grad_norm=1.0)  # fmt: skip
    writer.finish()
    assert "start_weights" not in json.loads((run / "old.zarr/recordings/000/zarr.json").read_text())["attributes"][
        "causalprune"]["info"]  # fmt: skip
    said = call_json(capsys, *PRUNE, "--store", run / "old.zarr", "--checkpoint", run / "other.safetensors",
                     "--output", run / "out.safetensors", "--run", run)  # fmt: skip
    assert "doesn't say of which weights it is" in said["warnings"][0]


def test_a_merged_and_a_compacted_recording_keep_the_hashes(run, capsys):
    before = Store.open(run / "loop.zarr").recording()
    call_json(capsys, "store", "compact", run / "loop.zarr", "--codec", "small")
    after = Store.open(run / "loop.zarr").recording()
    assert after.end_weights == before.end_weights
    shutil.copytree(run / "loop.zarr", run / "again.zarr")
    merged = ["store", "merge", run / "loop.zarr", run / "again.zarr", "--output", run / "merged.zarr"]
    call_json(capsys, *merged)
    assert Store.open(run / "merged.zarr").recording().known_weights == before.known_weights
    assert call_json(capsys, *merged)["already_done"]


def test_an_interrupted_loop_knows_where_it_was_left(tmp_path):
    model = nn.Linear(30, 2)

    class Enough(Exception):
        pass

    def measure():
        raise Enough

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def train():
        with Recorder(model, optimizer, tmp_path / "s.zarr", max_rows=9) as recorder:
            for row in range(3):
                inputs = torch.randn(4, 30)
                loss = model(inputs).pow(2).mean()
                optimizer.zero_grad()
                loss.backward()
                recorder.step(loss, measure if row == 2 else lambda x=inputs: model(x).pow(2).mean())

    with pytest.raises(Enough):
        train()
    reader = Store.open(tmp_path / "s.zarr").recording()
    assert (reader.finished, reader.num_rows) == (False, 2)
    index = ParameterIndex.from_model(model)
    assert reader.end_weights == index.digest(dict(model.named_parameters()))


@pytest.mark.parametrize(
    ("optimizer", "said"),
    [
        (torch.optim.Adam, "optimizer adam"),
        (lambda p, lr: torch.optim.SGD(p, lr=lr, weight_decay=0.1), "weight decay 0.1"),
        (lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9, nesterov=True), "momentum 0.9 (Nesterov)"),
        (lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9), ""),
    ],
)
def test_gamma_has_no_causal_reading_but_for_sgd(tmp_path, capsys, optimizer, said):
    loop(nn.Linear(30, 2), tmp_path / "s.zarr", optimizer)
    where = ["--store", tmp_path / "s.zarr", "--run", tmp_path]
    for _ in ("made", "found"):
        warnings = call_json(capsys, "fit-gamma", "--held-out", "0", *where)["warnings"]
        assert any("no causal reading" in one and said in one for one in warnings) == bool(said)
    (recording,) = call_json(capsys, "info", tmp_path / "s.zarr")["details"]["recordings"]
    assert recording["no_causal_reading"] == said
    assert call("info", tmp_path / "s.zarr", "-q") == 0
    assert ("causal reading" in capsys.readouterr().out) == bool(said)


def test_apply_mask_says_that_gamma_of_adam_is_no_cause(made, tmp_path, capsys):
    start = load_checkpoint(made / "start.safetensors")
    from causalprune.models.registry import build_model

    model = build_model(start.info.model, seed=0)
    model.load_state_dict(start.weights)
    loop(model, tmp_path / "adam.zarr", torch.optim.Adam)
    where = ["--store", tmp_path / "adam.zarr", "--run", tmp_path]
    call_json(capsys, "fit-gamma", "--held-out", "0", *where)
    said = call_json(capsys, "apply-mask", "--sparsity", "0.5", "--checkpoint", made / "start.safetensors", *where)
    assert any("optimizer adam, not plain SGD" in one for one in said["warnings"])
    assert np.isclose(said["metrics"]["sparsity"], 0.5, atol=0.01)
