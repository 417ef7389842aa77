"""Calibration from several starts, by any concurrent.futures.Executor."""

from __future__ import annotations

import copy
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np
import torch

from bilevel.calibrate.fit.run import calibrate
from bilevel.calibrate.parameters import ParameterSet
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.settings import Settings
from bilevel.calibrate.statistics.derivative_check import require_right_derivatives
from bilevel.report import InputError


@dataclass(frozen=True)
class StartOutcome:
    """Where one start led: its values (user's units) by label, phi there, and how it ended."""

    values: dict[str, np.ndarray]
    phi: float
    converged: bool
    status: str


def multistart(
    problem: CalibrationProblem,
    count: int,
    *,
    settings: Settings | None = None,
    seed: int = 0,
    executor: Executor | None = None,
) -> list[StartOutcome]:
    """Calibrate from the given start and from count - 1 Latin hypercube points within the bounds; the best comes first.

    A process pool needs a problem that pickles. A start whose model fails has phi = inf and says why. Raises InputError
    if a free parameter lacks a bound, or if derivatives at the given start are wrong.
    """
    settings = settings or Settings()
    if settings.verify:  # once for all
        with problem.undisturbed():
            require_right_derivatives(problem, problem.evaluate(problem.parameters.start()))
    quick = replace(settings, statistics=False, verify=False)
    jobs = [(_at(problem, t), quick) for t in _starts(problem.parameters, count, seed)]
    outcomes = list(map(_run, jobs)) if executor is None else list(executor.map(_run, jobs))
    return sorted(outcomes, key=lambda outcome: outcome.phi)


def _starts(parameters: ParameterSet, count: int, seed: int) -> list[np.ndarray]:
    low, high = parameters.bounds()
    for label, entry in zip(parameters.entry_labels, np.isfinite(high - low)):
        if not entry:
            raise InputError(f"parameter '{label}': several starts need a lower and an upper bound, and no logit")
    from scipy.stats import qmc

    shares = qmc.LatinHypercube(len(low), rng=seed).random(count - 1)
    return [parameters.start(), *(low + shares * (high - low))]


def _at(problem: CalibrationProblem, t: np.ndarray) -> CalibrationProblem:
    """A copy of its own for each start, since models keep their last state."""
    started = copy.deepcopy(problem)
    natural = problem.parameters.natural(torch.as_tensor(t))
    started.parameters = problem.parameters.with_start({label: value.numpy() for label, value in natural.items()})
    return started


def _run(job: tuple[CalibrationProblem, Settings]) -> StartOutcome:
    problem, settings = job
    try:
        result = calibrate(problem, settings=settings, on_fail="ignore")
    except Exception as error:  # a user's own model may raise anything
        return StartOutcome({}, np.inf, False, str(error))
    values = {label: np.asarray(value) for label, value in result.values.items()}
    return StartOutcome(values, result.phi, result.converged, result.status)
