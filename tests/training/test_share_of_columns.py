"""A recorder of a share of the columns records what the same loop has in them, and pruning by it touches no more."""

import numpy as np
import pytest
import torch
from torch import nn

import causalprune as cp
from causalprune.base.errors import UsageError
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex
from causalprune.training.recorder import Recorder
from causalprune.trajectory import Store
from causalprune.trajectory.columns.sample import ColumnSample


def network():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 4))


def loss_of(model, seed):
    # The same numbers where the losses of held steps are computed in float64.
    draw = {"generator": torch.Generator().manual_seed(seed), "dtype": torch.float32}
    return (model(torch.randn(8, 20, **draw)) - torch.randn(8, 4, **draw)).square().mean()


def record(model, path, rows=9, *, mask=None, **options):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recorder(model, optimizer, path, mask=mask, codec="exact", **options) as recorder:
        for seed in range(rows):
            loss = loss_of(model, seed)
            optimizer.zero_grad()
            loss.backward()
            recorder.step(loss, lambda seed=seed: loss_of(model, seed))
    return Store.open(path).recording()


@pytest.fixture(params=["plain", "held", "stride", "pruned"])
def way(request):
    options = {"hold": True} if request.param == "held" else {"stride": 3} if request.param == "stride" else {}
    if request.param == "pruned":
        index = ParameterIndex.from_model(network())
        options["mask"] = Mask.from_numpy(index, np.random.default_rng(0).random(index.total) < 0.6)
    return request.param, options


def test_its_columns_are_those_of_a_recording_of_all(tmp_path, way):
    kind, options = way
    models = network(), network()
    whole = record(models[0], tmp_path / "whole.zarr", **options)
    part = record(models[1], tmp_path / "part.zarr", columns=0.1, columns_seed=4, **options)
    expected = ColumnSample(0.1, 4).draw(whole.index, whole.active)
    assert np.array_equal(part.active, expected)
    columns = np.searchsorted(whole.column_index, part.column_index)
    rows, own = whole.read_rows(0, whole.num_rows)[:, columns], part.read_rows(0, part.num_rows)
    if kind != "held":
        assert np.array_equal(own, rows)
        assert np.array_equal(part.steps.to_matrix(), whole.steps.to_matrix())
        assert part.end_weights == whole.end_weights != ""
    else:
        # The gradient is the same, the step along it longer, because it moves less and lowers the loss as much.
        cosines = (own * rows).sum(1) / np.linalg.norm(own, axis=1) / np.linalg.norm(rows, axis=1)
        assert cosines == pytest.approx(1, abs=1e-6)
        first = part.steps.lr * part.steps.grad_norm**2
        assert first == pytest.approx(3e-4 * part.steps.loss_before, rel=1e-4)
    assert np.array_equal(part.kept, whole.kept)
    assert (part.verify(), part.untrained) == ([], ())


def test_a_share_of_some_layers(tmp_path):
    reader = record(network(), tmp_path / "t.zarr", columns=("2", 0.25))
    assert reader.info.left_out == ("0.weight",)
    assert reader.num_columns == 30
    assert np.array_equal(reader.kept, np.ones(720, bool))


def test_it_goes_on_where_it_was_left(tmp_path):
    record(network(), tmp_path / "whole.zarr", columns=0.3)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for first, last in ((0, 4), (4, 9)):
        place = Store.open(tmp_path / "t.zarr").resume_recording("000", rows=first) if first else tmp_path / "t.zarr"
        recorder = Recorder(model, optimizer, place, codec="exact", **({} if first else {"columns": 0.3}))
        for seed in range(first, last):
            loss = loss_of(model, seed)
            optimizer.zero_grad()
            loss.backward()
            recorder.step(loss, lambda seed=seed: loss_of(model, seed))
        recorder.close() if first else recorder.writer.close()
    digests = {Store.open(tmp_path / f"{name}.zarr").recording().digest for name in ("whole", "t")}
    assert len(digests) == 1


@pytest.mark.parametrize("options", [{"columns": 0.1}, {"columns": 0.3}, {"mask": 1}, {"columns": "2"}])
def test_other_columns_do_not_go_on(tmp_path, options):
    index = ParameterIndex.from_model(network())
    masks = [Mask.from_numpy(index, np.arange(index.total) % 2 == half) for half in range(2)]
    record(network(), tmp_path / "t.zarr", 4, mask=masks[0], columns=0.1, columns_seed=7)
    before = Store.open(tmp_path / "t.zarr").recording()
    with Store.open(tmp_path / "t.zarr").resume_recording("000", rows=3) as writer:
        options = options | {"mask": masks[options.get("mask", 0)]}
        with pytest.raises(UsageError, match=r"`columns` and `mask`: expected those of .*, found others; .*leave"):
            record(network(), writer, **options)
        recorder = Recorder(model := network(), torch.optim.SGD(model.parameters()), writer, mask=masks[0])
        assert recorder.writer.rows_appended == 3
    assert np.array_equal(Store.open(tmp_path / "t.zarr").recording().active, before.active)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (0.0, "a share above 0 and below 1, found 0.0"),
        (1.5, "a share above 0 and below 1, found 1.5"),
        ((0.1, 0.2), "at most one share"),
        (True, "at most one share"),
        (None, "at most one share, found .None"),
        (np.array(0.1 + 1j), "at most one share"),
    ],
)
def test_shares_that_mean_nothing(tmp_path, columns, words):
    with pytest.raises(UsageError, match=words):
        record(network(), tmp_path / "t.zarr", columns=columns)
    assert list(tmp_path.iterdir()) == []


def test_a_writer_says_itself_who_writes_which(tmp_path):
    record(network(), tmp_path / "t.zarr", 2)
    with (
        Store.open(tmp_path / "t.zarr").resume_recording("000", rows=2) as writer,
        pytest.raises(UsageError, match=r"`columns_by_rank`: expected the path of a new store, .*`partners`"),
    ):
        record(network(), writer, columns_by_rank=True)


@pytest.mark.parametrize("seed", [1.5, -1, "3", None])
def test_seeds_that_mean_nothing(tmp_path, seed):
    with pytest.raises(UsageError, match=f"`columns_seed`: expected a whole number of at least 0, found {seed}"):
        record(network(), tmp_path / "t.zarr", columns=0.1, columns_seed=seed)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("share", [np.float64(0.25), np.float32(0.25), np.array([0.25]), (np.float16(0.25),)])
def test_numbers_of_numpy_are_numbers(tmp_path, share):
    reader = record(network(), tmp_path / "t.zarr", 2, columns=share, columns_seed=np.int64(3))
    assert reader.info.sample == ColumnSample(0.25, 3)
    assert np.array_equal(reader.active, ColumnSample(0.25, 3).draw(reader.index, reader.kept))


@pytest.mark.parametrize("criterion", ["effect", "fisher", "chita"])
def test_pruning_touches_only_what_was_recorded(tmp_path, criterion, caplog):
    model = network()
    reader = record(model, tmp_path / "t.zarr", columns=0.4)
    fit = cp.fit(tmp_path / "t.zarr") if criterion == "effect" else None
    before = reader.index.flatten(model.state_dict()).clone()
    mask = cp.prune(model, tmp_path / "t.zarr", fit=fit, criterion=criterion, sparsity=0.35)
    after = reader.index.flatten(model.state_dict())
    unrecorded = torch.from_numpy(~reader.active)
    assert torch.equal(after[unrecorded], before[unrecorded])
    assert (mask.num_pruned, mask.keep[unrecorded].all()) == (252, True)
    assert "not recorded, left alone: 432 of 720 weights (60.00%)" in caplog.text


def test_what_was_pruned_before_stays_so_without_naming_the_mask(tmp_path):
    model = network()
    first = cp.prune(model, criterion="magnitude", sparsity=0.5)
    record(model, tmp_path / "t.zarr", columns=0.2, mask=first)
    mask = cp.prune(model, tmp_path / "t.zarr", criterion="fisher", sparsity=0.55)
    assert mask.num_pruned == 396
    assert not (mask.keep & ~first.keep).any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"granularity": "neuron", "inputs": torch.zeros(2, 20)}, "`granularity=neuron`: expected single weights"),
        ({"pattern": "1:2", "sparsity": None}, "`pattern=1:2`: expected single weights"),
        ({"sparsity": 0.3}, r"at most 20.00%, because only 144 of the 720 weights are recorded"),
    ],
)
def test_what_a_share_can_not_decide(tmp_path, options, words):
    model = network()
    record(model, tmp_path / "t.zarr", columns=0.2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UsageError, match=words):
        cp.prune(model, tmp_path / "t.zarr", criterion="fisher", **{"sparsity": 0.1, **options})
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    # What doesn't read the recording prunes as ever.
    assert cp.prune(model, criterion="magnitude", sparsity=0.8).num_pruned == 576
