"""``fit-gamma --normalize column`` solves what its documents say, for columns of very different norms, too."""

import warnings

import numpy as np
import pytest
import torch
import zarr
from sklearn.linear_model import Lasso
from torch import nn

from causalprune.training.recorder import Recorder


@pytest.fixture
def store(folder):
    """A recording of a network half of whose inputs are scaled by 1e-4."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 2))
    scale = torch.ones(20)
    scale[:10] = 1e-4
    with torch.no_grad():
        model[0].weight[:, :10] = 0
    data = [(torch.randn(32, 20) * scale, torch.randint(2, (32,))) for _ in range(40)]
    optimizer, criterion = torch.optim.SGD(model.parameters(), lr=0.05), nn.CrossEntropyLoss()
    with Recorder(model, optimizer, "t.zarr", max_rows=40, codec="exact") as recorder:
        for x, y in data:
            loss = criterion(model(x).double(), y)
            optimizer.zero_grad()
            loss.backward()
            recorder.step(loss, lambda x=x, y=y: criterion(model(x).double(), y))
    return "t.zarr"


def test_the_fit_is_the_optimum_that_the_documents_state(causalprune, store):
    options = ["--normalize", "column", "--alpha-ratio", "0.1", "--tol", "1e-9", "--json", "-q"]
    evidence = causalprune("fit-gamma", "--store", store, *options).metrics["evidence"]
    recording = zarr.open_group(store, mode="r")["recordings/000"]
    gamma = recording["fits/default/gamma"][:].ravel()
    squares = recording["delta"][:].astype(float) ** 2
    before, after = recording["steps"][:][:2]
    change, alpha = after - before, evidence["alpha"]
    norm = np.linalg.norm(squares, axis=0)

    def objective(weights):
        squared = ((change - squares @ weights) ** 2).sum() / 2 / len(change)
        return squared + alpha * np.abs(weights * norm).sum()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = Lasso(alpha=alpha, fit_intercept=False, max_iter=10**6, tol=1e-14).fit(squares / norm, change)
    assert evidence["certified"]
    assert evidence["objective"] == pytest.approx(objective(gamma), rel=1e-9)
    assert objective(gamma) <= objective(peer.coef_ / norm) + 1e-9 * (change @ change) / 2 / len(change)
