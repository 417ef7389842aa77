"""ADMM for |A x - y|^2 / 2 + weight g(x): splitting x = z, with the x-update solved exactly.

Source: Boyd, Parikh, Chu, Peleato, Eckstein 2011, sections 3.1 and 3.3 (scaled form, stopping rule).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.composite.problem import Composite, LeastSquares, require_iterations
from bilevel.linalg.linear_map import Convolution, LinearMap
from bilevel.report import Counts, InputError, OnFail, Solution, SolveReport, Status, fail

Solve = Callable[[Tensor], Tensor]


def regularised_inverse(A: LinearMap, rho: float) -> Solve:
    """b (*batch, *domain) -> (A^T A + rho)^-1 b: by Fourier transform for a convolution, by Cholesky otherwise."""
    if rho <= 0:
        raise InputError(f"the penalty rho must be positive, got {rho:g}")
    if isinstance(A, Convolution):
        eigenvalues = A.transfer().abs().square() + rho
        return lambda b: torch.fft.irfft2(torch.fft.rfft2(b) / eigenvalues, s=A.domain)
    matrix = A.matrix()
    m, n = matrix.shape
    if m < n:  # Woodbury: factor the smaller of A A^T and A^T A
        factor = torch.linalg.cholesky(matrix @ matrix.mT + rho * torch.eye(m).to(matrix))
        wide = True
    else:
        factor = torch.linalg.cholesky(matrix.mT @ matrix + rho * torch.eye(n).to(matrix))
        wide = False

    def solve(b: Tensor) -> Tensor:
        columns = b.reshape(-1, n).mT
        if wide:
            x = (columns - matrix.mT @ torch.cholesky_solve(matrix @ columns, factor)) / rho
        else:
            x = torch.cholesky_solve(columns, factor)
        return x.mT.reshape(b.shape)

    return solve


@dataclass
class ADMM:
    """x <- (A^T A + rho)^-1 (A^T y + rho (z - u)), z <- prox_{g / rho}(x + u), u <- u + x - z.

    tolerance: relative, on the primal residual x - z and the dual residual rho (z - z_previous).
    """

    rho: float = 1.0
    tolerance: float = 1e-8
    max_iterations: int = 10_000

    def solve(self, problem: Composite, x0: Tensor, on_fail: OnFail = "raise") -> Solution:
        """The minimiser (z, which satisfies the constraints of an indicator exactly) and the report."""
        start = time.perf_counter()
        smooth = problem.smooth
        if not isinstance(smooth, LeastSquares):
            raise InputError("ADMM here takes a least-squares misfit; use ProximalGradient for other functions")
        problem.check_start(x0)
        require_iterations(self.max_iterations)
        invert = regularised_inverse(smooth.A, self.rho)
        back = smooth.A.adjoint(smooth.data)
        z, u = x0, torch.zeros_like(x0)
        history: list[float] = []
        with torch.no_grad():
            for iteration in range(1, self.max_iterations + 1):  # noqa: B007 - reported
                x = invert(back + self.rho * (z - u))
                new = problem.regulariser.prox(x + u, problem.weight / self.rho)
                u = u + x - new
                primal = problem.norm(x - new) / torch.maximum(problem.norm(x), problem.norm(new)).clamp_min(1e-30)
                dual = problem.norm(new - z) / problem.norm(u).clamp_min(1e-30)
                residual, z = torch.maximum(primal, dual), new
                history.append(float(residual.max()))
                if not history[-1] > self.tolerance:
                    break
        status = [
            Status.CONVERGED if r <= self.tolerance else Status.MAX_ITERATIONS if r == r else Status.NOT_FINITE
            for r in residual.flatten().tolist()
        ]
        report = SolveReport(
            status,
            residual,
            torch.full_like(residual, self.tolerance),
            iteration,
            Counts(back_substitutions=iteration),
            time.perf_counter() - start,
            history,
        )
        if not report.converged:
            fail(report.sentence, on_fail)
        return Solution(z, report)
