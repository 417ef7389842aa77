"""Minimise f + a regulariser: proximal operators, prox(v, s) = argmin_x s g(x) + |x - v|^2 / 2, and their solvers.

bilevel.fixed_point(Composite(LeastSquares(A, y), L1(), 0.1), x0, solver=FISTA()).u
"""

from typing import TYPE_CHECKING

import bilevel

if TYPE_CHECKING:
    from bilevel.composite.admm import ADMM
    from bilevel.composite.half_quadratic import HalfQuadraticSplitting
    from bilevel.composite.normal_equations import regularised_inverse
    from bilevel.composite.primal_dual import PrimalDual
    from bilevel.composite.problem import Composite, LeastSquares, Smooth, SmoothFunction
    from bilevel.composite.proximal_gradient import FISTA, ISTA, Inertial, ProximalGradient, Restart
    from bilevel.composite.regularisers import (
        L1,
        Box,
        GroupL1,
        NonNegative,
        Nuclear,
        Number,
        Regulariser,
        SquaredL2,
        Zero,
        block_soft_threshold,
        soft_threshold,
        soft_threshold_with_support,
    )
    from bilevel.composite.solver import CompositeSolver
    from bilevel.composite.split_bregman import SplitBregman
    from bilevel.composite.total_variation import AnalysisNorm, GraphTotalVariation, TotalVariation

__all__, __getattr__, __dir__ = bilevel.lazy_names(__name__)
