"""Lambda learned from known examples: an outer loop over the inverse problem, with the exact outer gradient.

Source: Haber & Tenorio 2003.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bilevel.inversion.choice import Search, refined
from bilevel.inversion.priors import Prior
from bilevel.inversion.problem import InverseProblem, LambdaTrial
from bilevel.report import InputError, require_finite


@dataclass
class Bilevel(Search):
    """The lambda that recovers known examples (x_i, y_i) best: the outer loop over log lambda.

    The outer gradient is exact, through an implicit layer, for priors that have one (Tikhonov, l1); for others the outer
    loss is minimised by a bounded search.
    """

    examples: list[tuple[Tensor, Tensor]] = field(kw_only=True)

    def choose(self, problem: InverseProblem) -> LambdaTrial:
        if not self.examples:
            raise InputError("learning lambda needs at least one example (x, y)")
        for x, y in self.examples:
            problem.A.check_data(y)
            require_finite("the examples", x)
            if tuple(x.shape) != problem.A.domain:
                raise InputError(f"an example has shape {tuple(x.shape)}, but the operator takes {problem.A.domain}")
        grid = self.grid(9)
        coarse = [self.loss(problem, t) for t in grid]
        best = self.interior_minimum(problem, grid, [math.log(max(loss, 1e-300)) for loss in coarse], "the outer loss")
        if type(problem.prior).state is Prior.state:
            return problem.at(refined(lambda t: self.loss(problem, t), grid, coarse, best))
        return problem.at(self._descend(problem, float(grid[best - 1]), float(grid[best + 1])))

    def loss(self, problem: InverseProblem, log_ratio: float) -> float:
        """sum over examples of |x(y_i, lambda) - x_i|^2."""
        weight = math.exp(log_ratio) * problem.scale
        estimates = [(problem.prior.solve(problem.A, y, weight), x) for x, y in self.examples]
        return sum(float((estimate - x).square().sum()) for estimate, x in estimates)

    def gradient(self, problem: InverseProblem, log_ratio: float) -> float:
        """d loss / d log lambda, by the implicit function theorem at each example's estimate."""
        start = log_ratio + math.log(problem.scale)
        t = torch.tensor(start, dtype=problem.y.dtype, device=problem.y.device, requires_grad=True)
        total = torch.zeros_like(t)
        for x, y in self.examples:
            state = problem.prior.state(problem.A, y, t)
            if state is None:
                raise InputError(f"{type(problem.prior).__name__} has no differentiable state")
            total = total + (state - x).square().sum()
        return float(torch.autograd.grad(total, t)[0])

    def _descend(self, problem: InverseProblem, low: float, high: float) -> float:
        """The root of the outer gradient by bisection: one number, bracketed by the grid."""
        while high - low > 1e-3:
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self.gradient(problem, middle) < 0 else (low, middle)
        return 0.5 * (low + high)
