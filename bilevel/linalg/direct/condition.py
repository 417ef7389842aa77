"""Is a factorised matrix singular to working precision? One random right-hand side tells, after scaling.

A random vector is almost never orthogonal to the direction that an almost singular matrix amplifies, so the size of
one solution estimates the norm of the inverse (Dixon 1983, SIAM J. Numer. Anal. 20, 812).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from bilevel.linalg.operator import Dense, LinearOperator, Sparse, SparsePattern
from bilevel.report import SingularError

LARGEST_RESIDUAL = 1e-4
"""A random right-hand side that is missed by more than this shows a matrix that cannot be solved with."""


@dataclass(frozen=True)
class Scales:
    """Scales that bring the largest entries of a matrix's rows and columns near one, and its norm after that."""

    rows: Tensor
    columns: Tensor
    norm: Tensor


@dataclass(frozen=True)
class Probe:
    """What one random right-hand side showed: estimated reciprocal condition and relative residual, each (*batch)."""

    rcond: Tensor
    residual: Tensor
    threshold: float

    @property
    def sound(self) -> Tensor:
        """Whether the factorisation can be trusted (*batch); False for NaN."""
        return (self.rcond > self.threshold) & (self.residual < LARGEST_RESIDUAL)


@lru_cache(maxsize=8)
def random_signs(n: int) -> Tensor:
    """A fixed vector of random signs (n,)."""
    # NumPy draws them: torch refuses random numbers under vmap, where Jacobians are taken.
    return torch.from_numpy(np.random.default_rng(n).choice([-1.0, 1.0], n))


def probe(A: Dense | Sparse, solve: Callable[[Tensor], Tensor]) -> Probe:
    """Solve with one random right-hand side (1, *batch, n), scaled by rows, and see how well that went."""
    return _sparse_probe(A, solve) if isinstance(A, Sparse) else _dense_probe(A, solve)


def _dense_probe(A: Dense, solve: Callable[[Tensor], Tensor]) -> Probe:
    scales = _dense_scales(A)
    b = scales.rows * random_signs(A.n).to(scales.rows)
    x = solve(b.unsqueeze(0))[0]
    residual = ((A.matmul(x) - b) / scales.rows).abs().amax(-1)
    rcond = 1.0 / (scales.norm * (scales.columns * x).abs().amax(-1))
    return Probe(rcond.nan_to_num(0.0), residual.nan_to_num(torch.inf), _threshold(A.n, x))


def _dense_scales(A: Dense) -> Scales:
    """Scales of dense matrices; the square roots of the row maxima on both sides where they are symmetric."""
    entries = A.matrix.abs()
    rows = _no_zeros(entries.amax(-1))
    if A.structure.symmetric:
        rows = columns = rows.sqrt()
    else:
        columns = _no_zeros((entries / rows.unsqueeze(-1)).amax(-2))
    norm = (entries / columns.unsqueeze(-2)).sum(-1).div(rows).amax(-1)
    return Scales(rows, columns, norm)


def _no_zeros(scale: Tensor) -> Tensor:
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def _sparse_probe(A: Sparse, solve: Callable[[Tensor], Tensor]) -> Probe:
    """The same in NumPy over rows in storage order: torch's calls and scattering cost more than the back-substitution."""
    values, pattern = A.values.detach().numpy(), A.pattern
    entries, starts, lengths = np.abs(values), *pattern.derive("row starts", lambda: _row_starts(pattern))
    rows = _positive(np.maximum.reduceat(entries, starts))
    if A.structure.symmetric:
        rows = columns = np.sqrt(rows)
    else:
        by_column, column_starts = pattern.derive("by column", lambda: _by_column(pattern))
        columns = _positive(np.maximum.reduceat((entries / np.repeat(rows, lengths))[by_column], column_starts))
    norm = (np.add.reduceat(entries / columns[pattern.indices], starts) / rows).max()
    b = rows * random_signs(A.n).numpy()
    x = solve(torch.from_numpy(b).unsqueeze(0))[0]
    with np.errstate(all="ignore"):  # solutions with a singular matrix may be anything
        residual = np.abs((pattern.csr(values) @ x.numpy() - b) / rows).max()
        rcond = 1.0 / (norm * np.abs(columns * x.numpy()).max())
    rcond = torch.as_tensor(rcond if rcond == rcond else 0.0)
    return Probe(rcond, torch.as_tensor(residual), _threshold(A.n, x))  # of which NaN is not sound, too


def _threshold(n: int, x: Tensor) -> float:
    """The reciprocal condition that rounding alone may leave of a singular matrix."""
    return 10.0 * n**0.5 * torch.finfo(x.dtype).eps


def _positive(scale: np.ndarray) -> np.ndarray:
    return np.where(scale > 0, scale, scale.dtype.type(1))


def _row_starts(pattern: SparsePattern) -> tuple[np.ndarray, np.ndarray]:
    """Where each row starts and how many entries it has."""
    return pattern.indptr[:-1].astype(np.int64), np.diff(pattern.indptr)


def _by_column(pattern: SparsePattern) -> tuple[np.ndarray, np.ndarray]:
    """The entries in order of their columns, and where each column starts; every diagonal entry must be stored."""
    starts = np.concatenate([[0], np.cumsum(np.bincount(pattern.indices, minlength=pattern.n))[:-1]])
    return np.argsort(pattern.indices, kind="stable"), starts


def check_null_space(A: LinearOperator) -> None:
    """Raise SingularError unless the declared null space is one: |A Z| small beside what A does to random vectors."""
    z = A.structure.null_space
    if z is None:
        return
    size = A.matmul(_probe_rows(A)).norm(dim=-1).amax(0)
    missed = A.matmul(_as_rows(A, z)).norm(dim=-1).amax(0)
    wrong = missed > torch.finfo(size.dtype).eps ** 0.5 * size
    if bool(wrong.any()):
        raise SingularError(
            f"the declared null space is not one: |A z| = {float(missed[wrong][0]):.3g} where a random unit vector "
            f"gives {float(size[wrong][0]):.3g}; declare only motions that leave the residual unchanged, or none"
        )


def _as_rows(A: LinearOperator, columns: Tensor) -> Tensor:
    """Columns (n, k) or (*batch, n, k) as right-hand sides (k, *batch, n)."""
    if columns.dim() > 2:
        return columns.movedim(-1, 0)
    rows = columns.mT.reshape(-1, *([1] * len(A.batch)), A.n)
    return rows.expand(-1, *A.batch, -1)


def _probe_rows(A: LinearOperator) -> Tensor:
    z = A.structure.null_space
    assert z is not None
    signs = random_signs(A.n).to(z) / A.n**0.5
    return _as_rows(A, signs.unsqueeze(-1))
