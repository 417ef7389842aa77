"""Which way to go: solvers for energies, residuals and fixed points."""

from bilevel.solvers.evaluations import Tolerance
from bilevel.solvers.fire import FIRE
from bilevel.solvers.fixed_point import Anderson, Picard
from bilevel.solvers.gradient import GradientDescent
from bilevel.solvers.lbfgs import LBFGS
from bilevel.solvers.load_stepping import LoadStepping
from bilevel.solvers.log_middle import LogMiddle
from bilevel.solvers.loop import DescentSolver
from bilevel.solvers.newton import Newton
from bilevel.solvers.nonlinear_cg import NonlinearCG
from bilevel.solvers.preconditioned import PreconditionedGradient
from bilevel.solvers.solver import Outcome, Solver
from bilevel.solvers.undamped_newton import UndampedNewton

__all__ = [
    "FIRE",
    "LBFGS",
    "Anderson",
    "DescentSolver",
    "GradientDescent",
    "LoadStepping",
    "LogMiddle",
    "Newton",
    "NonlinearCG",
    "Outcome",
    "Picard",
    "PreconditionedGradient",
    "Solver",
    "Tolerance",
    "UndampedNewton",
]
