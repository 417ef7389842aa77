"""How strongly fields are smoothed: the factor on what models say of their fields, chosen from the readings.

lambda multiplies the squares of the models' own priors in phi. About a fit the problem is linear, so that phi of the readings
and of the fields are known for every lambda from one generalised eigenvalue problem, without a simulation; the rule picks
lambda there, the fit is made anew, and so on until lambda stays. It changes by at most a factor of ten at a time, downwards
from the first fit, so that a bent model is cooled towards its readings (Constable, Parker & Constable 1987).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from bilevel.calibrate.evaluation import Evaluation
from bilevel.calibrate.fit.ending import Ending
from bilevel.calibrate.fit.evaluator import Evaluator
from bilevel.calibrate.fit.journal import Journal
from bilevel.calibrate.fit.least_squares import LeastSquaresLoop
from bilevel.calibrate.fit.strength_line import DenseLine, LowRankLine, StrengthLine
from bilevel.calibrate.matrix_free.gauss_newton import GaussNewtonKrylov, is_matrix_free
from bilevel.calibrate.matrix_free.laplace import LaplacePosterior
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.settings import Noise, Settings, Strength, StrengthRule
from bilevel.report import ConvergenceError, InputError

_FITS, _FACTOR = 20, 10.0


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
            f"{last.phi / self.rows:.3g} for each reading, which determine {last.determined:.3g} parameters ({len(self.fits)} fits); "
            "standard deviations are those of fields so smooth"
        )


def choose_strength(problem: CalibrationProblem, asked: Strength, settings: Settings) -> StrengthResult:
    """Fit and choose in turn, from the problem's start.

    Raises InputError where no model has a prior of its own, or where no lambda meets the target; ConvergenceError where a
    fit ends without a minimum or lambda does not come to rest.
    """
    own = Settings(
        method=settings.method, noptmax=settings.noptmax, tolerance=max(settings.tolerance, 1e-4), noise=Noise.KNOWN
    )
    strength, fits, earlier = 1.0, [], None
    for _ in range(_FITS):
        evaluator = Evaluator(problem.changed(strength=strength), Journal(), max(own.noptmax, 1))
        fit = _large_fit if is_matrix_free(problem, settings) else _fit
        best, line, earlier = fit(evaluator, own, earlier)
        phi, fields = float(np.sum(best.residual[: best.data_rows] ** 2)), require_fields(problem)
        roughness = float(np.sum(best.residual[-fields:] ** 2)) / strength
        fits.append(StrengthFit(strength, phi, roughness, line.at(strength)[2]))
        wanted = line.choice(asked)
        if abs(math.log(wanted / strength)) <= line.rest:
            return StrengthResult(asked.rule, fits, best.data_rows, best.t)
        strength *= min(max(wanted / strength, 1 / _FACTOR), _FACTOR)
        problem = problem.changed(parameters=problem.parameters.at(best.t).parameters)
    raise ConvergenceError(
        f"the strength of the fields' priors did not come to rest in {_FITS} fits, the last was {strength:.3g}"
    )


def _fit(
    evaluator: Evaluator, settings: Settings, earlier: LaplacePosterior | None
) -> tuple[Evaluation, StrengthLine, None]:
    problem = evaluator.problem
    _require_converged(problem, LeastSquaresLoop(evaluator, settings).minimise(problem.parameters.start()))
    best = evaluator(evaluator.best, True)
    return best, DenseLine(best, require_fields(problem), problem.strength), None


def _large_fit(
    evaluator: Evaluator, settings: Settings, earlier: LaplacePosterior | None
) -> tuple[Evaluation, StrengthLine, LaplacePosterior]:
    """With the posterior of the fit before, which differs little but for lambda, as preconditioner."""
    problem, precondition = evaluator.problem, None
    if earlier is not None:
        precondition = partial(earlier.solve, strength=problem.strength / earlier.strength)
    loop = GaussNewtonKrylov(evaluator, settings, precondition)
    _require_converged(problem, loop.minimise(problem.parameters.start()))
    best = evaluator(evaluator.best, False)
    posterior = LaplacePosterior.of(problem, best.t)
    return best, LowRankLine(problem, best, posterior), posterior


def _require_converged(problem: CalibrationProblem, ending: Ending) -> None:
    if not ending.converged:
        raise ConvergenceError(f"at a strength of {problem.strength:.3g} of the fields' priors: {ending.sentence}")


def require_fields(problem: CalibrationProblem) -> int:
    """How many rows the models' own priors have; InputError where there are none to strengthen."""
    count = problem.field_rows(problem.parameters.start())
    if count == 0:
        raise InputError("no model of this study has a prior of its own on a field; give its field a prior")
    return count
