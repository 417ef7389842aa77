"""Krylov methods behind the one interface; a factorisation here is no more than a preconditioner."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bilevel.linalg.direct.condition import check_null_space
from bilevel.linalg.krylov.cg import cg
from bilevel.linalg.krylov.gmres import gmres
from bilevel.linalg.krylov.lanczos import lanczos, start_vector
from bilevel.linalg.krylov.minres import minres
from bilevel.linalg.krylov.rows import Product, Run, identity
from bilevel.linalg.operator import LinearOperator, MatrixFree, Sparse
from bilevel.linalg.solver import Factor, LinearSolver
from bilevel.report import OnFail, fail

DEFINITENESS_STEPS = 40


@dataclass(frozen=True)
class MINRES(LinearSolver):
    """MINRES for symmetric operators, with Jacobi scaling where the diagonal is known.

    tolerance: relative residual ||b - A x|| / ||b||. max_iterations: by default 5 n, at least 1000.
    """

    tolerance: float = 1e-10
    max_iterations: int | None = None

    def suits(self, A: LinearOperator, right_hand_sides: int) -> bool:
        return _by_products_only(A) and A.structure.indefinite

    def factor(self, A: LinearOperator, on_fail: OnFail = "raise") -> Factor:
        factor = MINRESFactor(A, self.tolerance, self.max_iterations, on_fail)
        factor.positive_definite = _definite(A)
        return factor


@dataclass(frozen=True)
class GMRES(LinearSolver):
    """Restarted GMRES for any operator, with Jacobi scaling where the diagonal is known; settings as in MINRES."""

    tolerance: float = 1e-10
    max_iterations: int | None = None
    restart: int = 50

    def suits(self, A: LinearOperator, right_hand_sides: int) -> bool:
        return _by_products_only(A) and not A.structure.symmetric

    def factor(self, A: LinearOperator, on_fail: OnFail = "raise") -> Factor:
        factor = GMRESFactor(A, self.tolerance, self.max_iterations, on_fail)
        factor.restart = self.restart
        return factor


@dataclass(frozen=True)
class CG(LinearSolver):
    """Conjugate gradients with Jacobi scaling where the diagonal is known; settings as in MINRES.

    Where the model does not promise that A is positive definite, 40 Lanczos steps look for negative curvature first,
    and `otherwise` takes over if there is any.
    """

    tolerance: float = 1e-10
    max_iterations: int | None = None
    otherwise: LinearSolver = field(default_factory=MINRES)

    def suits(self, A: LinearOperator, right_hand_sides: int) -> bool:
        return _by_products_only(A) and A.structure.symmetric and not A.structure.indefinite

    def factor(self, A: LinearOperator, on_fail: OnFail = "raise") -> Factor:
        definite = _definite(A)
        if not bool(torch.as_tensor(definite).all()):
            return self.otherwise.factor(A, on_fail)
        factor = CGFactor(A, self.tolerance, self.max_iterations, on_fail)
        factor.positive_definite = definite
        return factor


def _by_products_only(A: LinearOperator) -> bool:
    """Whether no factorisation takes A: its entries are not known, or not on the CPU."""
    return isinstance(A, MatrixFree) or (isinstance(A, Sparse) and A.values.device.type != "cpu")


class IterativeFactor(Factor):
    """Shared by the three: Jacobi preconditioner, projection, and what to say when the tolerance was not met."""

    remedy = "the matrix may be singular or ill-conditioned: give a sparse tangent, the diagonal, or more iterations"

    def __init__(self, A: LinearOperator, tolerance: float, max_iterations: int | None, on_fail: OnFail) -> None:
        super().__init__(A)
        check_null_space(A)
        self.tolerance, self.on_fail = tolerance, on_fail
        self.max_iterations = max_iterations or max(1000, 5 * A.n)
        self.precondition = jacobi(A)

    def refine_rows(self, A: LinearOperator, b: Tensor, transposed: bool, tolerance: float, limit: int | None) -> Run:
        project, matmul = A.structure.project, A.matmul_transposed if transposed else A.matmul
        return self._run(
            lambda x: project(matmul(x)),
            b,
            tolerance=tolerance,
            max_iterations=limit or self.max_iterations,
            precondition=lambda r: project(self.precondition(r)),
        )

    def solve_roughly(self, b: Tensor, tolerance: float) -> Tensor:
        exact, self.tolerance = self.tolerance, max(tolerance, self.tolerance)
        try:
            return self.solve(b)
        finally:
            self.tolerance = exact

    def _back_substitute(self, rows: Tensor, transposed: bool) -> Tensor:
        run = self.refine_rows(self.A, rows, transposed, self.tolerance, None)
        self.counts.products += run.products
        complain(run, type(self).__name__, self.tolerance, self.remedy, self.on_fail)
        return run.x

    @abstractmethod
    def _run(self, product: Product, b: Tensor, *, tolerance: float, max_iterations: int, precondition: Product) -> Run:
        """Run the method."""


class CGFactor(IterativeFactor):
    """Solves by conjugate gradients."""

    def _run(self, product: Product, b: Tensor, *, tolerance: float, max_iterations: int, precondition: Product) -> Run:
        run = cg(product, b, tolerance=tolerance, max_iterations=max_iterations, precondition=precondition)
        if bool((run.negative & ~run.solved).any()):
            self.positive_definite = False
            self.remedy = "CG met negative curvature, so the matrix is not positive definite; use MINRES"
        return run


class MINRESFactor(IterativeFactor):
    """Solves by MINRES."""

    def _run(self, product: Product, b: Tensor, *, tolerance: float, max_iterations: int, precondition: Product) -> Run:
        return minres(product, b, tolerance=tolerance, max_iterations=max_iterations, precondition=precondition)


class GMRESFactor(IterativeFactor):
    """Solves by restarted GMRES."""

    restart = 50

    def _run(self, product: Product, b: Tensor, *, tolerance: float, max_iterations: int, precondition: Product) -> Run:
        return gmres(
            product,
            b,
            tolerance=tolerance,
            max_iterations=max_iterations,
            restart=self.restart,
            precondition=precondition,
        )


def complain(run: Run, name: str, tolerance: float, remedy: str, on_fail: OnFail) -> None:
    """Say that a Krylov method missed its tolerance."""
    if not bool(run.solved.all()):
        worst = float(run.residual[~run.solved].max())
        fail(
            f"{name} stopped at relative residual {worst:.3g} after {run.products} products (tolerance "
            f"{tolerance:.3g}); {remedy}",
            on_fail,
        )


def jacobi(A: LinearOperator) -> Product:
    """Division by the absolute diagonal, where A knows one without zeros."""
    diagonal = A.diagonal_entries()
    if diagonal is None or bool((diagonal == 0).any()):
        return identity
    inverse = 1.0 / diagonal.abs()
    return lambda rows: rows * inverse


def _definite(A: LinearOperator) -> bool | Tensor:
    """Whether A is positive definite beside its null space (*batch): promised, or no negative curvature found."""
    known = A.structure.positive_definite
    if known is not None:
        return torch.full(A.batch, known) if A.batch else known
    start = start_vector(A.n, A.batch, A.example())
    lowest = lanczos(A.matmul, start, min(DEFINITENESS_STEPS, A.n), A.structure.project).values[..., 0]
    return lowest > 0 if A.batch else bool(lowest > 0)
