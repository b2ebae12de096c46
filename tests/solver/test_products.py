"""The error bounds that the certificate rests on, against float64."""

import numpy as np
import pytest
import torch

from causalprune.solver.products import (
    DeviceProducts,
    HostProducts,
    Request,
    column_norms,
    correlation_error,
)


@pytest.mark.parametrize("rows", [3, 64, 65, 700])
@pytest.mark.parametrize("products", [HostProducts(), DeviceProducts("cpu")], ids=["numpy", "torch"])
def test_correlations_are_within_their_bound(rows, products):
    rng = np.random.default_rng(rows)
    # Cancellation and eighty decades: the worst that float32 sums can meet.
    block = (rng.normal(size=(rows, 300)) * 10.0 ** rng.uniform(-12, 2, 300)).astype(np.float32)
    vectors = rng.normal(size=(5, rows))
    vectors[0, ::2] = -vectors[0, 1::2][: len(vectors[0, ::2])] if rows % 2 == 0 else vectors[0, ::2]
    (found,) = products.correlate(block, [Request(10, 290, vectors.astype(np.float32))])
    wide = block[:, 10:290].astype(np.float64)
    allowed = correlation_error(rows) * np.linalg.norm(vectors, axis=1)[:, None] * np.linalg.norm(wide, axis=0)
    assert (np.abs(found - vectors @ wide) <= allowed).all()


@pytest.mark.parametrize("size", [1e-44, 1e-30, 1e-12, 1.0, 1e15, 1e37])
def test_norms_are_those_of_float64_at_any_size(size):
    rng = np.random.default_rng(0)
    block = (rng.normal(size=(200, 50)) ** 2 * size * 10.0 ** rng.uniform(-8, 0, 50)).astype(np.float32)
    block[:, 7] = 0
    truth = np.linalg.norm(block.astype(np.float64), axis=0)
    found = column_norms(block)
    assert found[7] == 0
    np.testing.assert_allclose(found, truth, rtol=1e-14)


def test_products_leave_the_switches_of_pytorch_alone():
    torch.set_float32_matmul_precision("high")
    try:
        products, vectors = DeviceProducts("cpu"), np.ones((1, 3), np.float32)
        products.correlate(np.ones((3, 4), np.float32), [Request(0, 4, vectors)])
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")
