"""How lambda is chosen from the data alone: fixed, by the discrepancy principle, L-curve, generalised cross-validation.

Sources: Morozov 1966 (discrepancy); Hansen & O'Leary 1993 (L-curve); Golub, Heath, Wahba 1979 (GCV); Hanke 1996, Vogel
1996 (where the L-curve fails); Wahba & Wang 1995 (flat GCV functions).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from bilevel.inversion.problem import InverseProblem, LambdaTrial
from bilevel.report import ConvergenceError, InputError

NEAR_MINIMUM = 0.05
"""A score this much above the smallest (a logarithm: five per cent) is as good to the eye."""

FLAT = math.log(1e3)
"""Lambdas of near-minimal score that span more than this factor leave lambda open."""


class Choice(ABC):
    """A rule that picks lambda."""

    @abstractmethod
    def choose(self, problem: InverseProblem) -> LambdaTrial:
        """The trial at the chosen lambda."""


@dataclass
class Fixed(Choice):
    """The lambda that the user gives, in the units of |A x - y|^2 / g(x)."""

    weight: float

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise InputError(f"lambda must be positive and finite, got {self.weight:g}")

    def choose(self, problem: InverseProblem) -> LambdaTrial:
        return problem.solve(self.weight)


@dataclass
class Search(Choice):
    """Shared by the rules that search between `lowest` and `highest`, both relative to `Prior.scale`.

    So the units of operator and data do not matter. An end of the range is no choice: ConvergenceError says which.
    """

    lowest: float = 1e-6
    highest: float = 1e2

    def limits(self) -> tuple[float, float]:
        """The logarithms of the range."""
        if not 0 < self.lowest < self.highest < math.inf:
            raise InputError(
                f"lambda is searched between 0 < lowest < highest, got {self.lowest:g} and {self.highest:g}"
            )
        return math.log(self.lowest), math.log(self.highest)

    def grid(self, points: int) -> np.ndarray:
        """`points` logarithms over the range."""
        if points < 5:
            raise InputError(f"a search for lambda needs at least 5 points, got {points}")
        return np.linspace(*self.limits(), points)

    def downwards(self, problem: InverseProblem, points: int) -> tuple[np.ndarray, list[LambdaTrial]]:
        """Trials on the grid, solved from strong to weak priors, as far down as the solver gets."""
        grid = self.grid(points)
        trials: list[LambdaTrial] = []
        for t in grid[::-1]:
            try:
                trials.insert(0, problem.at(float(t)))
            except ConvergenceError as error:
                if len(trials) < 5:
                    raise
                problem.notes.append(f"lambdas below {trials[0].weight:.3g} were left out, since there {error}")
                break
        return grid[-len(trials) :], trials

    def interior_minimum(self, problem: InverseProblem, grid: np.ndarray, scores: list[float], what: str) -> int:
        """Where inside the grid the score is smallest; notes what makes that doubtful, ConvergenceError where it falls to an end."""
        weights = [f"{math.exp(t) * problem.scale:.3g}" for t in grid]
        minima = [i for i in range(1, len(grid) - 1) if scores[i] < scores[i - 1] and scores[i] <= scores[i + 1]]
        end = 0 if scores[0] < scores[-1] else len(grid) - 1
        side, name = ("down to", "lowest") if end == 0 else ("up to", "highest")
        if not minima:
            raise ConvergenceError(
                f"{what} falls all the way {side} lambda = {weights[end]}, the end of the search, so it chooses none; "
                f"move `{name}` outwards, or use Discrepancy with the noise that you know"
            )
        best = min(minima, key=lambda i: scores[i])
        if scores[end] < scores[best]:
            problem.notes.append(
                f"{what} is smaller still at the end of the search, lambda = {weights[end]}; taken is its minimum inside, "
                "which Discrepancy with the noise that you know would confirm"
            )
        near = [i for i in range(len(grid)) if scores[i] <= scores[best] + NEAR_MINIMUM]
        if grid[near[-1]] - grid[near[0]] > FLAT:
            span = f"from {weights[near[0]]} to {weights[near[-1]]}"
            problem.notes.append(f"{what} is flat: lambdas {span} are within 5 % of its minimum, or below it")
        rivals = [weights[i] for i in minima if i != best and scores[i] <= scores[best] + NEAR_MINIMUM]
        if rivals:
            problem.notes.append(f"{what} has other minima almost as deep, at lambda = {', '.join(rivals)}")
        return best


@dataclass
class Discrepancy(Search):
    """The lambda at which |A x - y| = safety * sigma * sqrt(number of data): residuals as large as the noise."""

    sigma: float = field(kw_only=True)
    safety: float = 1.0
    tolerance: float = 1e-3

    def choose(self, problem: InverseProblem) -> LambdaTrial:
        from scipy.optimize import brentq

        if not (0 < self.sigma < math.inf and 0 < self.safety < math.inf):
            raise InputError(
                f"the discrepancy principle needs the noise's standard deviation sigma > 0 and a safety factor > 0, "
                f"got {self.sigma:g} and {self.safety:g}"
            )
        target = self.safety * self.sigma * math.sqrt(problem.y.numel())
        low, high = self._bracket(problem, target)
        # Clamped, since an estimate that explains its data exactly has no logarithm of a misfit.
        root = brentq(lambda t: math.log(max(problem.at(t).misfit / target, 1e-12)), low, high, xtol=self.tolerance)
        return problem.at(root)

    def _bracket(self, problem: InverseProblem, target: float) -> tuple[float, float]:
        """Neighbouring log lambdas with misfits below and above the target, from the top down: strong priors solve fast."""
        lowest, highest = self.limits()
        if problem.at(highest).misfit < target:
            raise ConvergenceError(
                f"lambda = {problem.trials[-1].weight:.3g} fits better than the noise ({problem.trials[-1].misfit:.3g} < {target:.3g}); "
                "raise `highest`, or the data hold no signal"
            )
        high = highest
        while high > lowest:
            low = max(high - math.log(10), lowest)
            if problem.at(low).misfit <= target:
                return low, high
            high = low
        raise ConvergenceError(
            f"even lambda = {problem.trials[-1].weight:.3g} leaves a misfit above the noise ({problem.trials[-1].misfit:.3g} > {target:.3g}); "
            "the noise is underestimated, or the operator is wrong"
        )


@dataclass
class LCurve(Search):
    """The corner of (log |A x - y|, log g(x)): the lambda of largest curvature on a grid of `points`, by a cubic spline.

    The corner is known to lie at too small a lambda for very smooth unknowns (Hanke 1996), and where the data are fewer
    than the unknowns and the penalty is no square (total variation, l1); prefer GCV there.
    """

    points: int = 25

    def choose(self, problem: InverseProblem) -> LambdaTrial:
        from scipy.interpolate import CubicSpline

        grid, trials = self.downwards(problem, self.points)
        misfits, penalties = (np.array([getattr(t, part) for t in trials]) for part in ("misfit", "penalty"))
        if not (misfits > 0).any() or not (penalties > 0).any():
            raise ConvergenceError(
                "the L-curve needs misfits and penalties that are not all zero: are the data all zero?"
            )
        if not problem.prior.quadratic and problem.y.numel() < trials[0].x.numel():
            problem.notes.append(
                "where data are fewer than unknowns and the penalty is no square, the corner of the L-curve is known to lie at "
                "too small a lambda; compare GCV, or Discrepancy with the noise that you know"
            )
        # An axis's rounding level stands for its zeros: their logarithms would bend the curve where nothing happens.
        floor = np.finfo(np.float64).eps
        rho = CubicSpline(grid, np.log(np.maximum(misfits, floor * misfits.max())))
        eta = CubicSpline(grid, 0.5 * np.log(np.maximum(penalties, floor * penalties.max())))
        fine = np.linspace(grid[1], grid[-2], 20 * len(grid))
        r1, e1, r2, e2 = rho(fine, 1), eta(fine, 1), rho(fine, 2), eta(fine, 2)
        curvature = (r1 * e2 - e1 * r2) / np.maximum((r1**2 + e1**2) ** 1.5, 1e-12)
        moving = r1**2 + e1**2 > 1e-4
        curvature = np.where(moving, curvature, -np.inf)
        self._require_corner(problem, fine, curvature)
        return problem.at(float(fine[np.argmax(curvature)]))

    @staticmethod
    def _require_corner(problem: InverseProblem, fine: np.ndarray, curvature: np.ndarray) -> None:
        """ConvergenceError where the sharpest bend is none, or the end of the curve; notes other sharp bends."""
        best = int(np.argmax(curvature))
        if not curvature[best] > 0:
            raise ConvergenceError("the L-curve has no corner between lowest and highest; widen the search, or use GCV")
        if best in (0, len(fine) - 1):
            raise ConvergenceError(
                f"the L-curve bends most at lambda = {math.exp(fine[best]) * problem.scale:.3g}, the end of the search, so "
                "it has no corner inside; widen lowest and highest, or use GCV"
            )
        rivals = [
            math.exp(fine[i]) * problem.scale
            for i in range(1, len(fine) - 1)
            if curvature[i] > max(curvature[i - 1], curvature[i + 1], 0.5 * curvature[best])
            if abs(fine[i] - fine[best]) > math.log(10)
        ]
        if rivals:
            shown = ", ".join(f"{weight:.2g}" for weight in rivals)
            problem.notes.append(f"the L-curve has other corners almost as sharp, at lambda = {shown}")


@dataclass
class GCV(Search):
    """The minimum of |A x - y|^2 / (number of data - degrees of freedom)^2: grid of `points`, then a bounded search."""

    points: int = 17

    def choose(self, problem: InverseProblem) -> LambdaTrial:
        grid, trials = self.downwards(problem, self.points)
        scores = [self.score(problem, trial) for trial in trials]
        if not np.isfinite(scores).any():
            raise ConvergenceError("generalised cross-validation finds no residual above zero: are the data all zero?")
        best = self.interior_minimum(problem, grid, scores, "the GCV function")
        return problem.at(refined(lambda t: self.score(problem, problem.at(t)), grid, scores, best))

    @staticmethod
    def score(problem: InverseProblem, trial: LambdaTrial) -> float:
        """log of the GCV function; infinite where the estimate uses up all the data."""
        count = problem.y.numel()
        left = count - problem.prior.freedom(problem.A, problem.y, trial.weight, trial.x)
        if left <= 1e-6 * count or trial.misfit <= 1e-12 * float(problem.y.norm()):
            return math.inf
        return 2 * math.log(trial.misfit) - 2 * math.log(left)


def refined(score: Callable[[float], float], grid: np.ndarray, scores: list[float], best: int) -> float:
    """The minimum of a score between the grid's neighbours of its best point, or that point where none is smaller."""
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(score, bounds=(grid[best - 1], grid[best + 1]), method="bounded", options={"xatol": 1e-2})
    return float(found.x) if found.fun <= scores[best] else float(grid[best])
