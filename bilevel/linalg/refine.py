"""Solves with the factorisation of a nearby matrix: it preconditions the matrix that is meant."""

from __future__ import annotations

import torch
from torch import Tensor

from bilevel.linalg.cg import cg
from bilevel.linalg.gmres import gmres
from bilevel.linalg.iterative import complain
from bilevel.linalg.krylov import Run
from bilevel.linalg.operator import LinearOperator
from bilevel.linalg.solver import Factor
from bilevel.report import OnFail

REMEDY = "factorise the matrix anew, or declare its null space"


def refine(
    factor: Factor,
    A: LinearOperator,
    b: Tensor,
    transposed: bool = False,
    tolerance: float = 1e-10,
    *,
    max_iterations: int = 100,
    on_fail: OnFail = "raise",
) -> Tensor:
    """The solution of A x = b (or A^T x = b) for b (..., *batch, n), preconditioned by a factor of A or of a matrix near it.

    tolerance: relative residual ||b - A x|| / ||b||, judged truly; rounding error of the product counts as met.
    Raises ConvergenceError where max_iterations products do not reach it.
    """
    event = 1 + len(A.batch)
    project = A.structure.project
    rows = project(b.detach()).reshape(-1, *b.shape[b.dim() - event :])
    with torch.no_grad():
        run = _run(factor, A, rows, transposed, tolerance, max_iterations)
    factor.counts.products += run.products
    complain(run, "the refined solve", tolerance, REMEDY, on_fail)
    return project(run.x).reshape(b.shape)


def _run(factor: Factor, A: LinearOperator, b: Tensor, transposed: bool, tolerance: float, limit: int) -> Run:
    """Conjugate gradients where all is symmetric positive definite, GMRES where not, or where that turns out untrue."""
    project = A.structure.project
    matmul = A.matmul_transposed if transposed else A.matmul
    precondition = factor.solve_transposed if transposed else factor.solve

    def product(x: Tensor) -> Tensor:
        return project(matmul(x))

    start = precondition(b)
    if (
        A.structure.symmetric
        and factor.positive_definite is not None
        and bool(torch.as_tensor(factor.positive_definite).all())
    ):
        run = cg(product, b, tolerance=tolerance, max_iterations=limit, precondition=precondition, start=start)
        if bool(run.solved.all()):
            return run
        start = run.x
    return gmres(product, b, tolerance=tolerance, max_iterations=limit, precondition=precondition, start=start)
