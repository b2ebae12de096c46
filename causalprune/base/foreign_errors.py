"""Errors of Python and PyTorch that speak of the machine or of an option, turned into ours."""

from __future__ import annotations

import re

from causalprune.base.errors import CausalpruneError, StorageError, UsageError

_MEMORY = re.compile(
    r"out of memory|allocate memory|not enough memory|unable to allocate|_ALLOC_FAILED|bad_?\s?alloc", re.IGNORECASE
)
_AMOUNT = re.compile(r"(?:tried to allocate|unable to allocate) ([\d.]+ (?:bytes|[KMGT]iB))", re.IGNORECASE)
_DETERMINISM = re.compile(
    r"([\w:.]+) does not have a deterministic implementation|not deterministic because it uses CuBLAS"
)
_COMPILERS = ("torch._dynamo", "torch._inductor", "torch._functorch", "triton")


def translate(error: BaseException) -> CausalpruneError | None:
    """What an exception means for the user in one line; None if it says nothing about the machine or an option.

    Memory that is used up, on the host or on a GPU, is a :class:`StorageError`. A kernel that isn't deterministic and
    a network that can't be compiled are a :class:`UsageError`.
    """
    text = " ".join(str(error).split())
    known: CausalpruneError | None = None
    if isinstance(error, CausalpruneError):
        return None
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _MEMORY.search(text)):
        amount = _AMOUNT.search(text)
        known = StorageError(
            "memory of the GPU" if re.search("CUDA|CUBLAS|CUDNN", text) else "memory",
            expected=f"{amount[1]} more" if amount else "more",
            found="too little" if amount else text[:120] or "too little",
            remedy="use a smaller `batch_size`, `memory` or network, or a machine with more",
        )
    elif isinstance(error, RuntimeError) and "can't start new thread" in text:
        known = StorageError("threads", expected="one more", found="no room", remedy="raise the limit (ulimit -u)")
    elif isinstance(error, RuntimeError) and (match := _DETERMINISM.search(text)):
        known = UsageError(
            "`deterministic`",
            expected="operations with a deterministic kernel",
            found=match[1] or "a CUBLAS_WORKSPACE_CONFIG that isn't",
            remedy="leave it out, or use another layer or `device=cpu`" if match[1] else "unset it",
        )
    elif type(error).__module__.startswith(_COMPILERS):
        missing = re.search(r"no working C\+\+ compiler|find C compiler|InvalidCxxCompiler", text, re.IGNORECASE)
        known = UsageError(
            "`compile`",
            expected="a C++ compiler" if missing else "a network that torch.compile can compile",
            found="none" if missing else f"{type(error).__name__} {text}"[:150],
            remedy="leave it out" + (", or install one" if missing else ""),
        )
    if known is not None:
        known.__cause__ = error
    return known
