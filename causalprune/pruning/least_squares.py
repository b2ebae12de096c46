"""Least squares with some coefficients held at zero, from second moments that are summed up batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from causalprune.base.errors import NumericalError
from causalprune.pruning.names import REPAIR_RIDGE

RIDGE = REPAIR_RIDGE
"""The usual penalty, as a multiple of the mean of the diagonal of the inputs' second moments."""

_CHUNK_VALUES = 2**24
"""Values of the matrices that are factorized together: 128 MiB in float64."""


class Moments:
    """Sums over rows of inputs u and outputs y: n, Σu, Σy, Σuuᵀ, Σuyᵀ, Σy², for each of several groups.

    Products of some thousand rows are taken in float32, then added up in float64. Before that, the mean of the first
    rows is subtracted where a bias is free, so that no digits are lost to a mean that is large beside the deviations.
    A moment is exact to about 1e-6 of the product of the two deviations.

    Args:
        groups: Number of groups.
        inputs: Length of u.
        outputs: Length of y.
        free_bias: Whether y = wᵀu + b with b free, instead of b = 0.
        device: Where to sum.
    """

    def __init__(self, groups: int, inputs: int, outputs: int, *, free_bias: bool, device: torch.device) -> None:
        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(groups, *shape, dtype=torch.float64, device=device)

        self.free_bias = free_bias
        self.rows = 0
        self._shift_u: torch.Tensor | None = None
        self._shift_y: torch.Tensor | None = None
        self._u, self._y, self._squares = zeros(inputs), zeros(outputs), zeros(outputs)
        self._gram, self._cross = zeros(inputs, inputs), zeros(inputs, outputs)

    def add(self, u: torch.Tensor, y: torch.Tensor) -> None:
        """Add rows: u is (groups, rows, inputs), y (groups, rows, outputs)."""
        u, y = u.float(), y.float()
        if self.free_bias:
            if self._shift_u is None or self._shift_y is None:
                self._shift_u, self._shift_y = u.mean(1, keepdim=True), y.mean(1, keepdim=True)
            u, y = u - self._shift_u, y - self._shift_y
        self.rows += u.shape[1]
        self._u += u.sum(1, dtype=torch.float64)
        self._y += y.sum(1, dtype=torch.float64)
        self._squares += y.square().sum(1, dtype=torch.float64)
        self._gram += u.mT @ u
        self._cross += u.mT @ y

    def second_moment(self) -> torch.Tensor:
        """Σuuᵀ, (groups, inputs, inputs) float64, about the mean if the bias is free."""
        return self._centered()[0]

    def squared_inputs(self) -> torch.Tensor:
        """Σu², (groups, inputs) float64, about zero whether or not the bias is free."""
        squares = self._gram.diagonal(dim1=1, dim2=2)
        if self._shift_u is None:
            return squares
        shift = self._shift_u[:, 0].double()
        return (squares + shift * (2 * self._u + self.rows * shift)).clamp_min(0)

    def _centered(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Second moments about the means if the bias is free, else about zero: of u, of u and y, and of y."""
        if not self.free_bias:
            return self._gram, self._cross, self._squares
        n = max(1, self.rows)
        gram = self._gram - self._u[:, :, None] * self._u[:, None] / n
        cross = self._cross - self._u[:, :, None] * self._y[:, None] / n
        return gram, cross, (self._squares - self._y**2 / n).clamp_min(0)

    def solve(self, prior: torch.Tensor, keep: torch.Tensor, ridge: float) -> torch.Tensor:
        """The w that minimizes Σ_rows ‖y − wu − b‖² + λ‖w − w̄‖² over b, with w = 0 where it isn't kept.

        By :func:`solve`, with G and C the second moments of the rows (about the means if b is free).
        """
        gram, cross, _ = self._centered()
        return solve(gram, cross.mT, prior, keep, ridge)

    def bias(self, weights: torch.Tensor) -> torch.Tensor:
        """The best b = ȳ − wū, (groups, outputs) float64, with w (groups, outputs, inputs)."""
        u, y = self.means()
        return y - (weights.double() @ u[..., None])[..., 0]

    def means(self) -> tuple[torch.Tensor, torch.Tensor]:
        """ū, (groups, inputs), and ȳ, (groups, outputs), both float64."""
        n = max(1, self.rows)
        u, y = self._u / n, self._y / n
        if self._shift_u is not None and self._shift_y is not None:
            u, y = u + self._shift_u[:, 0], y + self._shift_y[:, 0]
        return u, y

    def error(self, weights: torch.Tensor, bias: torch.Tensor | None = None) -> tuple[float, float]:
        """Σ‖y − wu − b‖² over all rows, and Σ‖y − ȳ‖² (Σ‖y‖² without a free bias).

        Args:
            weights: (groups, outputs, inputs) w.
            bias: (groups, outputs) b; by default the best one.
        """
        gram, cross, squares = self._centered()
        w = weights.double()
        value = ((w @ gram) * w).sum() - 2 * (w.mT * cross).sum() + squares.sum()
        if bias is not None and self.free_bias:
            value += self.rows * (bias.double() - self.bias(w)).square().sum()
        return value.clamp_min(0).item(), squares.sum().item()


def solve(
    gram: torch.Tensor, cross: torch.Tensor, prior: torch.Tensor, keep: torch.Tensor, ridge: float
) -> torch.Tensor:
    """w_oS = (G_SS + λI)⁻¹(C_oS + λw̄_oS) for each output o with kept inputs S, and 0 elsewhere.

    Args:
        gram: (groups, inputs, inputs) float64 G.
        cross: (groups, outputs, inputs) float64 C.
        prior: (groups, outputs, inputs) w̄.
        keep: (groups, outputs, inputs) bool.
        ridge: λ as a multiple of the mean of the diagonal of G, at least 0.

    Returns:
        (groups, outputs, inputs) float64.

    Raises:
        NumericalError: The equations are singular; a larger ridge isn't.
    """
    prior = prior.double()
    found = [
        _solve_group(gram[g], cross[g], prior[g], keep[g], ridge * gram[g].diagonal().mean()) for g in range(len(gram))
    ]
    return torch.stack(found)


def _solve_group(
    gram: torch.Tensor, cross: torch.Tensor, prior: torch.Tensor, keep: torch.Tensor, penalty: torch.Tensor
) -> torch.Tensor:
    """Solve for one group: ``cross``, ``prior`` and ``keep`` are (outputs, inputs).

    Where all inputs are constant, as behind units that have lost theirs, nothing moves the weights from their prior.
    """
    if not bool(gram.any()):
        return prior * keep
    left = with_penalty(gram, penalty)
    right = (cross + penalty * prior) * keep
    mostly = 2 * keep.sum(1) > keep.shape[1]
    found = torch.zeros_like(prior)
    if bool((~mostly).any()):
        found[~mostly] = _solve_blocks(left, right[~mostly], keep[~mostly])
    if bool(mostly.any()):
        # With w* the solution that keeps all, and R what goes: w = w* − A⁻¹_:R (A⁻¹_RR)⁻¹ w*_R, A = G + λI.
        inverse = torch.cholesky_inverse(_cholesky(left))
        whole = right[mostly] @ inverse
        found[mostly] = whole - _solve_blocks(inverse, whole, ~keep[mostly]) @ inverse
    return found * keep


def _solve_blocks(left: torch.Tensor, right: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """For each row: solve A_SS x_S = b_S for the chosen S, with x = 0 elsewhere."""
    found = torch.zeros_like(right)
    for rows, positions, real, factor in _factors(left, chosen, 2):
        # One factor serves all rows, or each row has its own.
        sides = right[rows][:, positions[0]].T if len(factor) == 1 else right[rows].gather(1, positions)[..., None]
        solved = torch.cholesky_solve(sides, factor)
        solved = solved[0].T if len(factor) == 1 else solved[..., 0]
        found[rows] = found[rows].scatter_add(1, positions.expand(len(solved), -1), solved * real)
    return found


def inverse_diagonals(gram: torch.Tensor, keep: torch.Tensor, ridge: float = RIDGE) -> torch.Tensor:
    """The diagonal of (G_SS + λI)⁻¹ for the kept inputs S of each output.

    Args:
        gram: (inputs, inputs) float64 G.
        keep: (outputs, inputs) bool.
        ridge: λ as a multiple of the mean of the diagonal of G.

    Returns:
        (outputs, inputs) float64; 0 where nothing is kept, and infinite elsewhere if all inputs are constant.

    Raises:
        NumericalError: The matrix is singular; with a larger ridge it isn't.
    """
    if not bool(gram.any()):
        return torch.zeros(keep.shape, dtype=torch.float64, device=gram.device).masked_fill_(keep, torch.inf)
    left = with_penalty(gram, ridge * gram.diagonal().mean())
    mostly = 3 * keep.sum(1) > 2 * keep.shape[1]
    found = torch.zeros(keep.shape, dtype=torch.float64, device=gram.device)
    for rows, positions, real, factor in _factors(left, keep & ~mostly[:, None], 2):
        diagonals = (torch.cholesky_inverse(factor).diagonal(dim1=1, dim2=2) * real).expand(len(rows), -1)
        found[rows] = found[rows].scatter_add(1, positions.expand(len(rows), -1), diagonals)
    if bool(mostly.any()):
        # By the inverse of a partitioned matrix, with R what goes: diag(A⁻¹)_S − diag(A⁻¹_SR (A⁻¹_RR)⁻¹ A⁻¹_RS).
        inverse = torch.cholesky_inverse(_cholesky(left))
        found[mostly] = inverse.diagonal()
        for rows, positions, real, factor in _factors(inverse, ~keep & mostly[:, None], 1):
            half = torch.linalg.solve_triangular(factor, inverse[positions] * real[..., None], upper=False)
            found[rows] -= half.square().sum(1)
    return found * keep


def with_penalty(matrix: torch.Tensor, penalty: torch.Tensor | float) -> torch.Tensor:
    """A + λI, a copy."""
    left = matrix.clone()
    left.diagonal().add_(penalty)
    return left


def cholesky(matrix: torch.Tensor, subject: str, *, expected: str, found: str, remedy: str) -> torch.Tensor:
    """The lower factor of a matrix, or of each of several.

    Raises:
        NumericalError: One has none; with this text.
    """
    factor: torch.Tensor
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if bool((failed != 0).any()):
        raise NumericalError(subject, expected=expected, found=found, remedy=remedy)
    return factor


_cholesky = partial(
    cholesky,
    subject="the equations of a layer",
    expected="inputs that determine its weights",
    found="inputs that depend on each other",
    remedy="take a larger `ridge` or more `samples`",
)


def _factors(
    left: torch.Tensor, chosen: torch.Tensor, order: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Cholesky factors of the blocks A_SS for the chosen inputs S of each output; outputs without any are left out.

    Args:
        left: (inputs, inputs) A.
        chosen: (outputs, inputs) bool.
        order: 2 if the caller needs (m, s, s) memory, 1 if it needs (m, s, inputs).

    Yields:
        Some outputs, (n,); where S is, padded to the same length s, (m, s); which of that isn't padding, (m, s); the
        factors, (m, s, s). m is n, or 1 if all these outputs have the same S.
    """
    counts = chosen.sum(1)
    # Outputs of similar length together, since the shorter ones are padded.
    ranking = counts.argsort(descending=True, stable=True)
    ranking = ranking[counts[ranking] > 0]
    same = bool((chosen[ranking] == chosen[ranking[:1]]).all())
    start = 0
    while start < len(ranking):
        size = int(counts[ranking[start]])
        width = size if order == 2 else chosen.shape[1]
        rows = ranking if same else ranking[start : start + max(1, _CHUNK_VALUES // (size * width))]
        start += len(rows)
        positions, real = _positions(chosen[rows[:1] if same else rows], size)
        blocks = left[positions[:, :, None], positions[:, None, :]]
        blocks *= real[:, :, None] & real[:, None, :]
        blocks.diagonal(dim1=1, dim2=2).add_(~real)
        yield rows, positions, real, _cholesky(blocks)


def _positions(chosen: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each row of a mask is True, padded to the same length.

    Args:
        chosen: (rows, inputs) bool, with at most ``size`` True in a row.
        size: The length.

    Returns:
        (rows, size) int64 positions, 0 where padded, and (rows, size) bool, False where padded.
    """
    positions = torch.zeros(len(chosen), size, dtype=torch.int64, device=chosen.device)
    row, column = chosen.nonzero(as_tuple=True)
    positions[row, chosen.cumsum(1)[row, column] - 1] = column
    return positions, torch.arange(size, device=chosen.device) < chosen.sum(1, keepdim=True)
