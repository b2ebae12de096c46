"""The weights of recorded gradients, and that they make the Hessian what it is."""

import numpy as np
import pytest
import torch

from causalprune.pruning.gradients import GradientMatrix, MeasuredCurvature, measured_curvature
from causalprune.pruning.surgery.curvature import LEAST, row_weights
from causalprune.training.recorder import Recorder
from causalprune.trajectory import Store


def gradients_with(values, noisy):
    curvature = MeasuredCurvature(np.array(values, float), np.array(noisy))
    matrix = GradientMatrix.from_array(np.ones((len(values), 3)))
    return GradientMatrix(len(values), matrix.columns, matrix.read, curvature)


def test_measured_curvature_counts_up_to_the_largest_that_is_sound() -> None:
    found = row_weights(gradients_with([2.0, 90.0, -3.0, 0.5, 8.0], [False, True, False, False, False]))
    assert found.remark == ""
    mean = (2.0 + 8.0 + 0.0 + 0.5 + 8.0) / 5
    assert found.values.tolist() == [2.0, 8.0, LEAST * mean, 0.5, 8.0]


@pytest.mark.parametrize(
    ("values", "noisy", "said"),
    [
        ([1.0, 2.0, 3.0, 0.0], [True, True, False, True], "67% of the rows are flagged"),
        ([-1.0, -2.0, 3.0], [False, False, True], "no row has curvature above 0"),
    ],
)
def test_without_measured_curvature_all_rows_count_alike(values, noisy, said: str) -> None:
    found = row_weights(gradients_with(values, noisy))
    assert found.values.tolist() == [1.0] * len(values)
    assert said in found.remark


def test_a_recording_that_does_not_hold() -> None:
    found = row_weights(GradientMatrix.from_array(np.ones((4, 3))))
    assert found.values.tolist() == [1.0] * 4
    assert "doesn't hold" in found.remark


def test_of_two_classes_it_makes_the_hessian_by_autograd(tmp_path) -> None:
    """Logistic regression on single samples: Σ d_t·g_t g_tᵀ is the Hessian of Σ loss, all d_t = 1 far from it."""
    torch.manual_seed(0)
    model = torch.nn.Linear(6, 1, bias=False)
    x, y = torch.randn(40, 6), (torch.rand(40, 1) < 0.5).float()
    loss_of = torch.nn.BCEWithLogitsLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recorder(model, optimizer, tmp_path / "held.zarr", hold=True) as recorder:
        for one, label in zip(x.split(1), y.split(1), strict=True):
            loss = loss_of(model(one).double(), label.double())
            optimizer.zero_grad()
            loss.backward()
            recorder.step(loss, lambda one=one, label=label: loss_of(model(one).double(), label.double()))
    reader = Store.open(tmp_path / "held.zarr").recording()
    found = GradientMatrix.from_deltas(
        lambda chosen: reader.column_blocks(columns=chosen),
        reader.learning_rates,
        reader.column_index,
        max_rows=40,
        max_bytes=2**20,
        curvature=measured_curvature(reader.steps, reader.precision),
    )
    matrix = np.concatenate([block for _, block in found.read(None)], 1).astype(float)

    def total(weight):
        return loss_of(x.double() @ weight.T, y.double()) * len(x)

    hessian = torch.autograd.functional.hessian(total, model.weight.detach().double()).reshape(6, 6).numpy()
    assert (matrix.T * row_weights(found).values) @ matrix == pytest.approx(hessian, rel=1e-3, abs=1e-3)
    assert np.abs(matrix.T @ matrix - hessian).max() > 0.5
