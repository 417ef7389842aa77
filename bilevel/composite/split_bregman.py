"""Split Bregman for |A x - y|^2 / 2 + weight |D x|: ADMM with D x = z, the x-update solved exactly.

Source: Goldstein & Osher 2009; Boyd, Parikh, Chu, Peleato, Eckstein 2011, sections 3.3.1 (residuals), 3.4.1 (varying
penalty), 3.4.3 (over-relaxation); Wohlberg 2017 (residuals relative to the problem's own sizes).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bilevel.composite.normal_equations import Solve
from bilevel.composite.problem import Composite
from bilevel.composite.solver import CompositeSolver, relative, statuses
from bilevel.composite.total_variation import AnalysisNorm
from bilevel.linalg.linear_map import LinearMap
from bilevel.report import Counts, InputError, SolveReport
from bilevel.solvers.evaluations import Tolerance

RELAXATION = 1.6
"""Over-relaxation between 1.5 and 1.8 is what Boyd et al. found to help."""


@dataclass
class SplitBregman(CompositeSolver):
    """x <- (A^T A + rho D^T D)^-1 (A^T y + rho D^T (z - u)), z <- shrink(D x + u, weight / rho), u <- u + D x - z.

    For unknowns few enough for a dense factorisation. Where A hardly sees what it is asked for, as in tomography, it
    needs hundreds of iterations where `PrimalDual` needs tens of thousands. rho is found by itself.
    tolerance: on |D x - z| relative to |D| |x|, and on the gradient's residual rho |D^T (z - z_previous)| relative to the
    regulariser's gradient |D^T p|, which shrinks with the weight: so weak weights are not taken for none.
    """

    tolerance: Tolerance = field(default_factory=lambda: Tolerance(1e-6), kw_only=True)

    def minimise(self, problem: Composite, x0: Tensor) -> tuple[Tensor, SolveReport]:
        smooth, norm = self.least_squares(problem), problem.regulariser
        if not isinstance(norm, AnalysisNorm):
            raise InputError(f"split Bregman takes a total variation, not {type(norm).__name__}; use ADMM")
        factor = _factoriser(smooth.A, norm)
        back = smooth.A.adjoint(smooth.data)
        weight = norm.per_ball(torch.as_tensor(problem.weight).to(x0))
        x, z = x0, norm.differences(x0)
        dual = torch.zeros_like(z)  # rho u: in the units of the gradient, so it stays when rho changes
        rho = smooth.lipschitz / norm.norm_squared
        solve, factorisations, review = factor(rho), 1, 10
        tolerance = self.tolerance.threshold(torch.ones_like(problem.norm(x0)))
        rounding = 1e4 * torch.finfo(x0.dtype).eps
        history: list[float] = []
        for iteration in range(1, self.max_iterations + 1):
            x = solve(back + norm.differences_adjoint(rho * z - dual))
            mixed = RELAXATION * norm.differences(x) + (1 - RELAXATION) * z
            q = dual + rho * mixed
            dual = q / (norm.magnitude(q) / weight.clamp_min(torch.finfo(x.dtype).tiny)).clamp_min(1.0)
            new = (q - dual) / rho
            size = torch.maximum(problem.norm(x), problem.norm(back) / smooth.lipschitz)
            apart = relative(norm.norm(norm.differences(x) - new), norm.norm_squared**0.5 * size)
            balanced = torch.maximum(problem.norm(norm.differences_adjoint(dual)), rounding * problem.norm(back))
            uneven = relative(rho * problem.norm(norm.differences_adjoint(new - z)), balanced)
            residual, z = torch.maximum(apart, uneven), new
            history.append(float(residual.max()))
            if not bool((residual > tolerance).any()) or iteration == self.max_iterations:
                break
            # The two residuals are brought together; ever more seldom, since rho must come to rest for convergence.
            if iteration == review:
                review = int(1.3 * review) + 10
                ratio = float((apart.max() / uneven.max().clamp_min(1e-300)) ** 0.5)
                if not 0.5 < ratio < 2 and 0 < ratio < torch.inf:
                    rho *= min(max(ratio, 0.1), 10.0)
                    solve, factorisations = factor(rho), factorisations + 1
        counts = Counts(factorisations=factorisations, back_substitutions=iteration)
        return x, SolveReport(statuses(residual, tolerance), residual, tolerance, iteration, counts, 0.0, history)


def _factoriser(A: LinearMap, norm: AnalysisNorm) -> Callable[[float], Solve]:
    """rho -> (b -> (A^T A + rho D^T D)^-1 b), with both matrices formed once."""
    matrix = A.matrix()
    n = matrix.shape[1]
    differences = norm.differences(torch.eye(n).to(matrix).reshape(n, *A.domain)).reshape(n, -1)
    gram, stiffness = matrix.mT @ matrix, differences @ differences.mT

    def factorise(rho: float) -> Solve:
        factor, info = torch.linalg.cholesky_ex(gram + rho * stiffness)
        if int(info):
            raise InputError("operator and total variation share a null space; the estimate is not unique")

        # Two triangular solves: with one right-hand side PyTorch's cholesky_solve takes three times as long.
        def solve(b: Tensor) -> Tensor:
            half = torch.linalg.solve_triangular(factor, b.reshape(-1, n).mT, upper=False)
            return torch.linalg.solve_triangular(factor.mT, half, upper=True).mT.reshape(b.shape)

        return solve

    return factorise
