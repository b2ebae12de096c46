"""Slices of the loss landscape against their definition."""

import pytest
import torch
from small_networks import batches, images, network, pruned

from causalprune.analysis.flatness.landscape import filter_normalized_direction, loss_landscape, plot_landscape
from causalprune.analysis.flatness.samples import ParameterVector, mean_loss
from causalprune.base.compute.runtime import keyed_seed
from causalprune.data.tasks.classification import Classification


def test_a_direction_has_the_filters_lengths_and_no_pruned_part():
    model = images()
    mask = pruned(model)
    parameters = ParameterVector(model, mask)
    names = [name for name, _ in model.named_parameters()]
    direction = dict(zip(names, filter_normalized_direction(parameters, seed=0), strict=True))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            assert not direction[name].any()
            continue
        assert torch.allclose(direction[name].flatten(1).norm(dim=1), parameter.flatten(1).norm(dim=1))
        assert not direction[name][~mask.tensors()[name]].any()


def test_the_middle_of_a_landscape_is_the_network(tmp_path):
    model, samples, task = network(), batches((5,)), Classification()
    parameters = ParameterVector(model, pruned(model))
    before = [p.detach().clone() for p in parameters.tensors]
    found = loss_landscape(model, task, parameters, samples, points=5)
    assert all(torch.equal(p, q) for p, q in zip(parameters.tensors, before, strict=True))
    assert found["axis"] == [-1, -0.5, 0, 0.5, 1]
    assert found["loss"][2][2] == pytest.approx(mean_loss(model, task, samples))
    parameters.move(before, (1.0, filter_normalized_direction(parameters, seed=keyed_seed(0, "u"))))
    assert found["loss"][2][4] == pytest.approx(mean_loss(model, task, samples))
    pytest.importorskip("matplotlib")
    plot_landscape(found, "title", tmp_path / "slice.png")
    assert (tmp_path / "slice.png").read_bytes().startswith(b"\x89PNG")
