import copy

import pytest
import torch
from torch import nn

from causalprune.base.errors import UsageError
from causalprune.models.export.formats import CSR, SAFETENSORS, TORCH, Networks
from causalprune.models.extra_state import carry_extra_state, is_extra_state
from causalprune.models.initial_weights import load_initial_weights


class Stateful(nn.Linear):
    def __init__(self, state):
        super().__init__(4, 2)
        self.state = state

    def get_extra_state(self):
        return self.state

    def set_extra_state(self, state):
        self.state = state


def network(state):
    return nn.Sequential(Stateful(state), nn.Linear(2, 2))


STATES = [
    None,
    {"version": 1, "names": ["ä", "b"], "rate": 0.1},
    "json:",
    [],
    torch.arange(5),
    torch.tensor([106, 115]),
]


@pytest.mark.parametrize("state", STATES, ids=str)
def test_it_is_carried_as_a_tensor(state):
    before, after = network(state), network("another")
    for model in (before, after):
        carry_extra_state(model, "model")
    saved = before.state_dict()
    assert all(isinstance(value, torch.Tensor) for value in saved.values())
    assert [name for name in saved if is_extra_state(name)] == ["0._extra_state"]
    copy.deepcopy(after).load_state_dict(saved)
    assert after[0].state == "another"
    after.load_state_dict(saved)
    assert type(after[0].state) is type(state)
    assert torch.equal(after[0].state, state) if isinstance(state, torch.Tensor) else after[0].state == state


def test_a_state_dict_of_pytorch_itself_is_taken_too(tmp_path):
    state = {"version": 2}
    torch.save(network(state).state_dict(), tmp_path / "weights.pt")
    model = network({})
    carry_extra_state(model, "model")
    load_initial_weights(model, tmp_path / "weights.pt")
    assert model[0].state == state


@pytest.mark.parametrize("state", [{1: 2}, (1, 2), {"a": torch.zeros(1)}, object()], ids=["keys", "tuple", "in", "any"])
def test_what_json_cannot_give_back_is_refused(state):
    with pytest.raises(UsageError, match=r"0\._extra_state of model: expected an extra state that is a tensor or made"):
        carry_extra_state(network(state), "model")


def test_what_cannot_be_restored_is_refused():
    class Half(nn.Linear):
        def get_extra_state(self):
            return 1

    with pytest.raises(UsageError, match="set_extra_state, found get_extra_state alone in Half"):
        carry_extra_state(nn.Sequential(Half(1, 1)), "model")


@pytest.mark.parametrize("format", [TORCH, SAFETENSORS, CSR], ids=["torch", "safetensors", "csr"])
def test_exports_hold_it(tmp_path, format):
    """For PyTorch as it was, elsewhere as JSON."""
    model = network({"version": 3})
    carry_extra_state(model, "model")
    keep = {"0.weight": torch.ones(2, 4, dtype=torch.bool)}
    data, compare = format.encode(Networks(model, model, (4,)), keep, False)
    path = tmp_path / f"exported{format.suffix}"
    path.write_bytes(data)
    assert compare(path) == ("bits", 0.0)
    if format is TORCH:
        plain = network({})
        plain.load_state_dict(torch.load(path))
        assert plain[0].state == {"version": 3}
    other = network({})
    carry_extra_state(other, "model")
    load_initial_weights(other, path)
    assert other[0].state == {"version": 3}
