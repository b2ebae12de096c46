"""Attention, recurrent layers, GPT-2's Conv1D and named parameters are recorded as autograd has them."""

import logging

import pytest
import torch
from layers_of_others import TinyGPT2
from torch import nn

import causalprune as cp
from causalprune.base.errors import UsageError
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex
from causalprune.trajectory import Store


class Attends(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True, **options)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        key, value = (nn.functional.pad(x, (0, width - 4)) for width in (self.attention.kdim, self.attention.vdim))
        mixed, _ = self.attention(x, x if key.shape == x.shape else key, x if value.shape == x.shape else value)
        return self.head(mixed.mean(1))


class Recurs(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.layer = kind(4, 6, batch_first=True, **options)
        self.head = nn.LazyLinear(3)

    def forward(self, x):
        return self.head(self.layer(x)[0][:, -1])


def gpt():
    model = TinyGPT2()
    return model, torch.randint(0, 11, (8, 6))


def sequences(model):
    x = torch.randn(8, 5, 4)
    model(x)
    return model, x


NETWORKS = {
    "attention": lambda: sequences(Attends()),
    "attention of other widths": lambda: sequences(Attends(kdim=3, vdim=5)),
    "lstm": lambda: sequences(Recurs(nn.LSTM, num_layers=2, bidirectional=True, proj_size=3)),
    "gru": lambda: sequences(Recurs(nn.GRU)),
    "gpt2": gpt,
}


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("name", NETWORKS)
def test_a_row_is_the_gradient_of_every_matrix(name, tmp_path):
    torch.manual_seed(0)
    model, x = NETWORKS[name]()
    prune = ("wpe",) if name == "gpt2" else ()
    matrices = {n for n, p in model.named_parameters() if p.dim() > 1} - {"wte.weight"}
    matrices |= {"head.weight"}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    expected = []
    with cp.Recorder(model, optimizer, tmp_path / "t.zarr", codec="exact", prune=prune) as recorder:
        for _ in range(4):
            loss = model(x).square().mean()
            optimizer.zero_grad()
            loss.backward()
            before = {n: p.detach().clone() for n, p in model.named_parameters()}
            gradients = {n: p.grad.clone() for n, p in model.named_parameters()}
            recorder.step(loss, lambda: model(x).square().mean())
            expected.append((before, gradients))
    store = Store.open(tmp_path / "t.zarr")
    index, rows = store.index, torch.tensor(store.recording().read_rows(0, 4))
    if name == "gpt2":
        expected = [tuple({**part, "head.weight": part["wte.weight"]} for part in pair) for pair in expected]
    assert {entry.name for entry in index} == matrices
    for row, (before, gradients) in zip(rows, expected, strict=True):
        for n, delta in index.split(row).items():
            assert torch.equal(delta, before[n].clone().add_(gradients[n], alpha=-0.05) - before[n])


@pytest.mark.parametrize("name", ["attention", "lstm", "gpt2"])
def test_held_weights_stay_and_are_pruned_and_held(name, tmp_path):
    torch.manual_seed(0)
    model, x = NETWORKS[name]()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with cp.Recorder(model, optimizer, tmp_path / "t.zarr", hold=True) as recorder:
        for _ in range(12):
            part = x[torch.randperm(8)[:4]]
            loss = model(part).square().mean()
            optimizer.zero_grad()
            loss.backward()
            recorder.step(loss, lambda part=part: model(part).square().mean())
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    mask = cp.prune(model, tmp_path / "t.zarr", sparsity=0.7, criterion="fisher")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    mask.hold(optimizer)
    for _ in range(2):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    for n, keep in mask.tensors().items():
        assert (model.get_parameter(n)[~keep] == 0).all()
        assert (model.get_parameter(n)[keep] != before.get(n, before.get("wte.weight"))[keep]).any()


def test_what_is_not_recorded_is_said_once(tmp_path, caplog):
    caplog.set_level(logging.INFO, "causalprune")
    model, _ = gpt()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = cp.Recorder(model, optimizer, tmp_path / "t.zarr")
    recorder.writer.abort()
    said = [record for record in caplog.records if "not recorded and not prunable" in record.getMessage()]
    assert [record.levelno for record in said] == [logging.WARNING]
    assert "1 other tensor (wpe), 2 normalization tensors, 4 bias vectors, " in caplog.text
    assert "13.7% of 992 parameters; `prune` names more" in caplog.text
    caplog.clear()
    plain = nn.Linear(4, 2)
    recorder = cp.Recorder(plain, torch.optim.SGD(plain.parameters(), lr=0.1), tmp_path / "p.zarr")
    recorder.writer.abort()
    said = [record for record in caplog.records if "not recorded and not prunable" in record.getMessage()]
    # Biases are no news.
    assert [record.levelno for record in said] == [logging.INFO]


def test_a_pattern_of_nothing_leaves_no_store(tmp_path):
    model, _ = gpt()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(UsageError, match=r"`prune`: expected a pattern that matches a parameter"):
        cp.Recorder(model, optimizer, tmp_path / "t.zarr", prune="positions")
    assert not (tmp_path / "t.zarr").exists()


def test_a_compiled_or_wrapped_network_has_the_same_columns():
    model, _ = gpt()
    plain = ParameterIndex.from_model(model, "wpe")
    assert ParameterIndex.from_model(torch.nn.DataParallel(model), "wpe") == plain
    wrapped = nn.Sequential(model)
    wrapped[0] = nn.DataParallel(model)
    assert [e.name for e in ParameterIndex.from_model(wrapped, "*wpe")] == [f"0.{e.name}" for e in plain]


def test_a_mask_of_an_earlier_version_says_what_it_lacks(tmp_path, caplog):
    model, _ = NETWORKS["lstm"]()
    index = ParameterIndex.from_model(model)
    mask = Mask.all(index.only([entry.name for entry in index if entry.kind == "layer"]))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    cp.Recorder(model, optimizer, tmp_path / "t.zarr", mask=mask).writer.abort()
    said = [record.getMessage() for record in caplog.records if "earlier version" in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("left alone, because the mask is of an earlier version and doesn't list them: ")
    assert "layer.weight_ih_l0, layer.weight_hh_l0, " in said[0]


def test_an_adaptive_optimizer_moves_no_bias_of_a_unit_without_weights(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    mask = Mask.all(ParameterIndex.from_model(model))
    mask.tensors()["0.weight"][1] = False
    before = model[0].bias.detach().clone()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    x = torch.randn(16, 3)
    with cp.Recorder(model, optimizer, tmp_path / "t.zarr", mask=mask) as recorder:
        for _ in range(3):
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            recorder.step(loss, lambda: model(x).square().mean())
    assert model[0].bias[1] == before[1]
    assert (model[0].bias != before).sum() == 3
