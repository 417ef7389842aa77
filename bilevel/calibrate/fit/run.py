"""The one call: calibrate a problem, and say how it ended."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from bilevel.calibrate.evaluation import Evaluation, Iteration
from bilevel.calibrate.fit.ending import Ending
from bilevel.calibrate.fit.evaluator import Evaluator, ExperimentLost, FailedPoint
from bilevel.calibrate.fit.executors import HERE, Workers
from bilevel.calibrate.fit.journal import Journal
from bilevel.calibrate.fit.lbfgsb import minimise_lbfgsb
from bilevel.calibrate.fit.least_squares import LeastSquaresLoop
from bilevel.calibrate.fit.problem_source import ProblemSource
from bilevel.calibrate.fit.side_by_side import SideBySide, side_by_side
from bilevel.calibrate.fit.stop import Stopped
from bilevel.calibrate.matrix_free.gauss_newton import GaussNewtonKrylov, is_matrix_free
from bilevel.calibrate.matrix_free.laplace import LaplacePosterior
from bilevel.calibrate.matrix_free.statistics import laplace_statistics
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.result import CalibrationResult
from bilevel.calibrate.settings import Method, Noise, Settings
from bilevel.calibrate.statistics.derivative_check import (
    TRUSTED,
    certificate,
    check_derivatives,
    require_right_derivatives,
)
from bilevel.calibrate.statistics.forecasts import forecasts
from bilevel.calibrate.statistics.identifiability import identifiability
from bilevel.calibrate.statistics.noise import noise_sentence, require_sigma
from bilevel.calibrate.statistics.randomness import randomness, sentence
from bilevel.calibrate.statistics.uncertainty import linear_statistics
from bilevel.implicit.memory import Memory
from bilevel.report import BilevelError, Counts, GradientReport, OnFail, fail

SAME_STATE = 1e-5
"""Relative difference of predictions that the tolerance of inner solves may explain."""


def calibrate(
    problem: CalibrationProblem,
    *,
    settings: Settings | None = None,
    journal: Journal | None = None,
    watch: Callable[[Iteration], None] = lambda iteration: None,
    on_fail: OnFail = "raise",
    workers: Workers = HERE,
    source: ProblemSource | None = None,
) -> CalibrationResult:
    """Fit the free parameters of `problem` to its observations.

    journal: evaluations of an interrupted run to go on from. workers: where the experiments are evaluated side by side, if
    there are several. source: how they come to the problem, by default by pickling it.
    watch is told every accepted iteration. Raises ConvergenceError when the outer loop has not converged, unless
    `on_fail` says otherwise; lets errors of the models at the start value pass.
    """
    settings = settings or Settings()
    require_sigma(problem, Noise.KNOWN if is_matrix_free(problem, settings) else settings.noise)
    began = time.perf_counter()
    journal = journal or Journal()
    earlier = journal.seconds
    if settings.memory:
        journal.memory.megabytes = settings.memory_megabytes
    else:
        journal.memory = Memory(points=0)
    with side_by_side(problem, workers, source) as side, journal.memory.consulted():
        evaluator, ending, notes, lost = _fitted(problem, settings, journal, watch, side)
        result = _assembled(evaluator, settings if not ending.stopped else replace(settings, verify=False), ending)
        result.notes, result.failed = notes + result.notes, lost + result.failed
    result.seconds = earlier + time.perf_counter() - began
    if not ending.converged and settings.noptmax > 0:
        fail(result.status, on_fail)
    return result


def _fitted(
    problem: CalibrationProblem,
    settings: Settings,
    journal: Journal,
    watch: Callable[[Iteration], None],
    side: SideBySide | None,
) -> tuple[Evaluator, Ending, list[str], list[FailedPoint]]:
    """The evaluator at the end of the fit, how that ended, and what was left out on the way, and where it failed."""
    notes: list[str] = []
    failed: list[FailedPoint] = []
    while True:
        check = _checked_at_start(problem, settings)
        evaluator = Evaluator(problem, journal, max(settings.noptmax, 1), watch, check, settings.failures, side)
        try:
            ending = _optimise(evaluator, settings)
        except Stopped:
            said = f"STOPPED after {len(evaluator.iterations) - 1} iterations, as asked; go on with bilevel resume"
            return evaluator, Ending(False, said, stopped=True), notes, failed
        except ExperimentLost as lost:
            notes.append(f"experiment '{lost.name}' was dropped, since its model failed: {lost.sentence}")
            failed += evaluator.failed
            problem = problem.without(lost.name, lost.t)
            journal.scope += f" without {lost.name}"
            continue
        if failing := evaluator.iterations[-1].evaluation.failing:
            said = f"NOT CONVERGED: the model of experiment '{failing}' fails at the best point, where it was penalised"
            ending = Ending(False, said)
        return evaluator, ending, notes, failed


def _checked_at_start(problem: CalibrationProblem, settings: Settings) -> Callable[[Evaluation], None]:
    """A fit along wrong derivatives is not worth its price, so the start is checked before it is paid."""

    def check(first: Evaluation) -> None:
        if settings.verify and settings.noptmax > 0 and first.jacobian is not None:
            require_right_derivatives(problem, first)

    return check


def _optimise(evaluator: Evaluator, settings: Settings) -> Ending:
    problem = evaluator.problem
    start = problem.parameters.start()
    if settings.noptmax == 0 or problem.parameters.size == 0:
        evaluator.accept(evaluator(start, False))
        why = " (noptmax = 0)" if settings.noptmax == 0 else ""
        return Ending(True, f"one run at the start values; nothing was fitted{why}")
    if settings.noptmax < 0:
        evaluator.accept(evaluator(start, not is_matrix_free(problem, settings)))
        return Ending(True, "Jacobian and linear statistics at the start values; nothing was fitted (noptmax = -1)")
    if is_matrix_free(problem, settings):
        ending = GaussNewtonKrylov(evaluator, settings).minimise(start)
    elif settings.method is Method.LBFGSB:
        ending = minimise_lbfgsb(evaluator, settings)
    else:
        ending = LeastSquaresLoop(evaluator, settings).minimise(start)
    steps = len(evaluator.iterations) - 1
    if not ending.converged:
        return Ending(False, f"NOT CONVERGED after {steps} iterations: {ending.sentence}")
    return Ending(True, f"converged in {steps} iterations, {len(evaluator.used)} evaluations ({ending.sentence})")


def _assembled(evaluator: Evaluator, settings: Settings, ending: Ending) -> CalibrationResult:
    problem = evaluator.problem
    wanted = settings.statistics and settings.noptmax != 0 and problem.parameters.size > 0
    matrix_free = is_matrix_free(problem, settings)
    best = evaluator(evaluator.best, wanted and not matrix_free)
    notes = [*evaluator.journal.notes, *_failure_notes(evaluator.failed), *_precision_notes(problem)]
    statistics, identified, predicted, noise, error, certified = None, None, None, "", math.nan, None
    posterior = LaplacePosterior.of(problem, best.t) if wanted and matrix_free else None
    if posterior is not None:
        statistics = laplace_statistics(problem, best, posterior)
        noise = "weights are taken for 1/sigma; " + posterior.sentence
    elif wanted:
        statistics = linear_statistics(problem, best, settings.noise)
        identified = identifiability(problem, best, statistics, settings.noise)
        predicted = forecasts(problem, best, settings.noise)
        noise = noise_sentence(problem, best, settings.noise)
        if ending.converged and settings.noptmax > 0:
            notes += filter(None, [sentence(randomness(problem, best), statistics.factors)])
        if settings.verify:
            check = check_derivatives(problem, best)
            for label in check.cut:
                identified.sentences.pop(label, None)
            error, certified, trouble = check.error, *_certified(problem, best)
            notes += check.sentences + trouble + _cold_notes(evaluator, best)
    used = list(evaluator.used.values())
    counts = Counts()
    for evaluation in used:
        counts.add(evaluation.counts)
    if counts.warm_starts and counts.fallbacks:
        notes.append(
            f"{counts.fallbacks} of {counts.warm_starts} inner solves that began from remembered states fell back to the "
            "model's own start"
        )
    return CalibrationResult(
        problem=problem,
        evaluation=best,
        iterations=evaluator.iterations,
        converged=ending.converged,
        status=ending.sentence,
        method=(Method.KRYLOV if matrix_free else settings.method).value,
        posterior=posterior,
        noise=settings.noise,
        statistics=statistics,
        identifiability=identified,
        forecasts=predicted,
        noise_sentence=noise,
        jacobian_error=error,
        counts=counts,
        inner_solves=sum(e.inner_solves for e in used),
        inner_iterations=sum(e.inner_iterations for e in used),
        certificate=certified,
        evaluations=len(used),
        seconds=0.0,
        notes=notes,
        failed=evaluator.failed,
    )


def _certified(problem: CalibrationProblem, best: Evaluation) -> tuple[GradientReport | None, list[str]]:
    try:
        certified = certificate(problem, best.t)
    except BilevelError as failure:
        return None, [f"the gradient could not be certified: {failure}"]
    if certified.relative_error <= TRUSTED:
        return certified, []
    return certified, [
        f"the certificate estimates a gradient error of {certified.relative_error:.1e}; tighten the inner solves"
    ]


def _cold_notes(evaluator: Evaluator, best: Evaluation) -> list[str]:
    """Whether inner solves that start as the first ones did find other states at the optimum than remembered ones led to."""
    if not evaluator.journal.memory.evaluations:
        return []
    try:
        with Memory(points=0).consulted(), evaluator.problem.undisturbed():
            cold = evaluator.problem.residual(best.t)
    except BilevelError as failure:
        return [f"the inner states follow those of earlier evaluations; from its own start the model fails: {failure}"]
    apart = float(np.linalg.norm(cold - best.residual[: best.data_rows])) / max(best.size, 1e-300)
    if apart <= SAME_STATE:
        return []
    return [
        f"the inner problem has more than one solution: those that follow from earlier evaluations and those from the model's "
        f"own start predict differently, by {apart:.1e} of the predictions; calibrate with memory: false and compare"
    ]


def _precision_notes(problem: CalibrationProblem) -> list[str]:
    return [
        f"the model of experiment '{name}' predicts in single precision, which leaves 7 digits and wrong standard "
        "deviations; make its tensors double (torch.set_default_dtype(torch.float64))"
        for name in sorted(problem.single_precision)
    ]


def _failure_notes(failed: list[FailedPoint]) -> list[str]:
    twice = [f.second for f in failed if f.second]
    notes = []
    if saved := [f.first for f in failed if f.end == "second try"]:
        notes.append(f"the model failed at {_points(saved)} and did not at the second try; the first said: {saved[0]}")
    if penalised := [f.first for f in failed if f.end == "penalised"]:
        notes.append(f"the model failed at {_points(penalised)}, which was penalised; the first said: {penalised[0]}")
    if twice:
        notes.append(f"the model failed at {_points(twice)}, and a shorter step was taken; the first said: {twice[0]}")
    return notes


def _points(failures: list[str]) -> str:
    return "a trial point" if len(failures) == 1 else f"{len(failures)} trial points"
