"""Linear algebra: operators, factorisations and Krylov methods behind one interface, and one table that picks."""

from bilevel.linalg.amg import AMGCG
from bilevel.linalg.curvature import negative_curvature
from bilevel.linalg.dense import DenseCholesky, DenseLDL, DenseLU
from bilevel.linalg.iterative import CG, GMRES, MINRES
from bilevel.linalg.operator import Dense, LinearOperator, MatrixFree, Sparse, SparsePattern, Structure
from bilevel.linalg.pardiso_solvers import PardisoCholesky, PardisoLDL, PardisoLU
from bilevel.linalg.pick import factorise, follow, pick
from bilevel.linalg.preconditioner import Jacobi, Multigrid, Preconditioner
from bilevel.linalg.refine import refine
from bilevel.linalg.solver import Factor, LinearSolver
from bilevel.linalg.superlu import SuperLU

__all__ = [
    "AMGCG",
    "CG",
    "GMRES",
    "MINRES",
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
    "follow",
    "negative_curvature",
    "pick",
    "refine",
]
