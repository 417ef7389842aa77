"""Half-quadratic splitting: alternate a quadratic solve and a prox while the coupling grows geometrically.

It minimises |A x - y|^2 / 2 + weight g(z) + rho |x - z|^2 / 2 for a sequence of rho; x and z meet as rho grows.
Source: Geman & Yang 1995; Wang, Yang, Yin, Zhang 2008.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bilevel.composite.admm import regularised_inverse
from bilevel.composite.problem import Composite, LeastSquares
from bilevel.report import Counts, InputError, OnFail, Solution, SolveReport, Status, fail


@dataclass
class HalfQuadraticSplitting:
    """rho runs from `first` to `last` in geometric `stages`, with up to `inner` alternations at each.

    The answer solves the problem with g replaced by its Moreau envelope of width 1 / last: the report's residual is
    |x - z| / |x|, the price of the splitting, and it fails where that exceeds `tolerance`.
    """

    first: float = 1e-2
    last: float = 1e4
    stages: int = 20
    inner: int = 50
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 < self.first <= self.last or self.stages < 1 or self.inner < 1:
            raise InputError("half-quadratic splitting needs 0 < first <= last, stages >= 1 and inner >= 1")

    def solve(self, problem: Composite, x0: Tensor, on_fail: OnFail = "raise") -> Solution:
        """The last z and the report."""
        start = time.perf_counter()
        smooth = problem.smooth
        if not isinstance(smooth, LeastSquares):
            raise InputError(
                "half-quadratic splitting takes a least-squares misfit; use ProximalGradient for other functions"
            )
        problem.check_start(x0)
        back = smooth.A.adjoint(smooth.data)
        z, iterations = x0, 0
        history: list[float] = []
        with torch.no_grad():
            for rho in np.geomspace(self.first, self.last, self.stages).tolist():
                invert = regularised_inverse(smooth.A, rho)
                for _ in range(self.inner):
                    x = invert(back + rho * z)
                    new = problem.regulariser.prox(x, problem.weight / rho)
                    change = problem.norm(new - z) / problem.norm(new).clamp_min(1e-30)
                    z, iterations = new, iterations + 1
                    if bool((change <= 0.1 * self.tolerance).all()):
                        break
                gap = problem.norm(x - z) / problem.norm(x).clamp_min(1e-30)
                history.append(float(gap.max()))
        status = [
            Status.CONVERGED if g <= self.tolerance else Status.MAX_ITERATIONS if g == g else Status.NOT_FINITE
            for g in gap.flatten().tolist()
        ]
        tolerance = torch.full_like(gap, self.tolerance)
        counts = Counts(factorisations=self.stages, back_substitutions=iterations)
        report = SolveReport(status, gap, tolerance, iterations, counts, time.perf_counter() - start, history)
        if not report.converged:
            fail(report.sentence, on_fail)
        return Solution(z, report)
