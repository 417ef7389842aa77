"""Primal-dual splitting for f(x) + weight |D x|: the prox of a norm of differences is never needed.

Source: Condat 2013, algorithm 3.1; Vu 2013.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from bilevel.composite.problem import Composite
from bilevel.composite.solver import CompositeSolver, relative, statuses
from bilevel.composite.total_variation import AnalysisNorm
from bilevel.report import Counts, InputError, SolveReport, require
from bilevel.solvers.evaluations import Tolerance


@dataclass
class PrimalDual(CompositeSolver):
    """x <- x - tau (grad f(x) + D^T p), p <- projection of p + sigma D (2 x_new - x_old) to balls of radius weight.

    Steps satisfy 1 / tau = L / 2 + sigma |D|^2 (times 1.01). `balance` is sigma's size relative to L / |D|^2.
    tolerance: on the residuals of both conditions of optimality, (x - x_new) / tau of the gradient relative to L |x|, and
    (p_new - p) / sigma of the differences relative to |D| |x|.
    """

    balance: float = 1.0
    tolerance: Tolerance = field(default_factory=lambda: Tolerance(1e-6), kw_only=True)
    max_iterations: int = field(default=20_000, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.balance > 0, f"the balance of steps must be positive, not {self.balance}")

    def minimise(self, problem: Composite, x0: Tensor) -> tuple[Tensor, SolveReport]:
        norm = problem.regulariser
        lipschitz = problem.smooth.lipschitz
        if not isinstance(norm, AnalysisNorm) or lipschitz is None:
            raise InputError(
                "primal-dual splitting takes a total variation and a smooth function of known Lipschitz constant"
            )
        sigma = self.balance * lipschitz / norm.norm_squared
        tau = 1 / (1.01 * (0.5 * lipschitz + sigma * norm.norm_squared))
        x, p = x0, torch.zeros_like(norm.differences(x0))
        radius = norm.per_ball(torch.as_tensor(problem.weight).to(x0))
        floor = radius.clamp_min(torch.finfo(x0.dtype).tiny)
        tolerance = self.tolerance.threshold(torch.ones_like(problem.norm(x0)))
        smallest = problem.norm(problem.smooth.gradient(torch.zeros_like(x0))) / lipschitz
        steps = tau * lipschitz, sigma * norm.norm_squared**0.5
        history: list[float] = []
        for iteration in range(1, self.max_iterations + 1):  # noqa: B007 - reported
            new = x - tau * (problem.smooth.gradient(x) + norm.differences_adjoint(p))
            q = p + sigma * norm.differences(2 * new - x)
            q = q / (norm.magnitude(q) / floor).clamp_min(1.0)
            size = torch.maximum(problem.norm(new), smallest)
            # Both, since x alone stands still at a least-squares solution, where p has yet to begin moving.
            residual = torch.maximum(
                relative(problem.norm(new - x), steps[0] * size), relative(norm.norm(q - p), steps[1] * size)
            )
            x, p = new, q
            history.append(float(residual.max()))
            if not bool((residual > tolerance).any()):
                break
        counts = Counts(residuals=iteration)
        return x, SolveReport(statuses(residual, tolerance), residual, tolerance, iteration, counts, 0.0, history)
