"""Half-quadratic splitting: alternate a quadratic solve and a prox while the coupling grows geometrically.

It minimises |A x - y|^2 / 2 + weight g(z) + rho |x - z|^2 / 2 for a sequence of rho; x and z meet as rho grows.
Source: Geman & Yang 1995; Wang, Yang, Yin, Zhang 2008.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from bilevel.composite.normal_equations import regularised_inverse
from bilevel.composite.problem import Composite
from bilevel.composite.solver import CompositeSolver, relative, statuses
from bilevel.report import Counts, InputError, SolveReport
from bilevel.solvers.evaluations import Tolerance


@dataclass
class HalfQuadraticSplitting(CompositeSolver):
    """rho, which has the units of |A|^2, runs from `first` to `last` in geometric `stages` of up to `alternations` each.

    The answer solves the problem with g replaced by its Moreau envelope of
    width 1 / last: the report's residual is |x - z| / |x|, the price of the splitting, or the gradient mapping of
    `ProximalGradient` at z relative to the gradient at zero, if that is larger; it fails where that exceeds `tolerance`.
    """

    first: float = 1e-2
    last: float = 1e4
    stages: int = 20
    alternations: int = 50
    tolerance: Tolerance = field(default_factory=lambda: Tolerance(1e-2), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.first <= self.last or self.stages < 1 or self.alternations < 1:
            raise InputError("half-quadratic splitting needs 0 < first <= last, stages >= 1 and alternations >= 1")

    def minimise(self, problem: Composite, x0: Tensor) -> tuple[Tensor, SolveReport]:
        smooth = self.least_squares(problem)
        back = smooth.A.adjoint(smooth.data)
        z, iterations = x0, 0
        tolerance = self.tolerance.threshold(torch.ones_like(problem.norm(x0)))
        history: list[float] = []
        for rho in np.geomspace(self.first, self.last, self.stages).tolist():
            invert = regularised_inverse(smooth.A, rho)
            for _ in range(self.alternations):
                x = invert(back + rho * z)
                new = problem.regulariser.prox(x, problem.weight / rho)
                change = relative(problem.norm(new - z), problem.norm(new))
                z, iterations = new, iterations + 1
                if bool((change <= 0.01 * tolerance).all()):
                    break
            gap = relative(problem.norm(x - z), problem.norm(x))
            history.append(float(gap.max()))
        # The gap alone closes as rho grows, wherever z is: steps become so short that an unfinished z looks at rest.
        step = 1 / smooth.lipschitz
        mapping = problem.norm(z - problem.gradient_step(z, step)) / step
        residual = torch.maximum(gap, relative(mapping, problem.norm(back)))
        counts = Counts(factorisations=self.stages, back_substitutions=iterations)
        return z, SolveReport(statuses(residual, tolerance), residual, tolerance, iterations, counts, 0.0, history)
