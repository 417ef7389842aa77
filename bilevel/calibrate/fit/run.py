"""The one call: calibrate a problem, and say how it ended."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from bilevel.calibrate.fit.evaluator import Evaluator, Iteration
from bilevel.calibrate.fit.journal import Journal
from bilevel.calibrate.fit.lbfgsb import minimise_lbfgsb
from bilevel.calibrate.fit.least_squares import minimise_least_squares, relative_offset
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.result import CalibrationResult
from bilevel.calibrate.settings import Method, Settings
from bilevel.calibrate.statistics.derivative_check import certificate, jacobian_error
from bilevel.calibrate.statistics.identifiability import identifiability
from bilevel.calibrate.statistics.randomness import randomness, sentence
from bilevel.calibrate.statistics.uncertainty import linear_statistics
from bilevel.report import BilevelError, Counts, GradientReport, OnFail, fail

TRUSTED = 1e-3
"""Relative errors of derivatives above this are told to the user."""


def calibrate(
    problem: CalibrationProblem,
    method: str | Method = Method.LEAST_SQUARES,
    *,
    settings: Settings | None = None,
    journal: Journal | None = None,
    watch: Callable[[Iteration], None] = lambda iteration: None,
    on_fail: OnFail = "raise",
) -> CalibrationResult:
    """Fit the free parameters of `problem` to its observations.

    method is used when no `settings` are given. journal: evaluations of an interrupted run to go on from.
    watch is told every accepted iteration. Raises ConvergenceError when the outer loop has not converged, unless
    `on_fail` says otherwise; lets errors of the models at the start value pass.
    """
    settings = settings or Settings(method=Method(method))
    began = time.perf_counter()
    journal = journal or Journal()
    earlier = sum(e.seconds for e in journal.evaluations.values())
    with_jacobian = settings.method is Method.LEAST_SQUARES and settings.noptmax != 0
    limit = settings.noptmax if settings.noptmax > 0 else 1
    evaluator = Evaluator(problem, journal, with_jacobian, limit, watch)
    converged, status = _optimise(evaluator, settings)
    result = _assembled(evaluator, settings, converged, status)
    result.seconds = earlier + time.perf_counter() - began
    if not converged and settings.noptmax > 0:
        fail(result.status, on_fail)
    return result


def _optimise(evaluator: Evaluator, settings: Settings) -> tuple[bool, str]:
    problem = evaluator.problem
    if settings.noptmax == 0 or problem.parameters.size == 0:
        evaluator.accept(problem.parameters.start())
        return True, "one run at the start values; nothing was fitted" + (
            " (noptmax = 0)" if settings.noptmax == 0 else ""
        )
    if settings.noptmax < 0:
        evaluator.with_jacobian = True
        evaluator.accept(problem.parameters.start())
        return True, "Jacobian and linear statistics at the start values; nothing was fitted (noptmax = -1)"
    minimise = {Method.LEAST_SQUARES: minimise_least_squares, Method.LBFGSB: minimise_lbfgsb}[settings.method]
    reason = minimise(evaluator, settings.tolerance)
    steps = len(evaluator.iterations) - 1
    if reason:
        return False, f"NOT CONVERGED after {steps} iterations: {reason}"
    return True, f"converged in {steps} iterations, {len(evaluator.used)} evaluations"


def _assembled(evaluator: Evaluator, settings: Settings, converged: bool, status: str) -> CalibrationResult:
    problem, best = evaluator.problem, evaluator.best
    notes = _failure_notes(evaluator.failures)
    statistics, identified, error, certified = None, None, math.nan, None
    if settings.statistics and settings.noptmax != 0 and problem.parameters.size:
        evaluator.with_jacobian = True
        best = evaluator(best.t)
        statistics = linear_statistics(problem, best, settings.noise)
        identified = identifiability(problem, best, statistics, settings.noise)
        if statistics.degrees_of_freedom <= 0:
            notes.append("there are no more fitted observations than free parameters, so the noise cannot be estimated")
        if converged and settings.noptmax > 0:
            notes += filter(None, [sentence(randomness(problem, best))])
            status += f" (relative offset {relative_offset(best, problem.parameters.bounds()):.1e})"
        if settings.verify:
            error, certified, trouble = _verified(evaluator)
            notes += trouble
    used = list(evaluator.used.values())
    counts = Counts()
    for evaluation in used:
        counts.add(evaluation.counts)
    return CalibrationResult(
        problem=problem,
        evaluation=best,
        iterations=evaluator.iterations,
        converged=converged,
        status=status,
        method=settings.method.value,
        noise=settings.noise,
        statistics=statistics,
        identifiability=identified,
        jacobian_error=error,
        counts=counts,
        inner_solves=sum(e.inner_solves for e in used),
        inner_iterations=sum(e.inner_iterations for e in used),
        certificate=certified,
        evaluations=len(used),
        seconds=0.0,
        notes=notes,
    )


def _verified(evaluator: Evaluator) -> tuple[float, GradientReport | None, list[str]]:
    best = evaluator(evaluator.best.t)
    try:
        error = jacobian_error(evaluator.problem, best)
        certified = certificate(evaluator.problem, best.t)
    except BilevelError as failure:
        return math.nan, None, [f"the Jacobian could not be checked: {failure}"]
    notes = []
    if error > TRUSTED:
        notes.append(
            f"the Jacobian differs from finite differences by {error:.1e}; find out why before you trust the result"
        )
    if certified.relative_error > TRUSTED:
        notes.append(
            f"the certificate estimates a gradient error of {certified.relative_error:.1e}; tighten the inner solves"
        )
    return error, certified, notes


def _failure_notes(failures: list[str]) -> list[str]:
    if not failures:
        return []
    points = "a trial point" if len(failures) == 1 else f"{len(failures)} trial points"
    return [f"the model failed at {points}, and a shorter step was taken; the first said: {failures[0]}"]
