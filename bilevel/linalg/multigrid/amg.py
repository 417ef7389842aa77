"""Conjugate gradients preconditioned by smoothed-aggregation multigrid, behind the one interface."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from bilevel.linalg.direct.condition import random_signs
from bilevel.linalg.direct.layout import complete, is_sparse_on_cpu
from bilevel.linalg.direct.pardiso_library import library
from bilevel.linalg.krylov.cg import cg
from bilevel.linalg.krylov.rows import Run
from bilevel.linalg.krylov.solvers import MINRES, CGFactor
from bilevel.linalg.multigrid.hierarchy import Hierarchy, set_up
from bilevel.linalg.operator import LinearOperator, Sparse
from bilevel.linalg.solver import Factor, LinearSolver
from bilevel.report import InputError, OnFail

DEFINITENESS_TOLERANCE = 1e-4
FROM = 40_000
"""Unknowns above which multigrid beats PARDISO in three dimensions; in two, factorisations win up to a million."""
FROM_WITHOUT_PARDISO = 10_000
FROM_FOR_MANY = 300_000
"""The same for many right-hand sides, with which a factorisation pays; this one's factor takes about 5 GiB."""
FROM_ELSEWHERE = 20_000
"""Unknowns above which the set-up, made on the host, pays on another device against Jacobi scaling."""
MANY = 20
NEIGHBOURS_IN_SPACE = 13
"""Meshes in space couple more nodes than this; triangles and quadrilaterals couple 7 to 9 (linear), 12 (quadratic)."""
WORN = 40
"""A set-up that needed more products than this for one solve is not used for another matrix."""


@dataclass(frozen=True)
class AMGCG(LinearSolver):
    """AMG-preconditioned conjugate gradients for large symmetric positive definite sparse matrices.

    Give the rigid-body modes of elastic problems in `Structure.near_null_space`. tolerance: relative residual
    ||b - A x|| / ||b||. Where the model does not promise that A is positive definite, a first solve with a random
    right-hand side looks for negative curvature; `otherwise` takes over if it meets any. To keep a set-up for a changed
    matrix use `refine` with the old factor.
    """

    tolerance: float = 1e-10
    max_iterations: int = 500
    otherwise: LinearSolver = field(default_factory=MINRES)
    precedence = 1

    def suits(self, A: LinearOperator, right_hand_sides: int) -> bool:
        if not isinstance(A, Sparse) or not A.structure.symmetric or A.structure.indefinite:
            return False
        if not is_sparse_on_cpu(A):
            return A.n > FROM_ELSEWHERE
        if library() is None:
            worthwhile = A.n > FROM_WITHOUT_PARDISO
        else:
            worthwhile = A.n > (FROM if right_hand_sides < MANY else FROM_FOR_MANY)
        return worthwhile and _in_space(A)

    def factor(self, A: LinearOperator, on_fail: OnFail = "raise") -> Factor:
        if not A.structure.symmetric:
            raise InputError("AMGCG takes symmetric matrices only; use PardisoLU, SuperLU or GMRES")
        A = _complete(A)
        if bool((A.diagonal_entries() > 0).all()):
            factor = AMGFactor(A, self.tolerance, self.max_iterations, on_fail)
            if A.structure.positive_definite or factor.looks_definite():
                factor.positive_definite = True
                return factor
        other = self.otherwise.factor(A, on_fail)
        other.positive_definite = False
        return other

    def reuses(self, A: LinearOperator, earlier: Factor | None) -> bool:
        return isinstance(earlier, AMGFactor) and earlier.serves(A)

    def follow(self, A: LinearOperator, earlier: Factor | None, on_fail: OnFail = "raise") -> Factor:
        A = _complete(A)
        if not bool((A.diagonal_entries() > 0).all()):
            return self.factor(A, on_fail)
        known = earlier.hierarchy if isinstance(earlier, AMGFactor) and earlier.serves(A) else None
        factor = AMGFactor(A, self.tolerance, self.max_iterations, on_fail, known)
        return factor if factor.set_up_definite else self.factor(A, on_fail)


def _complete(A: LinearOperator) -> Sparse:
    if not isinstance(A, Sparse):
        raise InputError(f"AMGCG takes a Sparse operator, got {type(A).__name__}")
    return complete(A)


def _in_space(A: Sparse) -> bool:
    """Whether the near-null space is given and tells, with the pattern, of a mesh in three dimensions."""
    modes = A.structure.near_null_space
    if modes is None:
        return False
    if modes.shape[-1] == 1:
        return A.pattern.nnz > NEIGHBOURS_IN_SPACE * A.n
    return modes.shape[-1] == 6


class AMGFactor(CGFactor):
    """Solves by CG with one V-cycle as preconditioner, also for nearby matrices (`refine`)."""

    def __init__(
        self,
        A: Sparse,
        tolerance: float,
        max_iterations: int,
        on_fail: OnFail,
        hierarchy: Hierarchy | None = None,
    ) -> None:
        super().__init__(A, tolerance, max_iterations, on_fail)
        self.hierarchy = set_up(A) if hierarchy is None else hierarchy
        self.set_up_definite = hierarchy is not None or self.hierarchy.definite
        self.precondition = self.hierarchy.cycle
        self.most_products = 0

    def serves(self, A: LinearOperator) -> bool:
        """Whether the levels are worth using for another matrix."""
        return self.A.n == A.n and self.most_products <= WORN and self.positive_definite is not False

    def refine_rows(self, A: LinearOperator, b: Tensor, transposed: bool, tolerance: float, limit: int | None) -> Run:
        run = super().refine_rows(A, b, transposed, tolerance, limit)
        self.most_products = max(self.most_products, run.products)
        return run

    def detect_negative_curvature(self) -> bool | Tensor | None:
        if self.positive_definite is None:
            self.positive_definite = self.looks_definite()
        return self.positive_definite

    def looks_definite(self) -> bool:
        """Whether neither the coarse matrices nor CG on a random right-hand side meet negative curvature."""
        if not self.set_up_definite:
            return False
        project = self.A.structure.project
        b = project(random_signs(self.A.n).to(self.A.example())).unsqueeze(0)
        run = cg(
            lambda x: project(self.A.matmul(x)),
            b,
            tolerance=DEFINITENESS_TOLERANCE,
            max_iterations=self.max_iterations,
            precondition=lambda r: project(self.precondition(r)),
        )
        self.counts.products += run.products
        return not bool(run.negative.any())
