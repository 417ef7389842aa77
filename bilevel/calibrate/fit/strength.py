"""How strongly fields are smoothed: the factor on what models say of their fields, chosen from the readings.

lambda multiplies the squares of the models' own priors in phi. About a fit the problem is linear, so that phi of the readings
and of the fields are known for every lambda from one generalised eigenvalue problem, without a simulation; the rule picks
lambda there, the fit is made anew, and so on until lambda stays. It changes by at most a factor of ten at a time, downwards
from the first fit, so that a bent model is cooled towards its readings (Constable, Parker & Constable 1987).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bilevel.calibrate.evaluation import Evaluation
from bilevel.calibrate.fit.evaluator import Evaluator
from bilevel.calibrate.fit.journal import Journal
from bilevel.calibrate.fit.least_squares import LeastSquaresLoop
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.settings import Noise, Settings, Strength, StrengthRule
from bilevel.report import ConvergenceError, InputError

_FITS, _FACTOR, _SETTLED = 20, 10.0, 5e-3
_GRID = np.exp(np.linspace(math.log(1e-8), math.log(1e8), 321))
"""lambda over the one at which data and fields have equal say in the mean."""
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class StrengthFit:
    """A fit on the way: lambda, phi of the readings and of the fields (not multiplied), and how many parameters are determined."""

    strength: float
    phi: float
    phi_fields: float
    determined: float


@dataclass(frozen=True)
class StrengthResult:
    """The fits in order, and t (p,) at the end of the last, whose lambda is the choice."""

    rule: StrengthRule
    fits: list[StrengthFit]
    rows: int
    t: np.ndarray

    @property
    def strength(self) -> float:
        return self.fits[-1].strength

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a file."""
        fits = [[fit.strength, fit.phi, fit.phi_fields, fit.determined] for fit in self.fits]
        return {"rule": self.rule.value, "fits": fits, "rows": self.rows, "t": self.t.tolist()}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> StrengthResult:
        """The inverse of `as_dict`."""
        fits = [StrengthFit(*fit) for fit in values["fits"]]
        return StrengthResult(StrengthRule(values["rule"]), fits, values["rows"], np.array(values["t"]))

    @property
    def sentence(self) -> str:
        last, names = self.fits[-1], {
            StrengthRule.DISCREPANCY: "the discrepancy principle",
            StrengthRule.GCV: "generalised cross-validation",
            StrengthRule.L_CURVE: "the corner of the L-curve",
        }  # fmt: skip
        return (
            f"fields are smoothed {last.strength:.3g} times as strongly as their model says, by {names[self.rule]}: phi is "
            f"{last.phi / self.rows:.3g} for each reading, which determine {last.determined:.3g} parameters ({len(self.fits)} fits)"
        )


def choose_strength(problem: CalibrationProblem, asked: Strength, settings: Settings) -> StrengthResult:
    """Fit and choose in turn, from the problem's start.

    Raises InputError where no model has a prior of its own, or where no lambda meets the target; ConvergenceError where a
    fit ends without a minimum or lambda does not come to rest.
    """
    own = Settings(noptmax=settings.noptmax, tolerance=max(settings.tolerance, 1e-4), noise=Noise.KNOWN)
    strength, fits = 1.0, []
    for _ in range(_FITS):
        evaluator = Evaluator(problem.changed(strength=strength), Journal(), max(own.noptmax, 1))
        ending = LeastSquaresLoop(evaluator, own).minimise(evaluator.problem.parameters.start())
        if not ending.converged:
            raise ConvergenceError(f"at a strength of {strength:.3g} of the fields' priors: {ending.sentence}")
        best = evaluator(evaluator.best, True)
        line = _Linearised(problem, best, strength)
        fits.append(line.fit(strength))
        wanted = line.choice(asked)
        if abs(math.log(wanted / strength)) <= _SETTLED:
            return StrengthResult(asked.rule, fits, best.data_rows, best.t)
        strength *= min(max(wanted / strength, 1 / _FACTOR), _FACTOR)
        problem = problem.changed(parameters=problem.parameters.at(best.t).parameters)
    raise ConvergenceError(
        f"the strength of the fields' priors did not come to rest in {_FITS} fits, the last was {strength:.3g}"
    )


def require_fields(problem: CalibrationProblem) -> int:
    """How many rows the models' own priors have; InputError where there are none to strengthen."""
    count = problem.field_rows(problem.parameters.start())
    if count == 0:
        raise InputError("no model of this study has a prior of its own on a field; give its field a prior")
    return count


class _Linearised:
    """phi of the readings and of the fields for every lambda, in the eigenvectors of (J^T J + C, F^T F).

    C are the parameters' own priors, which lambda leaves as they are.
    """

    def __init__(self, problem: CalibrationProblem, evaluation: Evaluation, strength: float) -> None:
        assert evaluation.jacobian is not None
        count = require_fields(problem)
        scale = math.sqrt(strength)
        jacobian, residual = evaluation.jacobian, evaluation.residual
        self.rows = evaluation.data_rows
        self.kept, self.fields = jacobian[:-count], jacobian[-count:] / scale
        self.misfit, self.roughness = residual[:-count], residual[-count:] / scale
        self.balance = np.sum(self.kept**2) / max(np.sum(self.fields**2), 1e-300)
        # unit lambda in the mean, so that both matrices are of one size; rows are stacked, not squared
        stacked = np.concatenate([self.kept, math.sqrt(self.balance) * self.fields])
        q, r = np.linalg.qr(stacked)
        if np.linalg.cond(r) > 1e12:
            raise InputError(
                "strength: some parameters are seen neither by readings nor by priors; fix them or give them a prior"
            )
        _, c, v = np.linalg.svd(q[: len(self.kept)], full_matrices=True)
        self.seen = np.zeros(len(v))
        self.seen[: len(c)] = np.minimum(c, 1.0) ** 2
        self.step = np.linalg.solve(r, v.T)  # columns: directions in which both are diagonal, seen + unseen = 1
        self.pull = self.step.T @ (self.kept.T @ self.misfit), self.step.T @ (self.fields.T @ self.roughness)

    def at(self, strength: float) -> tuple[float, float, float]:
        """phi of the readings, phi of the fields, and the trace of the influence of the readings on themselves."""
        smooth = strength / self.balance * (1 - self.seen)
        s = -self.step @ ((self.pull[0] + strength * self.pull[1]) / (self.seen + smooth))
        left = self.misfit + self.kept @ s
        along = self.kept[: self.rows] @ self.step
        trace = float(np.sum(along**2 / (self.seen + smooth)))
        return float(np.sum(left[: self.rows] ** 2)), float(np.sum((self.roughness + self.fields @ s) ** 2)), trace

    def fit(self, strength: float) -> StrengthFit:
        trace = self.at(strength)[2]
        return StrengthFit(
            strength, float(np.sum(self.misfit[: self.rows] ** 2)), float(np.sum(self.roughness**2)), trace
        )

    def choice(self, asked: Strength) -> float:
        if asked.rule is StrengthRule.DISCREPANCY:
            return self._discrepancy(asked.target)
        if asked.rule is StrengthRule.GCV:
            return self._least(self._gcv, "generalised cross-validation has no minimum")
        return self._least(lambda strength: -self._curvature(strength), "the L-curve has no corner")

    def _discrepancy(self, target: float) -> float:
        """phi of the readings rises with lambda: bisect in its logarithm."""
        low, high = math.log(self.balance * _GRID[0]), math.log(self.balance * _GRID[-1])
        ends = [self.at(math.exp(end))[0] / self.rows for end in (low, high)]
        if not ends[0] <= target <= ends[1]:
            raise InputError(
                f"strength: no strength gives phi = {target:g} for each reading; it lies between {ends[0]:.3g} (no smoothing) and "
                f"{ends[1]:.3g} (all smooth), so question the std of the readings, or the model"
            )
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.at(math.exp(middle))[0] / self.rows < target else (low, middle)
        return math.exp((low + high) / 2)

    def _gcv(self, strength: float) -> float:
        phi, _, trace = self.at(strength)
        return math.log(max(phi, 1e-300)) - 2 * math.log(max(self.rows - trace, 1e-12))

    def _curvature(self, strength: float) -> float:
        """Of log phi of the fields against log phi of the readings (Hansen 1992), by differences in log lambda."""
        h = 0.05
        x, y = np.log(np.maximum([self.at(strength * math.exp(k * h))[:2] for k in (-1, 0, 1)], 1e-300)).T
        dx, dy, ddx, ddy = x[2] - x[0], y[2] - y[0], x[2] - 2 * x[1] + x[0], y[2] - 2 * y[1] + y[0]
        speed = dx**2 + dy**2
        return 0.0 if speed == 0 else float(4 * (dx * ddy - dy * ddx) / speed**1.5)

    def _least(self, score: Callable[[float], float], failure: str) -> float:
        """The least score on the grid, refined by golden sections."""
        scores = [score(self.balance * ratio) for ratio in _GRID]
        best = int(np.argmin(scores))
        if best in (0, len(_GRID) - 1):
            raise InputError(
                f"strength: {failure} between lambda {self.balance * _GRID[0]:.1g} and {self.balance * _GRID[-1]:.1g}"
            )
        low, high = (math.log(self.balance * _GRID[best + k]) for k in (-1, 1))
        for _ in range(40):
            one, two = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
            low, high = (low, two) if score(math.exp(one)) < score(math.exp(two)) else (one, high)
        return math.exp((low + high) / 2)
