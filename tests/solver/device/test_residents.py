"""Columns on a device are bit by bit those that the CPU reads, in every form."""

import numpy as np
import pytest
import torch
from test_fit_of_a_store import record, steps

from causalprune.base.errors import DataError
from causalprune.solver.device import residents
from causalprune.solver.device.passes import DevicePasses
from causalprune.solver.device.residents import FloatColumns, PackedDeltas, form_that_fits
from causalprune.solver.exact_fit import fit_exactly
from causalprune.solver.features import FeatureSource
from causalprune.solver.problem import LassoProblem, SolverOptions
from causalprune.solver.source import ArraySource, Deltas
from causalprune.solver.working_set import MemoryPlan
from causalprune.trajectory import Store


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    return torch.device(request.param)


def source_of(path, codec, lags):
    deltas, change = steps(columns=500)
    # Signs, zeros of both signs, squares that are denormal or 0, and the largest whose square is finite.
    deltas[:, 7], deltas[3, 8], deltas[4, 8] = -deltas[:, 7], 0.0, -0.0
    deltas[:, 9] *= np.float32(1e-16)
    deltas[:, 10] *= np.float32(1e-30)
    deltas[5, 11] = 1.8e19
    store = record(path, deltas, change, codec=codec)
    return FeatureSource(Store.open(store).recording(), lags=lags, prefetch=1)


@pytest.mark.parametrize("lags", [0, 1])
@pytest.mark.parametrize(("codec", "size"), [("small", 2), ("balanced", 3), ("exact", 4)])
def test_each_form_holds_the_columns_of_the_store(tmp_path, codec, size, lags, device):
    source = source_of(tmp_path / "s.zarr", codec, lags)
    truth = source.read(0, source.num_columns).T

    def bits(values):
        return np.ascontiguousarray(values).view(np.uint32)

    counted = []
    whole = FloatColumns(source, device, width=130, ahead=1, arrived=counted.append)
    packed = PackedDeltas(source.deltas, device, width=130, arrived=counted.append)
    assert sum(counted) == 2 * source.num_columns
    assert packed._planes.nbytes == size * 500 * 40
    chosen = np.random.default_rng(0).permutation(source.num_columns)[:60]
    for columns in (whole, packed):
        assert (columns.num_rows, columns.num_columns) == (source.num_rows, source.num_columns)
        for start, stop in ((0, source.num_columns), (7, 8), (11, 31), (200, 200)):
            found = columns.slab(start, stop).cpu().numpy()
            np.testing.assert_array_equal(
                found.view(np.uint32), np.ascontiguousarray(truth[start:stop]).view(np.uint32)
            )
        found = columns.gather(torch.from_numpy(chosen).to(device)).cpu().numpy()
        np.testing.assert_array_equal(found, truth[chosen])


@pytest.mark.parametrize("lags", [0, 1])
def test_a_fit_to_packed_deltas_is_the_same_bytes(tmp_path, monkeypatch, lags):
    deltas, change = steps(columns=500)
    store = record(tmp_path / "s.zarr", deltas, change, codec="small")
    found, forms, load = [], [], DevicePasses._load

    def noted(self, form, device):
        forms.append(form)
        return load(self, form, device)

    monkeypatch.setattr(DevicePasses, "_load", noted)
    for room in (float("inf"), residents.WORKSPACE + 500 * 40 * 4 + 3 * 500 * 48):
        monkeypatch.setattr("causalprune.solver.device.passes.free_bytes", lambda _, room=room: room / 0.95)
        source = FeatureSource(Store.open(store).recording(), lags=lags)
        problem = LassoProblem(num_alphas=4, normalize="column")
        found.append(fit_exactly(source, problem, SolverOptions(resident=True)))
        assert source.bytes_read == bytes_of_a_pass(store)
    assert forms == (["float32", "packed"] if lags else ["float32", "float32"])
    np.testing.assert_array_equal(found[0].gamma, found[1].gamma)
    np.testing.assert_array_equal(found[0].dual_correlation, found[1].dual_correlation)


def bytes_of_a_pass(store):
    source = FeatureSource(Store.open(store).recording())
    for _ in source.blocks():
        pass
    return source.bytes_read


def test_what_fits_is_float32_then_packed_then_nothing(tmp_path):
    deltas, change = steps(columns=500)
    small = FeatureSource(Store.open(record(tmp_path / "s", deltas, change, codec="small")).recording(), lags=1)
    overhead = residents.WORKSPACE + 48 * 1500
    forms = [form_that_fits(small, (overhead + n) / 0.95) for n in (4 * 39 * 1500 + 1, 4 * 39 * 1500 - 99)]
    assert forms == ["float32", "packed"]
    assert form_that_fits(small, (overhead + 2 * 40 * 500 - 99) / 0.95) is None
    squares = ArraySource(np.ones((39, 1500), np.float32), np.arange(39.0))
    assert form_that_fits(squares, (overhead + 4 * 39 * 1500 - 99) / 0.95) is None


def test_sums_over_groups_have_no_deltas(tmp_path):
    deltas, change = steps(columns=60)
    reader = Store.open(record(tmp_path / "s", deltas, change)).recording()
    assert FeatureSource(reader, groups=np.arange(60) // 10).deltas is None
    assert FeatureSource(reader, lr_scale=True).deltas is None


def test_a_codec_that_keeps_more_than_it_says_is_refused():
    block = np.full((3, 4), 1 + 2**-20, np.float32)
    deltas = Deltas(3, 4, 0, 7, lambda _: iter([(0, block)]))
    with pytest.raises(DataError, match="7 mantissa bits"):
        PackedDeltas(deltas, torch.device("cpu"), width=4, arrived=lambda _: None)


def test_loading_says_how_far_it_is():
    X = np.random.default_rng(0).random((5, 100)).astype(np.float32)
    said = []
    plan = MemoryPlan(40, 0, 10)
    DevicePasses(
        ArraySource(X, np.arange(5.0)),
        "float32",
        torch.device("cpu"),
        plan=plan,
        notify=lambda n, t: said.append((n, t)),
    )
    assert said == [(1, "0.40 passes"), (1, "0.80 passes"), (1, "1.00 passes")]
