"""``causalprune.prune``: in place, what the formulas say, or one line that says why not."""

import copy
import logging

import numpy as np
import pytest
import torch
from recorded_network import record
from torch import nn

import causalprune as cp
from causalprune.base.errors import DataError, MismatchError, UsageError
from causalprune.models.parameters import ParameterIndex
from causalprune.trajectory import Store

WEIGHTS = ["0.weight", "2.weight", "4.weight"]


def weights_of(model):
    return torch.cat([model.get_parameter(name).detach().reshape(-1) for name in WEIGHTS]).clone()


@pytest.mark.parametrize("criterion", ["effect", "gamma"])
def test_a_criterion_of_a_fit_prunes_what_its_formula_says(recorded, criterion):
    theta = weights_of(recorded.model).double().numpy()
    mask = cp.prune(recorded.model, recorded.store, sparsity=0.5, criterion=criterion)
    fit = Store.open(recorded.store).recording().read_fit("default")
    gamma, kkt = np.abs(fit.arrays["gamma"][0]), fit.arrays["dual_correlation"][0].astype(np.float64)
    weight, p = (theta**2, 0.125) if criterion == "effect" else (1.0, 1)
    order = np.lexsort((np.arange(len(theta)), kkt**p * weight, gamma**p * weight))
    expected = np.ones(len(theta), bool)
    expected[order[: round(0.5 * len(theta))]] = False
    assert np.array_equal(mask.numpy(), expected)
    assert np.array_equal(weights_of(recorded.model).numpy(), np.where(expected, theta, 0).astype(np.float32))


def test_a_fit_is_made_with_all_defaults_once_and_reused(recorded):
    twin = copy.deepcopy(recorded.model)
    first = cp.prune(recorded.model, recorded.store, sparsity=0.5)
    made = Store.open(recorded.store).recording().read_fit("default").digest
    assert torch.equal(cp.prune(twin, recorded.store, sparsity=0.5).keep, first.keep)
    assert cp.fit(recorded.store).digest == made
    another = cp.fit(recorded.store, name="weak", alpha_ratio=0.9)
    for fit in (another, "weak"):
        twin.load_state_dict({n: torch.ones_like(t) for n, t in twin.state_dict().items()})
        mask = cp.prune(twin, recorded.store, sparsity=0.5, criterion="gamma", fit=fit, allow_other_weights=True)
        assert mask.keep[np.flatnonzero(another.gamma)].all()


def test_criteria_of_gradients_agree_with_those_of_autograd(recorded):
    model = copy.deepcopy(recorded.model)
    loss = nn.functional.cross_entropy(model(recorded.inputs), recorded.targets)
    gradients = torch.autograd.grad(loss, [model.get_parameter(name) for name in WEIGHTS])
    theta = [model.get_parameter(name).detach().clone() for name in WEIGHTS]
    scores = torch.cat([(g * weight).reshape(-1).abs() for g, weight in zip(gradients, theta, strict=True)])
    store = recorded.store.with_name("one.zarr")
    record(model, store, recorded.inputs, steps=1)
    # As the recording began, whose only gradient is that one.
    mask = cp.prune(recorded.model, store, sparsity=0.4, criterion="obd")
    kept, pruned = scores[mask.keep], scores[~mask.keep]
    assert pruned.max() <= kept.min() * (1 + 1e-4)


def test_no_store_is_needed_where_nothing_is_read_of_one(recorded):
    theta = weights_of(recorded.model).abs()
    mask = cp.prune(recorded.model, sparsity=0.6, criterion="magnitude")
    assert theta[~mask.keep].max() <= theta[mask.keep].min()
    again = cp.prune(recorded.model, sparsity=0.8, criterion="magnitude", mask=mask)
    assert not (again.keep & ~mask.keep).any()
    assert again.num_pruned == round(0.8 * len(theta))


def test_layers_are_measured_on_a_loader_as_on_a_tensor(recorded):
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(recorded.inputs, recorded.targets), batch_size=5, shuffle=False
    )
    masks = [
        cp.prune(copy.deepcopy(recorded.model), sparsity=0.5, criterion="wanda", inputs=inputs).keep
        for inputs in (recorded.inputs, loader, list(recorded.inputs.split(7)))
    ]
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[0], masks[2])
    # |θ|·‖x‖₂ of the first layer, whose inputs are known.
    scores = recorded.model[0].weight.abs() * recorded.inputs.norm(dim=0)
    mask = cp.prune(recorded.model, sparsity=0.5, criterion="wanda", inputs=recorded.inputs, scope="layer")
    kept = mask.tensors()["0.weight"]
    assert scores[~kept].max() <= scores[kept].min()


def test_a_criterion_of_your_own_is_an_object(recorded):
    theta = weights_of(recorded.model).abs()
    largest_first = cp.Criterion("largest-first", lambda inputs: -np.abs(inputs.theta))
    mask = cp.prune(recorded.model, sparsity=0.25, criterion=largest_first, granularity="parameter")
    assert theta[~mask.keep].min() >= theta[mask.keep].max()


def test_chita_sets_the_weights_that_it_keeps(recorded):
    before = weights_of(recorded.model)
    mask = cp.prune(recorded.model, recorded.store, sparsity=0.5, criterion="chita")
    after = weights_of(recorded.model)
    assert not after[~mask.keep].any()
    assert not torch.equal(after[mask.keep], before[mask.keep])


def test_whole_filters_leave_the_outputs_alone(tmp_path):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 3)).eval()
    images = torch.randn(5, 1, 6, 6)
    mask = cp.prune(model, sparsity=0.03, criterion="magnitude", granularity="filter", inputs=images)
    kept = mask.tensors()["0.weight"].flatten(1)
    assert torch.equal(kept.all(1), kept.any(1))
    assert 0 < (~kept.any(1)).sum() < 8
    assert mask.tensors()["3.weight"].all()
    with pytest.raises(UsageError, match=r"`inputs`: expected inputs .* found none; pass a tensor"):
        cp.prune(model, sparsity=0.03, criterion="magnitude", granularity="filter")


def test_the_mask_of_a_recording_goes_on(recorded):
    mask = cp.prune(recorded.model, recorded.store, sparsity=0.5)
    second = recorded.store.with_name("second.zarr")
    with mask.hold(recorded.optimizer), cp.Recorder(recorded.model, recorded.optimizer, second, mask=mask) as recorder:
        for _ in range(8):
            loss = recorded.loss()
            recorded.optimizer.zero_grad()
            loss.backward()
            recorder.step(loss, recorded.loss)
    final = cp.prune(recorded.model, second, sparsity=0.8)
    assert not (final.keep & ~mask.keep).any()
    assert final.num_pruned == round(0.8 * 164)
    with pytest.raises(MismatchError, match=r"`mask`: expected the one that recording .* found another"):
        cp.prune(recorded.model, second, sparsity=0.9, mask=final)


def test_what_was_not_trained_is_left_alone_and_said(tmp_path, caplog):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 3))
    model[0].requires_grad_(False)
    recorded = record(model, tmp_path / "t.zarr", torch.randn(24, 6))
    twin = copy.deepcopy(model)
    with caplog.at_level(logging.WARNING, "causalprune"):
        mask = cp.prune(model, recorded.store, sparsity=0.5)
    assert mask.tensors()["0.weight"].all()
    assert mask.num_pruned == 15
    assert "0.weight, 60 weights (`prune_frozen` includes them)" in caplog.text
    assert cp.prune(twin, recorded.store, sparsity=0.5, prune_frozen=True).num_pruned == 45


def test_weights_that_moved_are_refused_in_one_line(recorded):
    recorded.train(recorded.optimizer, steps=1)
    with pytest.raises(MismatchError, match=r"expected those that recording .* started or ended with, found others"):
        cp.prune(recorded.model, recorded.store, sparsity=0.5)
    assert cp.prune(recorded.model, recorded.store, sparsity=0.5, allow_other_weights=True).sparsity == 0.5


def test_the_weights_before_the_recording_are_its_own(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 3))
    before = copy.deepcopy(model)
    record(model, tmp_path / "t.zarr", torch.randn(24, 6))
    assert cp.prune(before, tmp_path / "t.zarr", sparsity=0.5).num_pruned == 45


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"sparsity": -1.5}, UsageError, "`sparsity`: expected a number in [0, 1), found -1.5"),
        ({"sparsity": 90}, UsageError, "`sparsity`: expected a number in [0, 1) (did you mean 0.9?), found 90"),
        ({"sparsity": 0.5, "layer_sparsity": {"0": 50}}, UsageError, "in [0, 1) (did you mean 0.5?), found 50"),
        ({"sparsity": 0.5, "criterion": "effects"}, UsageError, "did you mean 'effect'?"),
        (
            {"sparsity": 0.5, "keep": "conv1"},
            UsageError,
            "a pattern that matches one of 0, 2, 4, found 'conv1'",
        ),
        ({"sparsity": 0.5, "keep": ["0", "2", "4"]}, UsageError, "expected a layer to prune beside those it keeps"),
        ({"sparsity": 0.5, "layer_sparsity": {"0": 1.0}}, UsageError, "`layer_sparsity`: expected a number in [0, 1)"),
        (
            {"sparsity": 0.5, "criterion": "magnitude", "granularity": "filter", "inputs": torch.randn(8, 6)},
            MismatchError,
            "expected a network with Conv layers, found none; use `granularity=neuron`",
        ),
        (
            {"sparsity": 0.1, "layer_sparsity": {"0": 0.9, "2": 0.9}},
            UsageError,
            "`layer_sparsity`",
        ),
        ({"sparsity": 0.5, "criterion": "wanda"}, UsageError, "pass a tensor of inputs or a DataLoader"),
        ({"sparsity": 0.5, "criterion": "wanda", "inputs": "x"}, UsageError, "`inputs`: expected a tensor of inputs"),
        (
            {"sparsity": 0.5, "criterion": "wanda", "inputs": torch.randn(4, 7)},
            DataError,
            "`inputs`: expected what Sequential takes, found that it raises RuntimeError: mat1 and mat2 shapes",
        ),
        ({"sparsity": 0.5, "criterion": "wanda", "inputs": []}, DataError, "`inputs`: expected at least one sample"),
        ({"sparsity": 0.5, "fit": "other"}, MismatchError, "expected a fit named other, found no fit"),
        ({"sparsity": None}, UsageError, "none only with `criterion=gamma`"),
        ({"sparsity": 0.5, "exponent": 2.0, "criterion": "gamma"}, UsageError, "criterion gamma has no exponent"),
        ({"sparsity": 0.5, "granularity": "filters"}, UsageError, "did you mean 'filter'?"),
        ({"sparsity": 0.5, "scope": "locally"}, UsageError, "`scope`: expected one of global"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(recorded, options, error, said):
    before = weights_of(recorded.model)
    with pytest.raises(error) as raised:
        cp.prune(recorded.model, recorded.store, **options)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "--" not in str(raised.value)
    assert torch.equal(weights_of(recorded.model), before)


def test_a_store_of_another_network_or_none_is_refused(recorded):
    with pytest.raises(MismatchError, match="expected the 18 prunable parameters of this model, found 164 others"):
        cp.prune(nn.Linear(6, 3), recorded.store, sparsity=0.5)
    with pytest.raises(UsageError, match="expected a recording of this network, which criterion effect reads"):
        cp.prune(recorded.model, sparsity=0.5)
    own = r"expected a trajectory store, found nothing; record a loop with causalprune\.Recorder, or give the path"
    with pytest.raises(DataError, match=own):
        cp.prune(recorded.model, recorded.store.with_name("nowhere.zarr"), sparsity=0.5)
    with pytest.raises(DataError, match=own):
        cp.fit(recorded.store.with_name("nothere"))
    with pytest.raises(DataError, match=rf"found nothing; did you mean {recorded.store}\?"):
        cp.prune(recorded.model, str(recorded.store).removesuffix("r"), sparsity=0.5)


def test_the_rule_of_the_paper_keeps_what_the_lasso_selects(recorded):
    fit = cp.fit(recorded.store)
    mask = cp.prune(recorded.model, recorded.store, sparsity=None, criterion="gamma")
    rescued = mask.num_kept - np.count_nonzero(fit.gamma)
    assert mask.keep[np.flatnonzero(fit.gamma)].all()
    assert 0 <= rescued <= 3


def test_a_wrapped_network_is_pruned_by_its_own_names(recorded):
    wrapped = nn.DataParallel(copy.deepcopy(recorded.model))
    mask = cp.prune(wrapped, recorded.store, sparsity=0.5)
    assert torch.equal(mask.keep, cp.prune(recorded.model, recorded.store, sparsity=0.5).keep)
    assert torch.equal(weights_of(wrapped.module), weights_of(recorded.model))


def test_a_mask_of_as_many_weights_under_other_names_is_refused(recorded):
    items = [{**item, "name": f"other.{item['name']}"} for item in Store.open(recorded.store).index.to_json()]
    mask = cp.Mask.all(ParameterIndex.from_json(items))
    with pytest.raises(MismatchError, match=r"`mask`: expected the one that recording .* found another"):
        cp.prune(recorded.model, recorded.store, sparsity=0.5, criterion="magnitude", mask=mask)
