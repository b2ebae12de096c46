"""What a recording is said to mean, against what optimizers do to a quadratic whose curvature is known."""

import numpy as np
import pytest
import torch

from causalprune.training.recorder import Recorder
from causalprune.trajectory import Store
from causalprune.trajectory.steps import UpdateRule

LR = 0.05
CURVATURE = torch.tensor([[1.0, 4.0, 9.0, 2.0]])
SGD, ADAM, ADAMW = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW


def record(path, make=SGD, settings=None, *, rows=12, rates=(LR,), **options):
    """Steps on ½Σ h θ² plus a constant of the minibatch; returns the recording and −η·g of each row's first step."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1, bias=False)
    torch.nn.init.ones_(model.weight)
    optimizer = make(model.parameters(), lr=LR, **(settings or {}))
    stride, expected = options.get("stride", 1), []
    with Recorder(model, optimizer, path, max_rows=rows, codec="exact", **options) as recorder:
        for step in range(rows * stride):
            optimizer.param_groups[0]["lr"] = rate = rates[step % len(rates)]
            constant = torch.randn(())

            def loss(constant=constant):
                return 0.5 * (CURVATURE * model.weight**2).sum() + constant

            before = loss()
            optimizer.zero_grad()
            before.backward()
            expected.append(-rate * model.weight.grad.flatten().numpy())
            recorder.step(before, loss)
        recorder.complete(0.0)
    return Store.open(path).recording(), np.array(expected[::stride])


@pytest.mark.parametrize(
    ("make", "settings", "options", "said"),
    [
        (SGD, {}, {}, ""),
        (SGD, {}, {"loss_change": "next-batch"}, ""),
        (SGD, {}, {"rates": (LR, LR / 2)}, ""),
        (SGD, {"momentum": 0.9}, {}, "momentum 0.9"),
        (SGD, {"momentum": 0.9, "nesterov": True}, {}, "momentum 0.9 (Nesterov)"),
        (SGD, {"weight_decay": 0.1}, {}, "weight decay 0.1"),
        (SGD, {"maximize": True}, {}, "steps that ascend"),
        (SGD, {}, {"stride": 2}, "stride 2"),
        (ADAM, {}, {}, "optimizer adam"),
        (ADAMW, {"weight_decay": 0.1}, {}, "optimizer adamw, weight decay 0.1"),
    ],
    ids=str,
)
def test_gradients_can_be_read_where_nothing_is_said_against_it(tmp_path, make, settings, options, said):
    reader, expected = record(tmp_path / "t.zarr", make, settings, **options)
    assert reader.info.update_rule.against_gradients() == said
    delta = reader.read_columns(0, 4)
    assert np.allclose(delta, expected, rtol=1e-3, atol=1e-6) == (said == "")


@pytest.mark.parametrize(
    ("make", "settings", "options", "said"),
    [
        (SGD, {}, {}, ""),
        (SGD, {}, {"loss_change": "next-batch"}, "next-batch losses"),
        (SGD, {}, {"rates": (LR, LR / 2)}, "learning rates from 0.025 to 0.05"),
        (SGD, {"momentum": 0.9}, {}, "momentum 0.9"),
        (SGD, {"weight_decay": 0.1}, {}, "weight decay 0.1"),
        (SGD, {"maximize": True}, {"rows": 6}, "steps that ascend"),
        (SGD, {}, {"stride": 2}, "stride 2"),
        (ADAM, {"weight_decay": 0.1}, {}, "optimizer adam, weight decay 0.1"),
    ],
    ids=str,
)
def test_gamma_has_the_curvature_in_it_where_nothing_is_said_against_it(tmp_path, make, settings, options, said):
    reader, _ = record(tmp_path / "t.zarr", make, settings, **options)
    assert reader.info.update_rule.against_curvature(reader.steps.lr.tolist()) == said
    squares = reader.read_columns(0, 4).astype(np.float64) ** 2
    gamma = np.linalg.lstsq(squares, reader.loss_change, rcond=None)[0]
    assert np.allclose(2 * (gamma + 1 / LR), CURVATURE.numpy(), rtol=0.01, atol=0.01) == (said == "")


def test_lags_leave_no_curvature_and_are_not_told_twice():
    assert UpdateRule().against_curvature(lags=True) == "lags"
    assert UpdateRule(momentum=0.5, stride=3).against_curvature(lags=True) == "momentum 0.5, stride 3"
