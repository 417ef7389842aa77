"""The lower bound: bare solver calls on the very matrices and right-hand sides that Newton's method met, nothing else."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from benchmarks.references.plain_newton import Multigrid
from bilevel.linalg.direct.layout import upper_triangle
from bilevel.linalg.direct.pardiso_library import Analysis, MatrixType
from bilevel.linalg.krylov.cg import cg
from bilevel.linalg.multigrid.hierarchy import set_up
from bilevel.linalg.operator import Sparse

Systems = list[tuple[Sparse, Tensor, float]]
"""Matrix, right-hand side (n,) and the relative residual sought, for each Newton iteration."""


def pardiso_seconds(systems: Systems, with_analysis: bool = True) -> float:
    """One analysis, if it is to count; a Cholesky factorisation and a solve for each system."""
    stored = upper_triangle(systems[0][0].pattern)
    started = time.perf_counter()
    entries = stored.entries(systems[0][0].values)
    analysis = Analysis(MatrixType.POSITIVE_DEFINITE, stored.indptr, stored.indices, entries)
    started = started if with_analysis else time.perf_counter()
    for matrix, b, _ in systems:
        entries = stored.entries(matrix.values)
        slot = analysis.take_slot()
        assert slot is not None
        factor = analysis.factor(entries, slot)
        if factor is None:
            return float("inf")
        factor.solve(b.numpy()[None])
        del factor
    return time.perf_counter() - started


def multigrid_seconds(systems: Systems) -> float:
    """One smoothed-aggregation set-up with rigid motions; CG for each system to the residual that was sought."""
    started = time.perf_counter()
    levels = set_up(systems[0][0])
    for matrix, b, tolerance in systems:
        run = cg(matrix.matmul, b.unsqueeze(0), tolerance=tolerance, max_iterations=500, precondition=levels.cycle)
        if not bool(run.solved.all()):
            return float("inf")
    return time.perf_counter() - started


def pyamg_seconds(systems: Systems) -> float:
    """The same by pyamg as it comes, cycle included."""
    modes = systems[0][0].structure.near_null_space
    assert modes is not None
    started = time.perf_counter()
    linear = Multigrid(modes.numpy())
    for matrix, b, tolerance in systems:
        linear.update(matrix.csr())
        linear.solve(b.numpy(), tolerance)
    return time.perf_counter() - started


@torch.no_grad()
def bound_seconds(systems: Systems, direct_up_to: int) -> dict[str, float]:
    """Seconds by each way; PARDISO is tried up to `direct_up_to` unknowns only."""
    times = {"our multigrid": multigrid_seconds(systems), "pyamg": pyamg_seconds(systems)}
    if systems[0][0].n <= direct_up_to:
        times["PARDISO"] = pardiso_seconds(systems)
    return times


@torch.no_grad()
def multigrid_iterations(systems: Systems, tolerance: float) -> int:
    """Iterations of conjugate gradients for the first system."""
    matrix, b, _ = systems[0]
    levels = set_up(matrix)
    run = cg(matrix.matmul, b.unsqueeze(0), tolerance=tolerance, max_iterations=500, precondition=levels.cycle)
    return run.products if bool(run.solved.all()) else 500
