"""Options of ``export``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from causalprune.base.errors import UsageError
from causalprune.base.options import option, writable
from causalprune.config.shared import OutputOptions
from causalprune.models.names import EXPORT_FORMATS


@dataclass(frozen=True, kw_only=True)
class ExportConfig(OutputOptions):
    """Write a checkpoint's network, or its weights, for use without causalprune; a smaller one with --compact.

    Example: causalprune export --format csr
    """

    format: str = option(
        "torch",
        "Weights by name, for a class of your own: torch: a state dict; safetensors: the same; csr: pruned weights as "
        "sparse rows. The whole network: pt2: for PyTorch; onnx: for ONNX Runtime.",
        check=EXPORT_FORMATS,
    )
    compact: bool = option(
        False, "Remove filters and neurons whose every weight is pruned, and measure the latency before and after."
    )
    masks: bool = option(
        False, "Keep the masks, by the names of torch.nn.utils.prune: weight_orig and weight_mask (torch, safetensors)."
    )
    checkpoint: Path | None = option(
        None, "Checkpoint to export [run/final.safetensors].", affects_result=False, panel="Files"
    )
    output: Path | None = option(
        None, "File to write [run/exported.pt, .onnx, …].", affects_result=False, check=writable
    )
    data_root: str = option(
        "", "Folder of the data set's files; --compact reads some samples.", affects_result=False, panel="Files"
    )
    trust_code: bool = option(
        False, "Run the package.module:factory that the checkpoint names.", affects_result=False, panel="Files"
    )

    def check(self) -> None:
        """Reject masks for a compact network."""
        super().check()
        if self.masks and self.compact:
            raise UsageError("`masks`", expected="no `compact`, which leaves weights that no mask fits", found="both")
