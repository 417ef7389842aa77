"""What every linear solver offers: factor once, then solve with A and A^T, many right-hand sides at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from bilevel.linalg.krylov.cg import cg
from bilevel.linalg.krylov.gmres import gmres
from bilevel.linalg.krylov.rows import LARGEST_FLOOR, ROUNDING, Run, checked_run, divide, norm
from bilevel.linalg.operator import LinearOperator
from bilevel.report import Counts, InputError, OnFail, SingularError, fail

SINGULAR = (
    "the matrix is singular to working precision (estimated reciprocal condition {rcond:.1g}); "
    "constrain the unknowns that are free to move, or declare the null space in Structure.null_space"
)
NOT_FINITE = "the matrix has entries that are NaN or infinite; shorten the step, or check the start and the parameters"

REFINEMENTS = 100
"""How many products a direct factor of a nearby matrix may take to solve with the matrix that is meant."""


class Factor(ABC):
    """A matrix made ready for solves.

    positive_definite: what the factorisation learned (True, False, or None where it cannot tell); one entry per sample
        (a bool tensor of shape batch) for batches.
    negative_eigenvalues: how many there are (per sample for batches), or None where the factorisation cannot tell.
    singular: whether the matrix was found singular (per sample for batches); only seen with on_fail other than "raise".
        Solutions with a singular matrix are NaN.
    counts: factorisations, back-substitutions and products so far.
    """

    def __init__(self, A: LinearOperator) -> None:
        self.A = A
        self.positive_definite: bool | Tensor | None = None
        self.negative_eigenvalues: int | Tensor | None = None
        self.singular: bool | Tensor = False
        self.counts = Counts(factorisations=1)

    def solve(self, b: Tensor) -> Tensor:
        """The solution of A x = b for b (..., *batch, n); x, and the part of b used, are orthogonal to null spaces."""
        return self._solve_rows(b, transposed=False)

    def solve_transposed(self, b: Tensor) -> Tensor:
        """The solution of A^T x = b for b (..., *batch, n)."""
        return self._solve_rows(b, transposed=True)

    def solve_roughly(self, b: Tensor, tolerance: float) -> Tensor:
        """As `solve`; iterative methods may stop at the relative residual `tolerance`."""
        return self.solve(b)

    def detect_negative_curvature(self) -> bool | Tensor | None:
        """`positive_definite`, after a closer search where the factorisation was made without one."""
        return self.positive_definite

    def refine_rows(self, A: LinearOperator, b: Tensor, transposed: bool, tolerance: float, limit: int | None) -> Run:
        """Solve A x = b for rows b (m, *batch, n) and a matrix A near the factorised one, by at most `limit` products.

        Conjugate gradients where all is symmetric positive definite, GMRES where not, or where that turns out untrue.
        """
        project, matmul = A.structure.project, A.matmul_transposed if transposed else A.matmul
        precondition = self.solve_transposed if transposed else self.solve
        limit = limit or REFINEMENTS

        def product(x: Tensor) -> Tensor:
            return project(matmul(x))

        start = precondition(b)
        run = checked_run(product, b, start, b - product(start), tolerance, 1)
        if bool(run.solved.all()):
            return run
        goal = _attainable(A, start, b, transposed, tolerance)
        definite = self.positive_definite is not None and bool(torch.as_tensor(self.positive_definite).all())
        if A.structure.symmetric and definite:
            run = cg(product, b, tolerance=goal, max_iterations=limit, precondition=precondition, start=start)
            if bool(run.solved.all()):
                return run
            start = torch.where((run.residual < 1.0).unsqueeze(-1), run.x, 0.0)
        return gmres(product, b, tolerance=goal, max_iterations=limit, precondition=precondition, start=start)

    def _solve_rows(self, b: Tensor, transposed: bool) -> Tensor:
        event = (*self.A.batch, self.A.n)
        if tuple(b.shape[b.dim() - len(event) :]) != event:
            raise InputError(
                f"the right-hand side must have shape (..., {', '.join(map(str, event))}), got {tuple(b.shape)}"
            )
        rows = self.A.structure.project(b.detach()).reshape(-1, *event)
        self.counts.back_substitutions += rows.shape[0]
        with torch.no_grad():
            x = self._back_substitute(rows, transposed)
        return self.A.structure.project(x.reshape(b.shape))

    @abstractmethod
    def _back_substitute(self, rows: Tensor, transposed: bool) -> Tensor:
        """Solve for right-hand sides (m, *batch, n)."""


class LinearSolver(ABC):
    """A way to solve linear systems; its fields are its settings.

    Other packages add theirs by an entry point of the group `bilevel.linear_solvers` that names the class.
    precedence: solvers of higher precedence are asked first whether they suit.
    """

    precedence: ClassVar[int] = 0

    def suits(self, A: LinearOperator, right_hand_sides: int) -> bool:
        """Whether this is the solver to pick for A where the user chose none; by default it is used only when chosen."""
        return False

    def resolve(self, A: LinearOperator, right_hand_sides: int = 1) -> LinearSolver:
        """The solver that A is given to; another one only where this one chooses among several."""
        return self

    @abstractmethod
    def factor(self, A: LinearOperator, on_fail: OnFail = "raise") -> Factor:
        """Make A ready for solves.

        Raises SingularError for a matrix without a unique solution unless its null space is declared, or where a
        declared null space is not one; with `on_fail` "warn" or "ignore" singular matrices are marked in
        `Factor.singular` instead.
        """

    def reuses(self, A: LinearOperator, earlier: Factor | None) -> bool:
        """Whether `follow` builds on the earlier factor; if not, that may as well give its memory back first."""
        return False

    def follow(self, A: LinearOperator, earlier: Factor | None, on_fail: OnFail = "raise") -> Factor:
        """As `factor`, within a sequence of similar matrices: what was made for the earlier one may be used again.

        Iterative methods then leave `positive_definite` None until a solve meets negative curvature.
        """
        return self.factor(A, on_fail)


def _attainable(A: LinearOperator, x: Tensor, b: Tensor, transposed: bool, tolerance: float) -> Tensor:
    """The tolerance, or the rounding error of A x relative to b where that is larger (m, *batch, 1).

    Rows of very different size need |A| |x| entry by entry: a norm of A would be that of its largest rows alone.
    """
    rounding = ROUNDING * torch.finfo(b.dtype).eps * norm(A.absolute(x, transposed))
    return divide(rounding, norm(b)).nan_to_num(nan=0.0).clamp(min=tolerance, max=max(tolerance, LARGEST_FLOOR))


def refuse_singular(rcond: float, on_fail: OnFail) -> None:
    """Say that a matrix is singular, as `on_fail` asks."""
    fail(SINGULAR.format(rcond=rcond), on_fail, SingularError)
