"""Linear algebra: operators, factorisations and Krylov methods behind one interface, and one table that picks."""

from bilevel.linalg.curvature import negative_curvature
from bilevel.linalg.direct.dense import DenseCholesky, DenseLDL, DenseLU
from bilevel.linalg.direct.pardiso import PardisoCholesky, PardisoLDL, PardisoLU
from bilevel.linalg.direct.superlu import SuperLU
from bilevel.linalg.krylov.solvers import CG, GMRES, MINRES
from bilevel.linalg.multigrid.amg import AMGCG
from bilevel.linalg.operator import Dense, LinearOperator, MatrixFree, Sparse, SparsePattern, Structure
from bilevel.linalg.preconditioner import Jacobi, Multigrid, Preconditioner
from bilevel.linalg.refine import refine
from bilevel.linalg.registry import Automatic, factorise, linear_solver, pick
from bilevel.linalg.solver import Factor, LinearSolver

__all__ = [
    "AMGCG",
    "CG",
    "GMRES",
    "MINRES",
    "Automatic",
    "Dense",
    "DenseCholesky",
    "DenseLDL",
    "DenseLU",
    "Factor",
    "Jacobi",
    "LinearOperator",
    "LinearSolver",
    "MatrixFree",
    "Multigrid",
    "PardisoCholesky",
    "PardisoLDL",
    "PardisoLU",
    "Preconditioner",
    "Sparse",
    "SparsePattern",
    "Structure",
    "SuperLU",
    "factorise",
    "linear_solver",
    "negative_curvature",
    "pick",
    "refine",
]
