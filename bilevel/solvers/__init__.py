"""Which way to go: solvers for energies, residuals and fixed points."""

from bilevel.solvers.fixed_point import Anderson, Picard
from bilevel.solvers.gradient import GradientDescent
from bilevel.solvers.lbfgs import LBFGS
from bilevel.solvers.load_stepping import LoadStepping
from bilevel.solvers.newton import Newton
from bilevel.solvers.nonlinear_cg import NonlinearCG
from bilevel.solvers.oracle import Tolerance
from bilevel.solvers.preconditioned import PreconditionedGradient
from bilevel.solvers.solver import DescentSolver, Outcome, Solver

__all__ = [
    "LBFGS",
    "Anderson",
    "DescentSolver",
    "GradientDescent",
    "LoadStepping",
    "Newton",
    "NonlinearCG",
    "Outcome",
    "Picard",
    "PreconditionedGradient",
    "Solver",
    "Tolerance",
]
