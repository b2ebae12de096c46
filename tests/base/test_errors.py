import ast
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from causalprune.base.errors import DataError, StorageError, UsageError, missing_extra, storage_errors, translate

ROOT = Path(__file__).parents[2]


def raised(action):
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        action()
    return caught.value


@pytest.mark.parametrize(
    ("action", "amount"),
    [
        (lambda: np.empty(2**55), "256. PiB"),
        (lambda: torch.empty(2**55), "144115188075855872 bytes"),
        (lambda: bytearray(2**60), "more, found too little"),
    ],
    ids=["NumPy", "PyTorch", "Python"],
)
def test_memory_that_is_used_up(action, amount):
    known = translate(raised(action))
    assert isinstance(known, StorageError)
    assert str(known).startswith("memory: expected")
    assert amount in str(known)
    assert "`batch_size`" in str(known)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 9 GiB."),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_memory_of_a_gpu(error):
    known = translate(error)
    assert isinstance(known, StorageError)
    assert str(known).startswith("memory of the GPU: expected ")
    assert ("20.00 GiB more" in str(known)) == ("20.00" in str(error))
    assert known.__cause__ is error


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_memory_of_a_real_gpu():
    known = translate(raised(lambda: torch.empty(2**50, device="cuda")))
    assert str(known).startswith("memory of the GPU: expected 4194304.00 GiB more")


def test_a_kernel_that_is_not_deterministic():
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        pooled = nn.functional.max_pool2d(torch.rand(1, 1, 4, 4), 2, return_indices=True)
        error = raised(lambda: nn.functional.max_unpool2d(*pooled, 2))
    finally:
        torch.use_deterministic_algorithms(before)
    known = translate(error)
    assert isinstance(known, UsageError)
    assert str(known).startswith("`deterministic`: expected operations with a deterministic kernel, found max_unpool")


def test_the_workspace_of_cublas():
    known = translate(
        RuntimeError(
            "Deterministic behavior was enabled with either `torch.use_deterministic_algorithms(True)` or "
            "`at::Context::setDeterministicAlgorithms(true)`, but this operation is not deterministic because it uses "
            "CuBLAS and you have CUDA >= 10.2. To enable deterministic behavior in this case, you must set an "
            "environment variable before running your PyTorch application: CUBLAS_WORKSPACE_CONFIG=:4096:8"
        )
    )
    assert isinstance(known, UsageError)
    assert "CUBLAS_WORKSPACE_CONFIG" in str(known)


def test_a_network_that_cannot_be_compiled():
    def broken(graph, inputs):
        raise NotImplementedError("no such operation")

    compiled = torch.compile(lambda x: x + 1, backend=broken)
    known = translate(raised(lambda: compiled(torch.zeros(1))))
    assert isinstance(known, UsageError)
    assert str(known).startswith("`compile`, or torch.compile in")
    assert "expected a network that torch.compile can compile, found BackendCompilerFailed" in str(known)
    torch.compiler.reset()


@pytest.mark.parametrize(
    "error", [DataError("memory", found="out of memory"), RuntimeError("shapes differ"), ValueError("out of memory")]
)
def test_other_errors_stay_what_they_are(error):
    assert translate(error) is None


def test_one_value_per_channel_is_too_small_a_batch():
    with pytest.raises(ValueError, match="more than 1 value") as caught:
        nn.BatchNorm2d(3)(torch.zeros(1, 3, 1, 1))
    known = translate(caught.value)
    assert isinstance(known, UsageError)
    assert str(known).startswith("`batch_size`: expected more than one value per channel")
    assert "found an input (1, 3, 1, 1)" in str(known)
    assert translate(ValueError("another")) is None


def test_a_missing_package_is_said_with_the_line_that_installs_it():
    assert str(missing_extra("plots need matplotlib", "plots")) == "plots need matplotlib: pip install '.[plots]'"


def test_every_extra_that_is_asked_for_exists_and_is_asked_for_in_one_way():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked, otherwise = set(), []
    for path in (ROOT / "causalprune").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "missing_extra":
                asked.add(node.args[1].value)
            if isinstance(node, ast.Call) and getattr(node.func, "id", "").endswith("Error"):
                otherwise += [path.name for text in re.findall(r"pip install", ast.unparse(node))]
    assert asked <= set(extras)
    assert {"plots", "compact", "onnx", "s3", "tables", "flatness", "tensorboard"} <= asked
    # Lightning is imported by its own module, whose error is an ImportError; the first is missing_extra itself.
    assert sorted(otherwise) == ["errors.py", "lightning.py"]


def test_what_the_disk_says_is_not_found_but_happened(tmp_path):
    with pytest.raises(StorageError) as caught, storage_errors(tmp_path, "create"):
        tmp_path.mkdir()
    assert re.fullmatch(
        r"cannot create .*: file exists \(EEXIST\); choose another path, because a file has this name",
        str(caught.value),
    )
