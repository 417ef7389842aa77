"""How far to go: step rules."""

from bilevel.steps.armijo import Armijo
from bilevel.steps.barzilai_borwein import BarzilaiBorwein
from bilevel.steps.constant import Constant
from bilevel.steps.step import LineSearch, Move, Step
from bilevel.steps.strong_wolfe import StrongWolfe
from bilevel.steps.trust_region import TrustRegion
from bilevel.steps.wolfe import Wolfe

__all__ = ["Armijo", "BarzilaiBorwein", "Constant", "LineSearch", "Move", "Step", "StrongWolfe", "TrustRegion", "Wolfe"]
