"""ADMM for |A x - y|^2 / 2 + weight g(x): splitting x = z, or D x = z for a norm of differences D x.

The x-update is solved exactly. Source: Boyd, Parikh, Chu, Peleato, Eckstein 2011, sections 3.1 and 3.3 (scaled form,
stopping rule), 3.4.1 (varying penalty).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.composite.normal_equations import regularised_inverse
from bilevel.composite.problem import Composite
from bilevel.composite.solver import CompositeSolver, relative, statuses
from bilevel.report import Counts, SolveReport, require


@dataclass
class ADMM(CompositeSolver):
    """x <- (A^T A + rho)^-1 (A^T y + rho (z - u)), z <- prox_{g / rho}(x + u), u <- u + x - z.

    Returns z, which satisfies the constraints of an indicator exactly. rho has the units of |A|^2.
    tolerance: relative, on the primal residual x - z and the dual residual rho (z - z_previous).
    """

    rho: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.rho > 0, f"the penalty rho must be positive, not {self.rho}")

    def minimise(self, problem: Composite, x0: Tensor) -> tuple[Tensor, SolveReport]:
        smooth = self.least_squares(problem)
        invert = regularised_inverse(smooth.A, self.rho)
        back = smooth.A.adjoint(smooth.data)
        z, u = x0, torch.zeros_like(x0)
        tolerance = self.tolerance.threshold(torch.ones_like(problem.norm(x0)))
        history: list[float] = []
        for iteration in range(1, self.max_iterations + 1):  # noqa: B007 - reported
            x = invert(back + self.rho * (z - u))
            new = problem.regulariser.prox(x + u, problem.weight / self.rho)
            u = u + x - new
            primal = relative(problem.norm(x - new), torch.maximum(problem.norm(x), problem.norm(new)))
            dual = relative(problem.norm(new - z), problem.norm(u))
            residual, z = torch.maximum(primal, dual), new
            history.append(float(residual.max()))
            if not bool((residual > tolerance).any()):
                break
        counts = Counts(back_substitutions=iteration)
        return z, SolveReport(statuses(residual, tolerance), residual, tolerance, iteration, counts, 0.0, history)
