"""Calibration from several starts, each a task of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bilevel.calibrate.fit.evolution import evolved_points
from bilevel.calibrate.fit.executors import HERE, TaskFailure, Workers, run_tasks
from bilevel.calibrate.fit.problem_source import GivenProblem, ProblemSource
from bilevel.calibrate.fit.stages import staged
from bilevel.calibrate.fit.start_outcomes import StartOutcome
from bilevel.calibrate.parameters import ParameterSet
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.settings import Settings, Stage, Starts, StartSampling
from bilevel.calibrate.statistics.derivative_check import require_right_derivatives
from bilevel.report import InputError


def multistart(
    problem: CalibrationProblem,
    starts: Starts,
    *,
    stages: Sequence[Stage] = (),
    settings: Settings | None = None,
    workers: Workers = HERE,
    source: ProblemSource | None = None,
    keep: Path | None = None,
) -> list[StartOutcome]:
    """Calibrate from the given start and from further points within the bounds; the best comes first.

    source: how workers come to the problem, by default by pickling it. keep: a folder in which finished starts stay. A
    start whose model fails has phi = inf and says why. Raises InputError if a free parameter lacks a bound, or if
    derivatives at the given start are wrong.
    """
    settings = settings or Settings()
    source = source or GivenProblem(problem)
    points = start_points(problem.parameters, starts)
    if settings.verify:  # once for all
        with problem.undisturbed():
            require_right_derivatives(problem, problem.evaluate(problem.parameters.start()))
    if evolved := starts.sampling is StartSampling.CMA_ES:
        points += evolved_points(problem.parameters, starts, workers, source, keep)
    quick = replace(settings, statistics=False, verify=False)
    naturals = [
        {label: value.numpy() for label, value in problem.parameters.natural(torch.as_tensor(t)).items()}
        for t in points
    ]
    jobs = [(source, {label: v.tolist() for label, v in n.items()}, tuple(stages), quick) for n in naturals]
    keys = [f"start of {source.key}: {n} {stages} {quick}" for _, n, _, _ in jobs]
    found = run_tasks(_calibrated, jobs, workers, keep=keep, keys=keys, what="start")
    outcomes = [
        replace(_outcome(k, natural, each), drawn=not evolved) for k, (natural, each) in enumerate(zip(naturals, found))
    ]
    return sorted(outcomes, key=lambda outcome: outcome.phi)


def start_points(parameters: ParameterSet, starts: Starts) -> list[np.ndarray]:
    """The given start and count - 1 others (p,) drawn within the bounds; InputError where a free parameter lacks one."""
    low, high = parameters.bounds()
    for label, entry in zip(parameters.entry_labels, np.isfinite(high - low)):
        if not entry:
            raise InputError(f"parameter '{label}': several starts need a lower and an upper bound, and no logit")
    from scipy.stats import qmc  # a second of start-up, for this alone

    count = 0 if starts.sampling is StartSampling.CMA_ES else starts.count - 1
    if starts.sampling is StartSampling.SOBOL:
        power = math.ceil(math.log2(max(count, 1)))
        shares = qmc.Sobol(len(low), rng=starts.seed).random_base2(power)[:count]
    else:
        shares = qmc.LatinHypercube(len(low), rng=starts.seed).random(count)
    return [parameters.start(), *(low + shares * (high - low))]


def _calibrated(
    source: ProblemSource, start: dict[str, Any], stages: tuple[Stage, ...], settings: Settings
) -> dict[str, Any]:
    """In a worker: one calibration; phi None where the model failed."""
    try:
        problem = source.problem()
        problem.parameters = problem.parameters.with_start({label: np.asarray(v) for label, v in start.items()})
        result = staged(problem, stages, settings=settings, on_fail="ignore")
    except Exception as error:  # a user's own model may raise anything
        return {"values": {}, "phi": None, "converged": False, "status": str(error)}
    values = {label: np.asarray(value).tolist() for label, value in result.values.items()}
    return {"values": values, "phi": result.phi, "converged": result.converged, "status": result.status}


def _outcome(number: int, start: dict[str, np.ndarray], found: dict[str, Any] | TaskFailure) -> StartOutcome:
    if isinstance(found, TaskFailure):
        return StartOutcome(number, start, {}, math.inf, False, found.sentence)
    values = {label: np.asarray(value) for label, value in found["values"].items()}
    phi = math.inf if found["phi"] is None else found["phi"]
    return StartOutcome(number, start, values, phi, found["converged"], found["status"])
