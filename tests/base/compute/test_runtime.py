import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from causalprune.base.compute.runtime import (
    emulates_bfloat16,
    keyed_seed,
    make_deterministic,
    resolve_device,
)
from causalprune.base.errors import UsageError

KEYS = st.lists(st.integers() | st.text(st.characters(exclude_characters="\0")), min_size=1, max_size=4)


@given(KEYS, KEYS)
def test_seeds_are_equal_where_the_keys_are_and_fit_a_generator(first, second):
    assert (keyed_seed(*first) == keyed_seed(*second)) == (first == second)
    assert 0 <= keyed_seed(*first) < 2**63


def test_seeds_are_those_that_every_recording_so_far_was_made_with():
    assert keyed_seed(0, "order", 1) == 5448198135180387908
    assert keyed_seed(0) == 8482559467159178675
    assert keyed_seed("0") == 2299587513400315299


@pytest.mark.parametrize(
    ("capabilities", "slow"),
    [
        ({"architecture": "x86_64", "amx_bf16": False, "avx512_bf16": False}, True),
        ({"architecture": "x86_64", "amx_bf16": True, "avx512_bf16": False}, False),
        ({"architecture": "x86_64", "amx_bf16": False, "avx512_bf16": True}, False),
        ({"architecture": "aarch64"}, False),
        ({}, False),
    ],
)
def test_bfloat16_is_slow_where_the_processor_says_it_has_no_instructions(capabilities, slow, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert emulates_bfloat16(torch.device("cpu")) == slow
    assert not emulates_bfloat16(torch.device("cuda"))


def test_auto_is_the_first_gpu_or_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(("count", "name", "expected"), [(0, "cuda", "cpu, because"), (2, "cuda:2", "one of 2")])
def test_a_gpu_that_is_not_there_is_refused(monkeypatch, count, name, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(UsageError, match=expected):
        resolve_device(name)


def test_only_deterministic_kernels_are_allowed(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before = torch.are_deterministic_algorithms_enabled()
    try:
        make_deterministic()
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        assert not torch.backends.cudnn.benchmark
    finally:
        torch.use_deterministic_algorithms(before)
