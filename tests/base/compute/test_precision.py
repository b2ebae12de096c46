"""True float32 within, and whatever the user chose afterwards, by PyTorch's older and newer switches alike."""

import pytest
import torch
from torch import backends

from causalprune.base.compute.precision import full_precision, rounds_factors

READERS = {
    "matmul": lambda: torch.get_float32_matmul_precision(),
    "matmul.allow_tf32": lambda: backends.cuda.matmul.allow_tf32,
    "cudnn.allow_tf32": lambda: backends.cudnn.allow_tf32,
    "generic": lambda: backends.fp32_precision,
    "cudnn": lambda: backends.cudnn.fp32_precision,
    "cuda.matmul": lambda: backends.cuda.matmul.fp32_precision,
    "cudnn.conv": lambda: backends.cudnn.conv.fp32_precision,
    "cudnn.rnn": lambda: backends.cudnn.rnn.fp32_precision,
    "mkldnn.matmul": lambda: backends.mkldnn.matmul.fp32_precision,
    "mkldnn.conv": lambda: backends.mkldnn.conv.fp32_precision,
    "mkldnn.rnn": lambda: backends.mkldnn.rnn.fp32_precision,
}


def state():
    """What each switch says; one that contradicts another can't be read."""
    found = {}
    for name, read in READERS.items():
        try:
            found[name] = read()
        except RuntimeError as error:
            found[name] = type(error).__name__
    return found


def set_(owner, name, value):
    setattr(owner, name, value)


CHOICES = {
    "nothing": lambda: None,
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "matmul.allow_tf32": lambda: set_(backends.cuda.matmul, "allow_tf32", True),
    "no cudnn.allow_tf32": lambda: set_(backends.cudnn, "allow_tf32", False),
    "generic": lambda: set_(backends, "fp32_precision", "tf32"),
    "cudnn": lambda: set_(backends.cudnn, "fp32_precision", "tf32"),
    "cuda.matmul": lambda: set_(backends.cuda.matmul, "fp32_precision", "tf32"),
    "cudnn.conv": lambda: set_(backends.cudnn.conv, "fp32_precision", "ieee"),
}


@pytest.fixture
def _as_before():
    """The process's own switches, put back by the newest interface, from the widest to the narrowest."""
    yield
    for owner in (backends, backends.cudnn):
        owner.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    backends.cudnn.allow_tf32 = True
    for owner in (backends.cuda.matmul, backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn):
        owner.fp32_precision = "none"


@pytest.mark.usefixtures("_as_before")
@pytest.mark.parametrize("choice", CHOICES)
def test_factors_are_not_rounded_within_and_the_switches_come_back(choice):
    CHOICES[choice]()
    before = state()

    def fail():
        within = state()
        assert not rounds_factors("cuda")
        assert not rounds_factors("cpu")
        # Both interfaces can be read: kernels that ask the older one must not fail.
        assert (within["matmul"], within["matmul.allow_tf32"], within["cudnn.allow_tf32"]) == ("highest", False, False)
        assert {within[name] for name in READERS if "." in name and "allow" not in name} == {"ieee"}
        raise KeyError("within")

    with pytest.raises(KeyError, match="within"), full_precision():
        fail()
    assert state() == before


@pytest.mark.usefixtures("_as_before")
def test_what_rounds_is_known_for_each_kind_of_device():
    # PyTorch's own default: convolutions on a GPU round.
    assert (rounds_factors("cuda"), rounds_factors("cpu")) == (True, False)
    backends.cudnn.allow_tf32 = False
    assert not rounds_factors("cuda")
    torch.set_float32_matmul_precision("medium")
    assert rounds_factors("cpu")
