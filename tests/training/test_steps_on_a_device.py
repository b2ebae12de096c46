"""A recorded step on a device waits for nothing: the rows, what is checked, and when an error comes.

Where there is no GPU, the CPU stands in: its tensors are taken for those of a device, and reading a value within a step
is forbidden.
"""

import math
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from causalprune.base.compute.precision import full_precision
from causalprune.base.errors import DataError, UsageError
from causalprune.base.specs import DataSpec
from causalprune.data.augmentation import CropFlip
from causalprune.data.batches import Batches
from causalprune.data.datasets import load_data
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex
from causalprune.training import metrics, optimizer_groups, step_losses, weight_deltas
from causalprune.training.metrics import evaluate_model
from causalprune.training.recorder import Recorder
from causalprune.trajectory import Store, row_block
from causalprune.trajectory import writer as writer_module
from causalprune.trajectory.schema import BlockShape

BATCH, ROWS = 8, 11

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


class NothingRead(TorchDispatchMode):
    """Forbids what brings a value of a tensor to the program."""

    READS = ("_local_scalar_dense", "equal", "is_nonzero", "item", "nonzero", "bincount")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        # The state of a generator is on the CPU, whatever the device.
        assert name not in self.READS or args[0].dtype == torch.uint8, f"a step waits for the device: {name}"
        return function(*args, **(kwargs or {}))


@contextmanager
def nothing_read(device):
    """Within the body, reading a value, or on a GPU anything that waits for it, is an error."""
    if device.type == "cpu":
        with NothingRead():
            yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


VALUES = (step_losses, optimizer_groups)
MODULES = (*VALUES, row_block, weight_deltas, writer_module)


@pytest.fixture(params=DEVICES)
def device(request, monkeypatch):
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("no GPU")
        monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
        with full_precision():
            yield torch.device("cuda")
        return
    for module in MODULES:
        monkeypatch.setattr(module, "on_device", lambda value: isinstance(value, torch.Tensor))
    monkeypatch.setattr(row_block, "_page_locked", lambda shape, dtype: torch.empty(shape, dtype=dtype))
    yield torch.device("cpu")


def network(device):
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(48, 3)
    return nn.Sequential(*layers).to(device)


def grouped(model):
    return [{"params": model[0].parameters(), "lr": 0.02}, {"params": [*model[1].parameters(), *model[5].parameters()]}]


def minibatches(device, count=ROWS):
    generator = torch.Generator().manual_seed(1)
    drawn = [(torch.randn(BATCH, 1, 6, 6, generator=generator), torch.arange(BATCH) % 3) for _ in range(count)]
    return [(inputs.to(device), targets.to(device)) for inputs, targets in drawn]


def loss_of(model, inputs, targets, factor=1.0):
    return functional.cross_entropy(model(inputs), targets) * factor


def record(path, device, *, begun=0, factors=None, between=None, store=None, free=True, groups=False, **options):
    """Record plain SGD; after the first step, and if ``free``, nothing may be read within a step."""
    model, batches = network(device), minibatches(device)
    optimizer = torch.optim.SGD(grouped(model) if groups else model.parameters(), lr=0.05)
    with Recorder(model, optimizer, store or path, max_rows=ROWS, codec="exact", **options) as recorder:
        for number in range(begun, ROWS):
            inputs, targets = batches[number]
            factor = (factors or {}).get(number, 1.0)
            loss = loss_of(model, inputs, targets, factor)
            optimizer.zero_grad()
            loss.backward()
            measure = None
            if options.get("loss_change") != "next-batch":
                measure = lambda x=inputs, y=targets, f=factor: loss_of(model, x, y, f)  # noqa: E731
            if number > begun and free:
                with nothing_read(device):
                    recorder.step(loss, measure, batch=number)
            else:
                recorder.step(loss, measure, batch=number)
            if between is not None:
                between(number, model, recorder)
        if options.get("loss_change") == "next-batch":
            recorder.complete(lambda: loss_of(model, *batches[0]))
    return Store.open(path).recording()


def pruned(device):
    index = ParameterIndex.from_model(network(device))
    return Mask(index, torch.arange(index.total) % 4 > 0)


OPTIONS = {
    "plain": {},
    "groups": {"groups": True},
    "stride": {"stride": 2},
    "mask": {},
    "next batch": {"loss_change": "next-batch"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_rows_are_those_of_a_recording_that_reads_each_value_at_once(tmp_path, device, monkeypatch, name):
    options = OPTIONS[name]
    if options.get("loss_change") == "next-batch":
        monkeypatch.setattr(nn.Dropout, "forward", lambda _, x: x)
    if name == "mask":
        options = {"mask": pruned(device)}
    late = record(tmp_path / "late", device, **options)
    with monkeypatch.context() as patch:
        # Rows of a GPU are copied by the writer all the same.
        for module in MODULES if device.type == "cpu" else VALUES:
            patch.setattr(module, "on_device", lambda value: False)
        at_once = record(tmp_path / "at once", device, free=False, **options)
    assert late.num_rows == at_once.num_rows == ROWS // options.get("stride", 1)
    assert np.array_equal(late.read_rows(0, late.num_rows), at_once.read_rows(0, late.num_rows))
    assert np.array_equal(late.steps.to_matrix(), at_once.steps.to_matrix())


def test_a_loss_that_is_not_finite_is_found_before_its_block_is_committed(tmp_path, device):
    """16 rows a block: the fourth row is named at the end, and no row of its block is there."""
    with pytest.raises(DataError, match="loss_before of row 3: expected a finite number, found nan"):
        record(tmp_path / "t.zarr", device, factors={3: math.nan})
    store = Store.open(tmp_path / "t.zarr")
    reader = store.recording()
    assert (reader.num_rows, reader.finished) == (0, False)
    assert store.verify() == []


def test_blocks_before_the_loss_that_is_not_finite_stay(tmp_path, device, monkeypatch):
    two_rows = classmethod(lambda cls, columns, *_: cls(columns, 2, columns))
    monkeypatch.setattr(BlockShape, "choose", two_rows)
    good = record(tmp_path / "good", device)
    with pytest.raises(DataError, match="loss_before of row 7"):
        record(tmp_path / "bad", device, factors={7: math.inf})
    reader = Store.open(tmp_path / "bad").recording()
    assert reader.num_rows == 6
    assert np.array_equal(reader.read_rows(0, 6), good.read_rows(0, 6))


@pytest.mark.parametrize("hidden", [False, True])
def test_weights_that_something_else_changed_are_found_before_the_block_is_committed(tmp_path, device, hidden):
    """Also where PyTorch counts no change, which is compared in rows 1, 2, 4, 8."""

    def change(number, model, recorder):
        if number == 3:
            weight = model[0].weight
            with torch.no_grad():
                (weight.data if hidden else weight).add_(1.0)

    with pytest.raises(UsageError, match="weights: expected those after the last recorded step"):
        record(tmp_path / "t.zarr", device, between=change)
    assert Store.open(tmp_path / "t.zarr").recording().num_rows == 0


def test_a_row_that_waits_for_its_loss_is_saved_as_numbers(tmp_path, device, monkeypatch):
    saved = {}

    def save(number, model, recorder):
        if number == 4:
            saved["tensors"], saved["state"] = recorder.pending()

    monkeypatch.setattr(nn.Dropout, "forward", lambda _, x: x)
    reader = record(tmp_path / "t.zarr", device, between=save, loss_change="next-batch")
    types = {name: type(value) for name, value in saved["state"].items()}
    assert types == {"loss_before": float, "lr": float, "epoch": int, "batch": int, "grad_norm": float, "steps": int}
    assert saved["state"]["loss_before"] == reader.steps.loss_before[4]
    assert saved["state"]["grad_norm"] == reader.steps.grad_norm[4]
    assert np.array_equal(saved["tensors"]["pending/delta"].numpy(), reader.read_rows(4, 5)[0])


def test_after_a_resume_rows_are_copied_into_page_locked_memory(tmp_path, device, monkeypatch):
    """The rows of the last shard are read back before anybody knows what the deltas come from."""
    blocks, real = [], row_block.RowBlock.put_delta

    def put_delta(block, delta):
        blocks.append(block)
        real(block, delta)

    monkeypatch.setattr(row_block.RowBlock, "put_delta", put_delta)
    whole = record(tmp_path / "t.zarr", device)
    store = Store.open(tmp_path / "t.zarr")
    writer = store.resume_recording("000", rows=5)
    record(tmp_path / "t.zarr", device, begun=5, store=writer)
    assert len(blocks) == ROWS + ROWS - 5
    assert all(block._pinned for block in blocks)
    if device.type == "cuda":
        assert all(block._tensors[0].is_pinned() and block._tensors[1].is_pinned() for block in blocks)
    again = Store.open(tmp_path / "t.zarr").recording()
    assert again.num_rows == ROWS
    assert np.array_equal(again.read_rows(0, 5), whole.read_rows(0, 5))
    assert np.array_equal(again.steps.loss_after[:5], whole.steps.loss_after[:5])
    assert store.verify() == []


def images(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        f"{kind}_{name}": value
        for name, count in (("train", 90), ("test", 41))
        for kind, value in (
            ("x", rng.integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)),
            ("y", np.arange(count) % 3),
        )
    }
    np.savez(tmp_path / "d.npz", **arrays)
    return load_data(DataSpec(name=f"npz:{tmp_path / 'd.npz'}"))


def test_augmented_batches_and_their_sums_are_made_without_a_read(tmp_path, device, monkeypatch):
    """Except for the one at the end of an evaluation, for all sums together."""
    data = images(tmp_path)
    batches = Batches(data, "train", batch_size=16, device=device, seed=3, augment="crop-flip")
    walk = batches.epoch(2)
    # The first batch copies the split and the order of the epoch to the device.
    got = [next(walk)]
    with nothing_read(device):
        got += list(walk)
    host = list(Batches(data, "train", batch_size=16, device="cpu", seed=3, augment="crop-flip").epoch(2))
    for (inputs, targets), (expected, labels) in zip(got, host, strict=True):
        assert torch.equal(targets.cpu(), labels)
        torch.testing.assert_close(inputs.cpu(), expected, rtol=1e-6, atol=1e-6)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).to(device)
    expected = evaluate_model(model, data, "test", batch_size=16, device=device)
    real, passes = nn.Sequential.forward, []

    def forward(self, inputs):
        if not passes:
            passes.append(nothing_read(device))
            passes[0].__enter__()
        return real(self, inputs)

    summed = metrics._summed

    def sum_up(*args):
        if passes and passes[0] is not None:
            passes[0].__exit__(None, None, None)
            passes[0] = None
        return summed(*args)

    monkeypatch.setattr(nn.Sequential, "forward", forward)
    monkeypatch.setattr(metrics, "_summed", sum_up)
    assert evaluate_model(model, data, "test", batch_size=16, device=device) == expected
    assert passes == [None]


def test_crops_and_flips_are_those_of_an_index_made_on_the_cpu(device):
    inputs = torch.arange(5 * 2 * 6 * 4).view(5, 2, 6, 4)
    drawn = CropFlip.draw("crop-flip", 5, (6, 4), torch.Generator().manual_seed(2))
    padded = functional.pad(inputs, (1, 1, 1, 1))
    for number, (top, left, flip) in enumerate(zip(drawn.top, drawn.left, drawn.flip, strict=True)):
        window = padded[number, :, top : top + 6, left : left + 4]
        expected = window.flip(2) if flip else window
        assert torch.equal(drawn(inputs.to(device)).cpu()[number], expected)
        assert torch.equal(drawn[number : number + 1](inputs[number : number + 1].to(device)).cpu()[0], expected)
