"""The environment of a computation: device, seeds, determinism, and the processes that share the work."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from causalprune.base.compute.launchers import read_launcher, set_meeting_point
from causalprune.base.errors import CausalpruneError, ExitCode, StorageError, UsageError, translate

if TYPE_CHECKING:
    import torch
    from torch import nn


def keyed_seed(*keys: int | str) -> int:
    """A 63-bit seed from a list of keys, such as ``keyed_seed(seed, "order", epoch)``.

    Equal keys give equal seeds, and different keys give independent streams, so a resume has nothing to replay.
    """
    text = "\0".join(f"{type(key).__name__}:{key}" for key in keys)
    return int.from_bytes(hashlib.sha256(text.encode(errors="surrogatepass")).digest()[:8], "little") >> 1


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed PyTorch's generators on the CPU and on one device, as ``torch.manual_seed`` does.

    That one takes half a millisecond while no GPU is in use, because it also keeps a stack trace.
    """
    import torch

    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)


def emulates_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 are slow because the processor has no instructions for them; False if unknown."""
    import torch

    # PyTorch 2.10 doesn't have it everywhere, and other processors than these have other names for their instructions.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if device.type != "cpu" or capabilities.get("architecture") != "x86_64":
        return False
    return not (capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def resolve_device(name: str) -> torch.device:
    """The device of a name; ``auto`` is the first GPU, or the CPU if there is none.

    Raises:
        UsageError: There is no such GPU.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    count = torch.cuda.device_count()
    if device.type == "cuda" and device.index is None and processes().count > 1:
        # Where the launcher shows each process its own GPUs only, as `srun --gpus-per-task`, they count from 0 again.
        device = torch.device("cuda", processes().local % max(count, 1))
    if device.type == "cuda" and (device.index or 0) >= count:
        expected = f"one of {count} CUDA devices" if count else "cpu, because PyTorch sees no GPU"
        raise UsageError("`device`", expected=expected, found=name)
    return device


def make_deterministic() -> None:
    """Use deterministic kernels only; an operation without one raises."""
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


class PeerFailure(CausalpruneError):
    """Ends the other processes when one fails.

    Args:
        code: The exit code of that one.
        reason: Why it failed. The first process says so itself; if it was another, the first one repeats it.
    """

    def __init__(self, code: int, reason: str = "the first process failed") -> None:
        super().__init__(reason)
        self.exit_code = ExitCode(code)


@dataclass(frozen=True)
class Processes:
    """One of the processes that train together; the only one if started without a launcher.

    Attributes:
        rank: Its number, starting at 0.
        count: How many there are.
        local: Its number on this host, which is also the number of its GPU where all are visible.
    """

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def first(self, action: Callable[[], Any]) -> None:
        """Let the first process do something while the others wait; if it fails, it fails for all of them.

        Raises:
            CausalpruneError: In the first process, what ``action`` raised; in the others :class:`PeerFailure`.
        """
        if self.count == 1:
            action()
            return
        failure: BaseException | None = None
        if self.is_first:
            try:
                action()
            except BaseException as error:
                failure = error
        code = 0
        if failure is not None:
            code = int(getattr(translate(failure) or failure, "exit_code", ExitCode.INTERNAL))
        code = self._reduce_integers([code])[0]
        if failure is not None:
            raise failure
        if code:
            raise PeerFailure(code)

    def any(self, *flags: bool) -> list[bool]:
        """For each flag, whether any process has set it; all processes must call this."""
        return [bool(n) for n in self.largest(*(int(f) for f in flags))]

    def largest(self, *numbers: int) -> list[int]:
        """For each number, the largest of any process; all processes must call this."""
        return list(numbers) if self.count == 1 else self._reduce_integers(list(numbers))

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor over the processes; the tensor itself isn't changed."""
        if self.count == 1:
            return value
        import torch.distributed as dist

        total = value.detach().clone()
        dist.all_reduce(total)
        return total

    def share_first(self, tensors: Iterable[torch.Tensor]) -> None:
        """Give tensors the values that the first process has, in place."""
        if self.count == 1:
            return
        import torch
        import torch.distributed as dist

        with torch.no_grad():
            for tensor in tensors:
                values = tensor.contiguous()
                dist.broadcast(values, 0)
                if values is not tensor and not self.is_first:
                    tensor.copy_(values)

    def from_first(self, numbers: list[float]) -> list[float]:
        """The numbers of the first process."""
        if self.count == 1:
            return numbers
        import torch

        tensor = torch.tensor(numbers, dtype=torch.float64)
        torch.distributed.broadcast(tensor, 0, group=_control[0])
        return [float(n) for n in tensor.tolist()]

    def share(self, samples: int) -> slice:
        """The share of this process in a minibatch of ``samples``; the sizes of the shares differ by at most one."""
        return slice(samples * self.rank // self.count, samples * (self.rank + 1) // self.count)

    def parallel(self, model: nn.Module) -> nn.Module:
        """The model, with gradients averaged over the processes; parameters without a gradient have none afterwards."""
        if self.count == 1:
            return model
        from torch.nn.parallel import DistributedDataParallel

        device = next(model.parameters()).device
        # Looking for unused parameters takes time in each step, so it is left out where there are none.
        known = type(model).__module__.split(".")[0] in ("causalprune", "torchvision")
        warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
        return DistributedDataParallel(
            model, device_ids=[device] if device.type == "cuda" else None, find_unused_parameters=not known
        )

    def require_agreement(self, subject: str, value: Any) -> None:
        """Check that all processes found the same, such as the state to resume from.

        Args:
            subject: What was found, for the error message.
            value: Anything that JSON can express.

        Raises:
            UsageError: They found different values, so they don't see the same files.
        """
        if self.count == 1:
            return
        import zlib

        checksum = zlib.crc32(json.dumps(value, sort_keys=True).encode())
        low, high = self._reduce_integers([-checksum, checksum])
        if -low != high:
            raise UsageError(
                subject,
                expected="the same in every process",
                found="different ones",
                remedy="let all of them see the same run directory",
            )

    def _reduce_integers(self, values: list[int]) -> list[int]:
        """The maximum of each number over the processes, on the CPU, without waiting for a GPU."""
        import torch

        tensor = torch.tensor(values, dtype=torch.int64)
        torch.distributed.all_reduce(tensor, op=torch.distributed.ReduceOp.MAX, group=_control[0])
        return [int(n) for n in tensor.tolist()]


_PATIENCE = timedelta(hours=6)
"""How long one process may work alone, as on a large subproblem; a process that ends is noticed at once."""

_control: list[Any] = []
"""The group that :func:`control_group` returns, if there is one."""

_current: list[Processes] = []


def control_group() -> Any:
    """The gloo group of all processes, which exchanges decisions and arrays in host memory."""
    return _control[0]


def processes() -> Processes:
    """Return this process among those it is connected with; a single one if there are no others."""
    return _current[0] if _current else Processes()


def launched() -> Processes:
    """Return this process as torchrun or srun describes it in the environment; nothing is connected yet.

    Raises:
        UsageError: A variable of the launcher is missing, or isn't a number that it can be.
    """
    return Processes(*read_launcher())


@contextmanager
def connected(device: str) -> Iterator[Processes]:
    """Connect with the other processes while the body runs, if there are any.

    Args:
        device: ``cpu``, ``cuda`` or ``auto``: GPUs exchange data by NCCL, CPUs by gloo.

    Raises:
        UsageError: The launcher's variables don't say how to connect, or two processes would share a GPU.
        StorageError: Another process is gone.
    """
    own = launched()
    if own.count == 1:
        yield own
        return
    # A lost process is reported in one line, not in a page of PyTorch's.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    import torch
    import torch.distributed as dist

    set_meeting_point()
    try:
        _current.append(own)
        chosen = resolve_device(device)
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", rank=own.rank, world_size=own.count)
        _control.append(dist.new_group(backend="gloo", timeout=_PATIENCE))
        if chosen.type == "cuda":
            _require_own_gpu(chosen)
        yield own
    except (dist.DistError, RuntimeError) as error:
        if not isinstance(error, dist.DistError) and "onnection" not in str(error):
            raise
        found = " ".join(str(error).split())[:120]
        raise StorageError(
            "other processes", expected=f"{own.count} of them", found=found, remedy="see what ended them"
        ) from error
    finally:
        _control.clear()
        _current.clear()
        if dist.is_initialized():
            dist.destroy_process_group()


def _require_own_gpu(device: torch.device) -> None:
    """Check that no other process computes on the same GPU, on which NCCL would fail.

    Raises:
        UsageError: Two processes have the same one.
    """
    import torch
    import torch.distributed as dist

    own, found = str(torch.cuda.get_device_properties(device).uuid), [""] * dist.get_world_size(_control[0])
    dist.all_gather_object(found, own, group=_control[0])
    if found.count(own) > 1:
        sharing = [str(rank) for rank, other in enumerate(found) if other == own]
        raise UsageError(
            "`device`",
            expected="a GPU for each process",
            found=f"processes {', '.join(sharing)} on one GPU",
            remedy="start as many processes as there are GPUs, or use `device=cpu`",
        )
