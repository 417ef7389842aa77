"""How lambda is chosen: fixed, by the discrepancy principle, L-curve, generalised cross-validation, or an outer loop.

Sources: Morozov 1966 (discrepancy); Hansen & O'Leary 1993 (L-curve); Golub, Heath, Wahba 1979 (GCV); Haber & Tenorio
2003 (lambda learned from examples).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from bilevel.inversion.priors import Prior
from bilevel.linalg.linear_map import LinearMap
from bilevel.report import ConvergenceError, InputError, require_finite


@dataclass
class LambdaTrial:
    """One lambda that was tried: the misfit |A x - y|, the penalty g(x) and the estimate."""

    weight: float
    misfit: float
    penalty: float
    x: Tensor


@dataclass
class InverseProblem:
    """One inverse problem; remembers what has been tried, and starts from the nearest."""

    A: LinearMap
    y: Tensor
    prior: Prior
    trials: list[LambdaTrial] = field(default_factory=list)

    def at(self, log_weight: float) -> LambdaTrial:
        """Solve at lambda = exp(log_weight)."""
        weight = math.exp(log_weight)
        nearest = min(self.trials, key=lambda t: abs(math.log(t.weight) - log_weight), default=None)
        x = self.prior.solve(self.A, self.y, weight, None if nearest is None else nearest.x)
        trial = LambdaTrial(weight, float((self.A(x) - self.y).norm()), self.prior.penalty(x), x)
        self.trials.append(trial)
        return trial


class Choice(ABC):
    """A rule that picks lambda."""

    @abstractmethod
    def choose(self, problem: InverseProblem) -> LambdaTrial:
        """The trial at the chosen lambda."""


@dataclass
class Fixed(Choice):
    """The lambda that the user gives."""

    weight: float

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise InputError(f"lambda must be positive and finite, got {self.weight:g}")

    def choose(self, problem: InverseProblem) -> LambdaTrial:
        return problem.at(math.log(self.weight))


@dataclass
class _Search(Choice):
    """Shared by the rules that search in [lowest, highest], relative to |A^T y|_max (|A|^2 for Tikhonov: scale it yourself)."""

    lowest: float = 1e-6
    highest: float = 1e2

    def limits(self) -> tuple[float, float]:
        if not 0 < self.lowest < self.highest:
            raise InputError(
                f"lambda is searched between 0 < lowest < highest, got {self.lowest:g} and {self.highest:g}"
            )
        return math.log(self.lowest), math.log(self.highest)


@dataclass
class Discrepancy(_Search):
    """The lambda at which |A x - y| = safety * sigma * sqrt(number of data): residuals as large as the noise."""

    sigma: float = field(kw_only=True)
    safety: float = 1.0
    tolerance: float = 1e-3

    def choose(self, problem: InverseProblem) -> LambdaTrial:
        from scipy.optimize import brentq

        if not self.sigma > 0:
            raise InputError(
                f"the discrepancy principle needs the noise's standard deviation sigma > 0, got {self.sigma:g}"
            )
        target = self.safety * self.sigma * math.sqrt(problem.y.numel())
        low, high = self._bracket(problem, target)
        root = brentq(lambda t: math.log(problem.at(t).misfit / target), low, high, xtol=self.tolerance)
        return problem.at(root)

    def _bracket(self, problem: InverseProblem, target: float) -> tuple[float, float]:
        """Neighbouring log lambdas with misfits below and above the target, from the top down: strong priors solve fast."""
        lowest, highest = self.limits()
        if problem.at(highest).misfit < target:
            raise ConvergenceError(
                f"lambda = {self.highest:g} fits better than the noise ({problem.trials[-1].misfit:.3g} < {target:.3g}); "
                "raise `highest`, or the data hold no signal"
            )
        high = highest
        while high > lowest:
            low = max(high - math.log(10), lowest)
            if problem.at(low).misfit <= target:
                return low, high
            high = low
        raise ConvergenceError(
            f"even lambda = {self.lowest:g} leaves a misfit above the noise ({problem.trials[-1].misfit:.3g} > {target:.3g}); "
            "the noise is underestimated, or the operator is wrong"
        )


@dataclass
class LCurve(_Search):
    """The corner of (log |A x - y|, log g(x)): the lambda of largest curvature on a grid of `points`, by a cubic spline.

    For very smooth unknowns the corner is known to lie at too small a lambda (Hanke 1996); prefer GCV there.
    """

    points: int = 25

    def choose(self, problem: InverseProblem) -> LambdaTrial:
        from scipy.interpolate import CubicSpline

        grid = np.linspace(*self.limits(), self.points)
        trials = [problem.at(t) for t in grid[::-1]][::-1]
        tiny = 1e-300
        rho = CubicSpline(grid, [math.log(max(t.misfit, tiny)) for t in trials])
        eta = CubicSpline(grid, [0.5 * math.log(max(t.penalty, tiny)) for t in trials])
        fine = np.linspace(grid[1], grid[-2], 20 * self.points)
        r1, e1, r2, e2 = rho(fine, 1), eta(fine, 1), rho(fine, 2), eta(fine, 2)
        curvature = (r1 * e2 - e1 * r2) / np.maximum((r1**2 + e1**2) ** 1.5, 1e-12)
        moving = r1**2 + e1**2 > 1e-4
        if not moving.any():
            raise ConvergenceError("the L-curve has no corner between lowest and highest; widen the search")
        return problem.at(float(fine[np.argmax(np.where(moving, curvature, -np.inf))]))


@dataclass
class GCV(_Search):
    """The minimum of |A x - y|^2 / (number of data - degrees of freedom)^2: grid of `points`, then a bounded search."""

    points: int = 17

    def choose(self, problem: InverseProblem) -> LambdaTrial:
        from scipy.optimize import minimize_scalar

        grid = np.linspace(*self.limits(), self.points)
        scores = [self.score(problem, problem.at(t)) for t in grid[::-1]][::-1]
        if not np.isfinite(scores).any():
            raise ConvergenceError(
                "generalised cross-validation finds no residual that is above zero: are the data all zero?"
            )
        best = int(np.argmin(scores))
        bounds = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
        found = minimize_scalar(
            lambda t: self.score(problem, problem.at(t)), bounds=bounds, method="bounded", options={"xatol": 1e-2}
        )
        return problem.at(float(found.x))

    @staticmethod
    def score(problem: InverseProblem, trial: LambdaTrial) -> float:
        """log of the GCV function; infinite where the estimate uses up all the data."""
        count = problem.y.numel()
        left = count - problem.prior.freedom(problem.A, problem.y, trial.weight, trial.x)
        if left <= 1e-6 * count or trial.misfit <= 0:
            return math.inf
        return 2 * math.log(trial.misfit) - 2 * math.log(left)


@dataclass
class Bilevel(_Search):
    """The lambda that recovers known examples (x_i, y_i) best: the outer loop over log lambda.

    The outer gradient is exact, through an implicit layer, for priors that have one (Tikhonov, l1); for others the outer loss is minimised by a bounded search.
    """

    examples: list[tuple[Tensor, Tensor]] = field(kw_only=True)

    def choose(self, problem: InverseProblem) -> LambdaTrial:
        from scipy.optimize import minimize_scalar

        if not self.examples:
            raise InputError("learning lambda needs at least one example (x, y)")
        for x, y in self.examples:
            problem.A.check_data(y)
            require_finite("the examples", x)
            if tuple(x.shape) != problem.A.domain:
                raise InputError(f"an example has shape {tuple(x.shape)}, but the operator takes {problem.A.domain}")
        low, high = self.limits()
        grid = np.linspace(low, high, 9)
        coarse = [self.loss(problem, t) for t in grid]
        best = int(np.argmin(coarse))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
        if type(problem.prior).state is Prior.state:
            found = minimize_scalar(lambda t: self.loss(problem, t), bounds=(low, high), method="bounded")
            return problem.at(float(found.x))
        return problem.at(self._descend(problem, low, high))

    def loss(self, problem: InverseProblem, log_weight: float) -> float:
        """sum over examples of |x(y_i, lambda) - x_i|^2."""
        solve = problem.prior.solve
        return sum(float((solve(problem.A, y, math.exp(log_weight)) - x).square().sum()) for x, y in self.examples)

    def gradient(self, problem: InverseProblem, log_weight: float) -> float:
        """d loss / d log lambda, by the implicit function theorem at each example's estimate."""
        t = torch.tensor(log_weight, dtype=problem.y.dtype, requires_grad=True)
        total = torch.zeros((), dtype=problem.y.dtype)
        for x, y in self.examples:
            state = problem.prior.state(problem.A, y, t)
            if state is None:
                raise InputError(f"{type(problem.prior).__name__} has no differentiable state")
            total = total + (state - x).square().sum()
        return float(torch.autograd.grad(total, t)[0])

    def _descend(self, problem: InverseProblem, low: float, high: float) -> float:
        """The root of the outer gradient by bisection: one number, bracketed by the grid."""
        if self.gradient(problem, low) >= 0:
            return low
        if self.gradient(problem, high) <= 0:
            return high
        while high - low > 1e-3:
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self.gradient(problem, middle) < 0 else (low, middle)
        return 0.5 * (low + high)
