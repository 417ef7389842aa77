"""Primal-dual splitting for f(x) + weight |D x|: no inner loop for the prox of a norm of differences.

Source: Condat 2013, algorithm 3.1; Vu 2013.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.composite import AnalysisNorm
from bilevel.composite.problem import Composite, require_iterations
from bilevel.report import Counts, InputError, OnFail, Solution, SolveReport, Status, fail


@dataclass
class PrimalDual:
    """x <- x - tau (grad f(x) + D^T p), p <- projection of p + sigma D (2 x_new - x_old) to balls of radius weight.

    Steps satisfy 1 / tau = L / 2 + sigma |D|^2 (times 1.01). `balance` is sigma's size relative to L / |D|^2.
    tolerance: relative, on the changes of x and p in the metric of the steps.
    """

    tolerance: float = 1e-6
    max_iterations: int = 20_000
    balance: float = 1.0

    def solve(self, problem: Composite, x0: Tensor, on_fail: OnFail = "raise") -> Solution:
        """The minimiser and the report."""
        start = time.perf_counter()
        norm = problem.regulariser
        lipschitz = problem.smooth.lipschitz
        if not isinstance(norm, AnalysisNorm) or lipschitz is None:
            raise InputError(
                "primal-dual splitting takes a total variation and a smooth function of known Lipschitz constant"
            )
        problem.check_start(x0)
        require_iterations(self.max_iterations)
        sigma = self.balance * lipschitz / norm.norm_squared
        tau = 1 / (1.01 * (0.5 * lipschitz + sigma * norm.norm_squared))
        x, p = x0, torch.zeros_like(norm.differences(x0))
        radius = norm.per_ball(torch.as_tensor(problem.weight).to(x0))
        floor = radius.clamp_min(torch.finfo(x0.dtype).tiny)
        history: list[float] = []
        with torch.no_grad():
            for iteration in range(1, self.max_iterations + 1):  # noqa: B007 - reported
                new = x - tau * (problem.smooth.gradient(x) + norm.differences_adjoint(p))
                q = p + sigma * norm.differences(2 * new - x)
                q = q / (norm.magnitude(q) / floor).clamp_min(1.0)
                residual = problem.norm(new - x) / problem.norm(new).clamp_min(1e-30)
                x, p = new, q
                history.append(float(residual.max()))
                if not history[-1] > self.tolerance * tau * lipschitz:
                    break
        tolerance = torch.full_like(residual, self.tolerance * tau * lipschitz)
        status = [
            Status.CONVERGED if r <= t else Status.MAX_ITERATIONS if r == r else Status.NOT_FINITE
            for r, t in zip(residual.flatten().tolist(), tolerance.flatten().tolist())
        ]
        counts = Counts(residuals=iteration)
        report = SolveReport(status, residual, tolerance, iteration, counts, time.perf_counter() - start, history)
        if not report.converged:
            fail(report.sentence, on_fail)
        return Solution(x, report)
