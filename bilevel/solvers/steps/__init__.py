"""How far to go: step rules."""

from bilevel.solvers.steps.armijo import Armijo
from bilevel.solvers.steps.barzilai_borwein import BarzilaiBorwein
from bilevel.solvers.steps.constant import Constant
from bilevel.solvers.steps.step import LineSearch, Move, Step
from bilevel.solvers.steps.strong_wolfe import StrongWolfe
from bilevel.solvers.steps.trust_region import TrustRegion
from bilevel.solvers.steps.wolfe import Wolfe

__all__ = ["Armijo", "BarzilaiBorwein", "Constant", "LineSearch", "Move", "Step", "StrongWolfe", "TrustRegion", "Wolfe"]
