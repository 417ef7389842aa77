"""The one table that picks a linear solver by kind, structure, size, device and platform."""

from __future__ import annotations

from bilevel.linalg.direct import pardiso_library
from bilevel.linalg.direct.dense import DenseCholesky, DenseLDL, DenseLU
from bilevel.linalg.direct.pardiso import PardisoCholesky, PardisoLDL, PardisoLU
from bilevel.linalg.direct.superlu import SuperLU
from bilevel.linalg.krylov.solvers import CG, GMRES, MINRES
from bilevel.linalg.multigrid.amg import AMGCG
from bilevel.linalg.operator import Dense, LinearOperator, MatrixFree, Sparse
from bilevel.linalg.solver import Factor, LinearSolver
from bilevel.report import OnFail

AMG_FROM = 40_000
"""Unknowns above which multigrid beats PARDISO in three dimensions; in two, factorisations win up to a million."""
AMG_FROM_WITHOUT_PARDISO = 10_000
MANY = 20
FACTORISED_UP_TO = 300_000
"""Unknowns up to which a mesh in space is factorised for many right-hand sides; its factor takes about 5 GiB."""
NEIGHBOURS_IN_SPACE = 13
"""Meshes in space couple more nodes than this; triangles and quadrilaterals couple 7 to 9 (linear), 12 (quadratic)."""


def factorise(A: LinearOperator, method: LinearSolver | None = None, *, on_fail: OnFail = "raise") -> Factor:
    """A made ready for solves by `method`, or by the solver that the table picks.

    Raises SingularError where A is singular and no null space is declared; see `LinearSolver.factor` for `on_fail`.
    """
    return (method or pick(A)).factor(A, on_fail)


def follow(
    A: LinearOperator, earlier: Factor | None, method: LinearSolver | None = None, *, on_fail: OnFail = "raise"
) -> Factor:
    """`factorise` within a sequence of similar matrices; see `LinearSolver.follow`."""
    return (method or pick(A)).follow(A, earlier, on_fail)


def pick(A: LinearOperator, right_hand_sides: int = 1) -> LinearSolver:
    """The linear solver for A; many right-hand sides pay for a factorisation where few do not."""
    symmetric = A.structure.symmetric
    indefinite = symmetric and A.structure.positive_definite is False
    if isinstance(A, Dense):
        return DenseLDL() if indefinite else DenseCholesky() if symmetric else DenseLU()
    if isinstance(A, MatrixFree) or (isinstance(A, Sparse) and A.values.device.type != "cpu"):
        return MINRES() if indefinite else CG() if symmetric else GMRES()
    if isinstance(A, Sparse):
        direct = pardiso_library.library() is not None
        threshold = AMG_FROM if direct else AMG_FROM_WITHOUT_PARDISO
        if direct and right_hand_sides >= MANY:
            threshold = FACTORISED_UP_TO
        if symmetric and not indefinite and A.n > threshold and _in_space(A):
            return AMGCG()
        if not direct:
            return SuperLU()
        return PardisoLDL() if indefinite else PardisoCholesky() if symmetric else PardisoLU()
    raise TypeError(f"no linear solver is known for {type(A).__name__}")


def _in_space(A: Sparse) -> bool:
    """Whether the near-null space is given and tells, with the pattern, of a mesh in three dimensions."""
    modes = A.structure.near_null_space
    if modes is None:
        return False
    if modes.shape[-1] == 1:
        return A.pattern.nnz > NEIGHBOURS_IN_SPACE * A.n
    return modes.shape[-1] == 6
