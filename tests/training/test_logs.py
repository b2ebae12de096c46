"""Logs of training and recording: what they say is what was trained and recorded, and they change nothing."""

import copy
import csv
import functools
import json
import math

import pytest
import torch
from causalprune_cli.main import main
from stop_after import StopAfter
from torch import nn

from causalprune.base.errors import DataError, InterruptedStage, StorageError
from causalprune.base.paths import RunPaths
from causalprune.base.signals import StopRequest
from causalprune.base.specs import DataSpec
from causalprune.data.datasets import load_data
from causalprune.models.checkpoint import load_checkpoint
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex
from causalprune.training.logs.csv_log import CsvLog
from causalprune.training.logs.log import EPOCHS, LAYERS, STEPS, Log
from causalprune.training.loop import train
from causalprune.training.names import LOGS
from causalprune.training.options import TrainingOptions
from causalprune.trajectory import Store

TINY = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "4", "--batch-size", "64"]
RUN = [*TINY, "--iterations", "1", "--sparsity", "0.5", "--pretrain-epochs", "2", "--train-epochs", "1"]
RUN += ["--record-epochs", "1", "--posttrain-epochs", "3", "--set", "posttrain.warmup=0.5", "--quiet"]


def lines(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def scalars(folder):
    """What TensorBoard would show: (step, value) by tag."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    return {tag: [(one.step, one.value) for one in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same run without a log, with CSV, and with TensorBoard."""
    folder = tmp_path_factory.mktemp("logs")
    for kind in ("none", "csv", "tensorboard"):
        if kind == "tensorboard":
            pytest.importorskip("tensorboard")
        assert main(["run", *RUN, "--log", kind, "--run", str(folder / kind)]) == 0
    return folder


def test_logs_change_no_byte_of_what_is_made(runs):
    files = sorted(p.relative_to(runs / "none") for p in (runs / "none").rglob("*.safetensors"))
    assert len(files) > 5
    for kind in ("csv", "tensorboard"):
        for file in files:
            assert (runs / kind / file).read_bytes() == (runs / "none" / file).read_bytes()
        digests = [Store.open(runs / k / "iteration-000/trajectory.zarr").recording().digest for k in (kind, "none")]
        assert digests[0] == digests[1]
    assert not list((runs / "none").rglob("logs"))


def test_epochs_are_those_of_the_history(runs):
    for name in ("pretrained", "final"):
        history = load_checkpoint(runs / f"csv/{name}.safetensors").info.metrics["history"]
        logged = lines(runs / f"csv/logs/{name}/epochs.csv")
        assert [float(line["train_loss"]) for line in logged] == [epoch["train_loss"] for epoch in history]
        assert [float(line["validation"]) for line in logged] == [epoch["validation"] for epoch in history]
        stage = {"pretrained": "pretrain", "final": "posttrain"}[name]
        result = json.loads((runs / f"csv/results/{stage}.json").read_text())
        assert result["metrics"]["history"] == history


def test_steps_have_the_losses_of_their_epochs_and_the_rates_of_the_schedule(runs):
    steps, epochs = (lines(runs / f"csv/logs/final/{table}.csv") for table in ("steps", "epochs"))
    assert [int(line["step"]) for line in steps] == list(range(1, len(steps) + 1))
    for epoch in epochs:
        losses = [float(line["loss"]) for line in steps if line["epoch"] == epoch["epoch"]]
        assert sum(losses) / len(losses) == pytest.approx(float(epoch["train_loss"]), rel=1e-12)
    total = len(steps)
    # The cosine from 0.05, times the warm-up of the first half.
    expected = [0.05 * (1 + math.cos(math.pi * t / total)) / 2 * min(1, (t + 1) / (total // 2)) for t in range(total)]
    assert [float(line["lr"]) for line in steps] == pytest.approx(expected, rel=1e-9)


def test_recorded_steps_are_the_rows_of_the_store(runs):
    recording = Store.open(runs / "csv/iteration-000/trajectory.zarr").recording()
    logged = lines(runs / "csv/iteration-000/logs/recorded/steps.csv")
    assert [int(line["step"]) for line in logged] == list(range(1, recording.num_rows + 1))
    assert [float(line["loss_change"]) for line in logged] == recording.loss_change.tolist()
    assert [float(line["loss"]) for line in logged] == recording.steps.loss_before.tolist()


def test_layers_are_logged_as_the_mask_that_is_held(runs):
    mask = load_checkpoint(runs / "csv/final.safetensors").mask
    logged = lines(runs / "csv/logs/final/layers.csv")
    assert [(line["layer"], int(line["kept"])) for line in logged] == [(one.name, one.kept) for one in mask.per_layer()]
    assert mask.num_pruned > 0


def test_tensorboard_shows_the_same(runs):
    for name in ("logs/final", "iteration-000/logs/recorded"):
        shown, steps = scalars(runs / "tensorboard" / name), lines(runs / f"csv/{name}/steps.csv")
        for column in set(steps[0]) - {"step", "epoch"}:
            places, values = zip(*shown[column], strict=True)
            assert list(places) == [int(line["step"]) for line in steps]
            assert values == pytest.approx([float(line[column]) for line in steps], rel=1e-6)
    layers = lines(runs / "csv/logs/final/layers.csv")
    shown = scalars(runs / "tensorboard/logs/final")
    for line in layers:
        assert shown[f"sparsity/{line['layer']}"] == [(0, pytest.approx(float(line["sparsity"])))]
    assert len(shown["epoch/validation"]) == 3


def test_rows_of_later_steps_go_and_a_torn_one_too(tmp_path):
    log = CsvLog(tmp_path, 0)
    log.write(STEPS, [{"step": n, "loss": n / 3} for n in range(1, 8)])
    whole = (tmp_path / "steps.csv").read_bytes()
    with (tmp_path / "steps.csv").open("ab") as file:
        file.write(b"8,0.9")
    resumed = CsvLog(tmp_path, 5)
    assert [line["step"] for line in lines(tmp_path / "steps.csv")] == ["1", "2", "3", "4", "5"]
    resumed.write(STEPS, [{"step": n, "loss": n / 3} for n in (6, 7)])
    assert (tmp_path / "steps.csv").read_bytes() == whole


def test_what_begins_anew_leaves_no_log_of_what_was_replaced(tmp_path):
    def pretrain(*more):
        return main(["pretrain", *TINY, "--epochs", "1", "--run", str(tmp_path), "--quiet", *more])

    folder = tmp_path / "logs/pretrained"
    assert pretrain("--log", "csv") == 0
    (folder / "my-notes.csv").write_text("mine")
    before = (folder / "steps.csv").read_bytes()
    # It is done already, so nothing is trained and nothing logged.
    assert pretrain() == 0
    assert (folder / "steps.csv").read_bytes() == before
    assert pretrain("--lr", "0.01", "--overwrite") == 0
    assert [path.name for path in folder.iterdir()] == ["my-notes.csv"]


def test_a_missing_library_is_said_before_anything_is_done(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("causalprune.training.names.find_spec", lambda name: None)
    assert main(["pretrain", *TINY, "--log", "tensorboard", "--run", str(tmp_path / "run"), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "pip install '.[tensorboard]'" in error
    assert not (tmp_path / "run").exists()


def test_an_unknown_log_is_refused_with_the_nearest(tmp_path, capsys):
    assert main(["pretrain", *TINY, "--log", "tensorbord", "--run", str(tmp_path / "run"), "--quiet"]) == 2
    assert "tensorboard" in capsys.readouterr().err


def test_a_sweep_logs_its_shared_stages(tmp_path):
    options = [*TINY[:6], "--pretrain-epochs", "1", "--record-epochs", "1", "--criterion", "magnitude"]
    options += ["--sparsity", "0.5,0.6", "--seeds", "1", "--log", "csv", "--run", str(tmp_path), "--quiet"]
    assert main(["sweep", *options]) == 0
    logged = {path.parent.name for path in RunPaths(tmp_path).sweep.root.rglob("steps.csv")}
    assert logged == {"pretrained", "recorded"}


class _Killed(BaseException):
    """Ends a training at a save, as a kill does."""


@functools.cache
def digits():
    return load_data(DataSpec(name="digits", validation_fraction=0.2))


PER_EPOCH = 5


def attempt(log, *, resume=None, stop_after=math.inf, dies=False, **options):
    """Train a small network for three epochs, or a part of them; returns what was saved last."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 10))
    if resume is not None:
        model.load_state_dict(resume.weights)
    saved, stop = [], StopRequest()

    def save(snapshot):
        if dies:
            raise _Killed
        saved.append(copy.deepcopy(snapshot))

    size = -(-len(digits().train) // PER_EPOCH)
    chosen = {"epochs": 3, "batch_size": size, "checkpoint_every": "1steps" if dies else "never", **options}
    try:
        train(
            model, digits(), TrainingOptions(**chosen), mask=Mask.all(ParameterIndex.from_model(model)),
            device=torch.device("cpu"), seed=0, resume=resume, save=save, stop=stop,
            reporter=StopAfter(stop, stop_after), description="train", log=log,
        )  # fmt: skip
    except (InterruptedStage, _Killed):
        assert stop_after < math.inf or dies
    else:
        assert stop_after == math.inf
        assert not dies
    return saved[-1] if saved else None


def opened(kind, folder):
    return functools.partial(LOGS.load(kind), folder)


def logged(folder):
    """What is in the log of a folder: CSV files, else scalars."""
    return {path.name: path.read_bytes() for path in folder.glob("*.csv")} or scalars(folder)


@pytest.mark.parametrize("kind", ["csv", "tensorboard"])
@pytest.mark.parametrize("stopped", [PER_EPOCH, 2 * PER_EPOCH, 7])
def test_an_epoch_is_logged_once_however_often_its_end_is_repeated(tmp_path, kind, stopped):
    """A stop at the last step of an epoch saves a state that the epoch's own row is behind."""
    if kind == "tensorboard":
        pytest.importorskip("tensorboard")
    attempt(opened(kind, tmp_path / "whole"))
    log = opened(kind, tmp_path / "resumed")
    state = attempt(log, stop_after=stopped)
    attempt(log, resume=copy.deepcopy(state), dies=True)
    attempt(log, resume=copy.deepcopy(state), dies=True)
    attempt(log, resume=state)
    assert logged(tmp_path / "resumed") == logged(tmp_path / "whole")


def test_a_log_that_is_switched_on_or_over_has_all_that_is_known(tmp_path):
    pytest.importorskip("tensorboard")
    attempt(opened("csv", tmp_path / "whole"))
    whole, stopped = logged(tmp_path / "whole"), 7
    steps = whole.pop("steps.csv").splitlines(keepends=True)
    for before, after in ((None, "csv"), ("tensorboard", "csv"), (None, "tensorboard"), ("csv", "tensorboard")):
        folder = tmp_path / f"{before} {after}"
        state = attempt(before and opened(before, folder), stop_after=stopped)
        attempt(opened(after, folder), resume=state)
        if after == "csv":
            expected = {**whole, "steps.csv": b"".join([steps[0], *steps[1 + stopped :]])}
            assert {path.name: path.read_bytes() for path in folder.iterdir()} == expected
        else:
            assert all("tfevents" in path.name for path in folder.iterdir())
            found = scalars(folder)
            assert [step for step, _ in found["epoch/validation"]] == [PER_EPOCH, 2 * PER_EPOCH, 3 * PER_EPOCH]
            assert [step for step, _ in found["loss"]] == list(range(stopped + 1, 3 * PER_EPOCH + 1))
            assert sum(name.startswith("sparsity/") for name in found) == whole["layers.csv"].count(b"\n") - 1


class _Noted(Log):
    """Keeps the rows."""

    def __init__(self):
        self.rows, self.closed = {STEPS: [], EPOCHS: [], LAYERS: []}, False

    def write(self, table, rows):
        self.rows[table] += rows

    def close(self):
        self.closed = True


def test_a_training_that_diverges_has_its_last_steps_in_the_log():
    log = _Noted()
    with pytest.raises(DataError, match="training loss"):
        attempt(lambda step: log, lr=1e18, clip_norm=0.0)
    assert [row["step"] for row in log.rows[STEPS]] == list(range(1, PER_EPOCH + 1))
    assert math.isfinite(log.rows[STEPS][0]["loss"])
    assert not math.isfinite(log.rows[STEPS][-1]["loss"])
    assert log.rows[EPOCHS] == []
    assert log.closed


def test_what_ended_a_training_is_said_though_the_log_cannot_be_closed():
    class Full(_Noted):
        def close(self):
            raise StorageError("cannot write")

    with pytest.raises(DataError, match="training loss"):
        attempt(lambda step: Full(), lr=1e18)
    with pytest.raises(StorageError):
        attempt(lambda step: Full())


@pytest.mark.parametrize(
    "content",
    ["step;epoch;loss\n1;1;0,5\n", "step,loss\n1,é\n", "step,loss\nJan 1,0.5\n", "loss\n", "step,loss\n1,\0\n\0"],
)
def test_a_log_that_another_program_saved_is_moved_aside_and_costs_nothing(tmp_path, content, caplog):
    encoded = content.encode("utf-16" if "\0" in content else "latin-1")
    (tmp_path / "steps.csv").write_bytes(encoded)
    log = CsvLog(tmp_path, 1)
    assert (tmp_path / "steps.csv.unread").read_bytes() == encoded
    assert "steps.csv.unread" in caplog.text
    log.write(STEPS, [{"step": 2, "loss": 0.25}])
    assert (tmp_path / "steps.csv").read_text() == "step,loss\n2,0.25\n"


def test_a_recording_that_is_only_repeated_keeps_its_log(tmp_path):
    common = ["--run", str(tmp_path), "--quiet"]
    assert main(["pretrain", *TINY, "--epochs", "1", *common]) == 0
    record = ["record", "--steps", "5", "--log", "csv", *common]
    assert main(record) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "logs/recorded").iterdir()}
    assert set(before) == {"steps.csv", "layers.csv"}
    assert len(lines(tmp_path / "logs/recorded/steps.csv")) == 5
    (tmp_path / "recorded.safetensors").unlink()
    assert main(record) == 0
    assert (tmp_path / "recorded.safetensors").exists()
    assert {path.name: path.read_bytes() for path in (tmp_path / "logs/recorded").iterdir()} == before
