"""A direct factor of an earlier matrix as the preconditioner for a later one that differs little."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bilevel.linalg.krylov.rows import Run
from bilevel.linalg.operator import LinearOperator, Sparse
from bilevel.linalg.solver import Factor

SIMILAR = 0.1
"""Matrices that differ by less than this fraction, in the Frobenius norm, are worth a try."""

PRODUCTS = 10
"""How many products a solve may take before a factorisation of the matrix itself is cheaper."""

EXACT = 1e-13
"""Relative residual of solves that are to be as good as a direct one."""

ROUGH = 1e-6
"""Relative residual of rough solves at most: every product gains one or two digits here."""


class ReusedFactor(Factor):
    """Solves with A by GMRES preconditioned with a factor of an earlier matrix; factorises A where that takes too long.

    earlier: a direct factor, or a ReusedFactor, whose direct factor is then taken. renew: factorises A.
    """

    def __init__(self, A: Sparse, earlier: Factor, renew: Callable[[LinearOperator], Factor]) -> None:
        super().__init__(A)
        self.renew = renew
        self.direct: Factor | None = direct_of(earlier)
        self.counts.factorisations = 0

    def solve_roughly(self, b: Tensor, tolerance: float) -> Tensor:
        rows = b.detach().reshape(1, -1)
        return self._refined(rows, False, min(max(tolerance, EXACT), ROUGH)).reshape(b.shape)

    def refine_rows(self, A: LinearOperator, b: Tensor, transposed: bool, tolerance: float, limit: int | None) -> Run:
        return self._known().refine_rows(A, b, transposed, tolerance, limit)

    def _back_substitute(self, rows: Tensor, transposed: bool) -> Tensor:
        return self._refined(rows, transposed, EXACT)

    def _refined(self, rows: Tensor, transposed: bool, tolerance: float) -> Tensor:
        run = self._known().refine_rows(self.A, rows, transposed, tolerance, PRODUCTS)
        self.counts.products += run.products
        if bool(run.solved.all()):
            return run.x
        self.direct = None  # gives its memory back before the next is made
        self.direct = self.renew(self.A)
        self.singular = self.direct.singular
        self.counts.factorisations += 1
        return self.direct.solve_transposed(rows) if transposed else self.direct.solve(rows)

    def _known(self) -> Factor:
        assert self.direct is not None
        return self.direct


def direct_of(factor: Factor) -> Factor:
    """The direct factor that solves with `factor` rest on."""
    return factor._known() if isinstance(factor, ReusedFactor) else factor


def made_for_similar(A: Sparse, earlier: Factor | None) -> bool:
    """Whether the direct factor under `earlier` is that of a regular matrix with the pattern of A and similar values."""
    if earlier is None:
        return False
    made_for = direct_of(earlier).A
    if not isinstance(made_for, Sparse) or made_for.pattern is not A.pattern or bool(earlier.singular):
        return False
    difference = torch.linalg.vector_norm(A.values - made_for.values)
    return bool(difference <= SIMILAR * torch.linalg.vector_norm(made_for.values))


def made_for(A: Sparse, factor: Factor | None) -> bool:
    """Whether the direct factor that solves with `factor` rest on is that of A itself."""
    own = None if factor is None else direct_of(factor).A
    return isinstance(own, Sparse) and torch.equal(own.values, A.with_diagonal().values)
