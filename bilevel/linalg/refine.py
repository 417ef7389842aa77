"""Solves with the factorisation of a nearby matrix: it preconditions the matrix that is meant."""

from __future__ import annotations

import torch
from torch import Tensor

from bilevel.linalg.krylov.solvers import complain
from bilevel.linalg.operator import LinearOperator
from bilevel.linalg.solver import Factor
from bilevel.report import OnFail

REMEDY = "the factorised matrix is too far from this one, or this one is singular: factorise it anew"


def refine(
    factor: Factor,
    A: LinearOperator,
    b: Tensor,
    transposed: bool = False,
    tolerance: float = 1e-10,
    *,
    max_iterations: int | None = None,
    on_fail: OnFail = "raise",
) -> Tensor:
    """The solution of A x = b (or A^T x = b) for b (..., *batch, n), by a factor of A or of a matrix near it.

    tolerance: relative residual ||b - A x|| / ||b||, of the true residual; rounding error of the product counts as met.
    Raises ConvergenceError where max_iterations products (100 for direct factors) do not reach it.
    """
    event = 1 + len(A.batch)
    project = A.structure.project
    rows = project(b.detach()).reshape(-1, *b.shape[b.dim() - event :])
    with torch.no_grad():
        run = factor.refine_rows(A, rows, transposed, tolerance, max_iterations)
    factor.counts.products += run.products
    complain(run, "the refined solve", tolerance, REMEDY, on_fail)
    return project(run.x).reshape(b.shape)
