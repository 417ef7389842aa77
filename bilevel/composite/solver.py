"""What the solvers of composite problems share: the protocol of `bilevel.solvers`, spoken in the unknown's own shape."""

from __future__ import annotations

import time
from abc import abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bilevel.composite.problem import Composite, LeastSquares
from bilevel.problem import Params, Problem
from bilevel.report import BilevelError, InputError, SolveReport, Status
from bilevel.solvers.evaluations import Tolerance
from bilevel.solvers.solver import Outcome, Solver


@dataclass
class CompositeSolver(Solver):
    """Minimises a `Composite`; what `tolerance` measures is said by each method."""

    tolerance: Tolerance = field(default_factory=lambda: Tolerance(1e-8), kw_only=True)
    max_iterations: int = field(default=10_000, kw_only=True)

    def __post_init__(self) -> None:
        require_iterations(self.max_iterations)

    @abstractmethod
    def minimise(self, problem: Composite, x0: Tensor) -> tuple[Tensor, SolveReport]:
        """The last iterate from x0 (*batch, *shape), and how it ended."""

    def solve(self, problem: Problem, u0: Tensor, params: Params, record: bool = False) -> Outcome:
        if not isinstance(problem, Composite):
            raise BilevelError(f"{type(self).__name__} minimises f + a regulariser; give it a Composite, or use Newton")
        if record:
            raise BilevelError(f"{type(self).__name__} cannot be unrolled; use Picard or the exact adjoint")
        started = time.perf_counter()
        ready = problem.at(params)
        with torch.no_grad():
            x, report = self.minimise(ready, ready.shaped(u0))
        report.seconds = time.perf_counter() - started
        return Outcome(x.reshape(u0.shape), report)

    def least_squares(self, problem: Composite) -> LeastSquares:
        """The problem's smooth part where the method solves with its normal equations; InputError for another."""
        if not isinstance(problem.smooth, LeastSquares):
            raise InputError(
                f"{type(self).__name__} takes a least-squares misfit; use ProximalGradient for other functions"
            )
        return problem.smooth


def statuses(residual: Tensor, threshold: Tensor) -> list[Status]:
    """How each sample ended, by its residual (*batch)."""
    return [
        Status.CONVERGED if r <= t else Status.MAX_ITERATIONS if r < torch.inf else Status.NOT_FINITE
        for r, t in zip(residual.flatten().tolist(), threshold.flatten().tolist(), strict=True)
    ]


def relative(change: Tensor, size: Tensor) -> Tensor:
    """change / size, and zero where nothing changes at all."""
    return change / size.clamp_min(torch.finfo(size.dtype).tiny)


def require_iterations(limit: int) -> None:
    """Raise InputError unless an iteration may take at least one step."""
    if limit < 1:
        raise InputError(f"max_iterations must be at least 1, got {limit}")
