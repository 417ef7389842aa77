"""Samples of the parameters that the readings allow: randomised maximum likelihood, and an ensemble smoother.

Randomised maximum likelihood (Oliver, Reynolds & Liu 2008, section 10.3) calibrates again and again, each time to readings
and priors moved by errors as large as theirs; with exact Jacobians a member costs a few evaluations. The smoother
(ES-MDA; Emerick & Reynolds 2013, Comput. Geosci. 55:3) moves draws from the prior towards the readings in a few steps, by
the covariances of the ensemble: it needs no derivatives and as many simulations as members times steps. Both are exact
where the model is linear and errors and priors are Gaussian and independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bilevel.calibrate.evaluation import Evaluation
from bilevel.calibrate.fit.evaluator import Evaluator
from bilevel.calibrate.fit.executors import HERE, TaskFailure, Workers, run_tasks
from bilevel.calibrate.fit.journal import Journal
from bilevel.calibrate.fit.least_squares import LeastSquaresLoop
from bilevel.calibrate.fit.problem_source import GivenProblem, ProblemSource
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.settings import Ensemble, EnsembleMethod, Settings
from bilevel.calibrate.statistics.forecast_worth import prior_rows, row_labels
from bilevel.calibrate.statistics.information import information
from bilevel.calibrate.statistics.profile_walk import walk_settings
from bilevel.report import BilevelError, InputError

SHARES = 2.0 ** np.arange(6) / 63
"""What of the readings' information each step of the smoother uses: little at first, so that a bent model is followed.

In geometric progression (Rafiee & Reynolds 2017, Inverse Problems 33:115003); equal shares leave a spread too wide.
"""
FEWEST = 3


@dataclass(frozen=True)
class EnsembleResult:
    """Members that ended well: natural values (n, q) by entry, predictions (n, k) of the forecasts' rows, in user's units.

    failed: how many did not. evaluations: simulations of the study, with derivatives for maximum likelihood.
    """

    method: EnsembleMethod
    labels: list[str]
    units: list[str]
    values: np.ndarray
    forecast_labels: list[str]
    forecasts: np.ndarray
    failed: int
    evaluations: int

    def summary(self, label: str) -> tuple[float, float, float, float]:
        """Mean, standard deviation, and the 2.5 and 97.5 % quantiles of an entry or a forecast."""
        names = [*self.labels, *self.forecast_labels]
        numbers = np.concatenate([self.values, self.forecasts], axis=1)[:, names.index(label)]
        low, high = np.quantile(numbers, [0.025, 0.975])
        return float(numbers.mean()), float(numbers.std(ddof=1)), float(low), float(high)

    @property
    def sentence(self) -> str:
        """How it was made."""
        name = {EnsembleMethod.RML: "randomised maximum likelihood", EnsembleMethod.SMOOTHER: "an ensemble smoother"}
        lost = f"; {self.failed} more failed and are left out" if self.failed else ""
        return f"{len(self.values)} samples by {name[self.method]}, {self.evaluations} evaluations{lost}"


def ensemble(
    problem: CalibrationProblem,
    evaluation: Evaluation,
    asked: Ensemble,
    *,
    settings: Settings | None = None,
    workers: Workers = HERE,
    source: ProblemSource | None = None,
    keep: Path | None = None,
) -> EnsembleResult:
    """Samples about an optimum that has a Jacobian; of rows of scenarios in the problem, their predictions too.

    Raises InputError where the smoother has no prior of a parameter, BilevelError where fewer than three members end well.
    """
    settings = settings or Settings()
    level = information(problem, evaluation, settings.noise).level
    noise = math.sqrt(level.variance) if math.isfinite(level.variance) else 1.0
    source = source or GivenProblem(problem)
    about = f"{source.key} {asked} {evaluation.t.tobytes().hex()} {noise!r} {level.scale!r} {settings}"
    if asked.method is EnsembleMethod.RML:
        plan = _Perturbation(asked.seed, noise, level.scale, evaluation.t, walk_settings(settings))
        jobs = [(source, plan, k) for k in range(asked.count)]
        keys = [f"member {k} of {about}" for k in range(asked.count)]
        members = run_tasks(_fitted, jobs, workers, keep=keep, keys=keys, what="member")
    else:
        members = _smoothed(problem, evaluation, asked, noise, _Tasks(source, workers, keep, about))
    return _gathered(problem, asked, members)


@dataclass(frozen=True)
class _Perturbation:
    seed: int
    noise: float
    prior_factor: float
    t: np.ndarray
    settings: Settings


class _Perturbed(CalibrationProblem):
    """The measured part of a problem from t on, its readings and priors moved by one draw of their errors."""

    def __init__(self, problem: CalibrationProblem, plan: _Perturbation, member: int) -> None:
        generator = np.random.default_rng([plan.seed, member])
        experiments = []
        for experiment in (e for e in problem.experiments if not e.parameters_of):
            table = experiment.observations
            value = _moved(table.misfit, torch.as_tensor(generator.normal(size=len(table))), plan.noise)
            experiments.append(replace(experiment, observations=replace(table, value=value)))
        super().__init__(problem.parameters.at(plan.t).parameters, experiments, problem.sweep, problem.strength)
        self.prior_factor, self.shift = plan.prior_factor, torch.zeros(0)
        self.shift = torch.as_tensor(generator.normal(size=len(super().prior_residual(torch.as_tensor(plan.t)))))

    def prior_residual(self, t: Tensor) -> Tensor:
        return self.prior_factor * (super().prior_residual(t) - self.shift)


def _moved(misfit: Any, draw: Tensor, noise: float) -> Tensor:
    """Readings moved by their errors; limits stay, and so does what is not fitted."""
    moves = (misfit.weight > 0) & (misfit.limit == 0)
    error = torch.where(moves, noise * draw / torch.where(misfit.weight > 0, misfit.weight, 1.0), 0.0)
    return torch.where(misfit.logarithmic, misfit.value * torch.exp(error), misfit.value + error)


def _fitted(source: ProblemSource, plan: _Perturbation, member: int) -> dict[str, Any]:
    """In a worker: one member of randomised maximum likelihood."""
    try:
        problem = source.problem()
        moved = _Perturbed(problem, plan, member)
        evaluator = Evaluator(moved, Journal(), max(plan.settings.noptmax, 1))
        ending = LeastSquaresLoop(evaluator, plan.settings).minimise(moved.parameters.start())
        if not ending.converged:
            return {"reason": ending.sentence, "evaluations": len(evaluator.used)}
        predicted = _scenario_predictions(problem, evaluator.best)
        return {"t": evaluator.best.tolist(), "predicted": predicted, "evaluations": len(evaluator.used)}
    except Exception as error:  # a user's own model may raise anything
        return {"reason": str(error), "evaluations": 0}


def _scenario_predictions(problem: CalibrationProblem, t: np.ndarray) -> list[float]:
    """Of the rows of scenarios, in the model's units."""
    if not any(e.parameters_of for e in problem.experiments):
        return []
    count = sum(len(e.observations) for e in problem.experiments if not e.parameters_of)
    with torch.no_grad():
        return problem.predict(torch.as_tensor(t))[count:].tolist()


@dataclass(frozen=True)
class _Tasks:
    source: ProblemSource
    workers: Workers
    keep: Path | None
    about: str

    def simulate(self, step: int, points: np.ndarray) -> list[Any]:
        jobs = [(self.source, t.tolist()) for t in points]
        keys = [f"step {step}, member {k} at {t.tobytes().hex()} of {self.about}" for k, t in enumerate(points)]
        return run_tasks(_simulated, jobs, self.workers, keep=self.keep, keys=keys, what="simulation")


def _simulated(source: ProblemSource, t: list[float]) -> dict[str, Any]:
    """In a worker: all predictions at a point."""
    try:
        with torch.no_grad():
            predicted = source.problem().predict(torch.tensor(t, dtype=torch.float64))
        if bool(torch.isfinite(predicted).all()):
            return {"all": predicted.tolist()}
        return {"reason": "a prediction is NaN or infinite"}
    except Exception as error:  # a user's own model may raise anything
        return {"reason": str(error)}


def _smoothed(
    problem: CalibrationProblem, evaluation: Evaluation, asked: Ensemble, noise: float, tasks: _Tasks
) -> list[dict[str, Any]]:
    """Draws from the prior, moved in as many steps as there are shares, and then what they predict."""
    generator = np.random.default_rng(asked.seed)
    points = _prior_draws(problem, evaluation, asked.count, generator)
    fitted = problem.fitted.numpy()
    low, high = problem.parameters.limits()
    spent, lost = 0, 0
    for step in range(len(SHARES) + 1):
        found = tasks.simulate(step, points)
        spent += len(points)
        good = [k for k, each in enumerate(found) if not isinstance(each, TaskFailure) and "all" in each]
        lost += len(points) - len(good)
        if len(good) < FEWEST:
            break
        points, predicted = points[good], np.array([found[k]["all"] for k in good])
        if step < len(SHARES):
            z = problem.misfit.standard(torch.as_tensor(predicted)).numpy()[:, fitted] / noise
            error = generator.normal(size=z.shape) / math.sqrt(SHARES[step])
            points = np.clip(points + _update(points, z, error, SHARES[step]), low, high)
    count = sum(len(e.observations) for e in problem.experiments if not e.parameters_of)
    members = [{"t": t.tolist(), "predicted": y[count:].tolist(), "evaluations": 0} for t, y in zip(points, predicted)]
    rest = [{"reason": "the model failed", "evaluations": 0}] * lost
    return [{"reason": "", "evaluations": spent, "work": True}, *members, *rest]


def _update(points: np.ndarray, z: np.ndarray, error: np.ndarray, share: float) -> np.ndarray:
    """C_tz (C_zz + I / share)^-1 (error - z), z the weighted residuals; by the singular values of z's deviations."""
    n = len(points) - 1
    t, dz = (points - points.mean(axis=0)) / math.sqrt(n), (z - z.mean(axis=0)) / math.sqrt(n)
    u, s, v = np.linalg.svd(dz, full_matrices=False)
    gain = (t.T @ u) * (s / (s**2 + 1 / share))
    return (error - z) @ v.T @ gain.T


def _prior_draws(
    problem: CalibrationProblem, evaluation: Evaluation, count: int, generator: np.random.Generator
) -> np.ndarray:
    """t (count, p) from the priors, and from the middle of two bounds where there is none."""
    rows, parameters = prior_rows(problem, evaluation), problem.parameters
    for label, known in zip(parameters.entry_labels, (rows != 0).any(axis=0)):
        if not known:
            raise InputError(
                f"parameter '{label}': an ensemble smoother draws from a prior; give prior_mean and prior_std, or two bounds"
            )
    low, high = parameters.bounds()
    centre, bounded = parameters.start(), np.isfinite(high - low)
    centre[bounded] = (low[bounded] + high[bounded]) / 2
    means = {p.label: np.full(p.start.shape, p.prior_mean) for p in parameters.free if p.prior_mean is not None}
    given = parameters.with_start(means).start()
    for label in means:
        centre[parameters.slices[label]] = given[parameters.slices[label]]
    root = np.linalg.cholesky(np.linalg.inv(rows.T @ rows))
    least, most = parameters.limits()
    return np.clip(centre + generator.normal(size=(count, len(low))) @ root.T, least, most)


def _gathered(problem: CalibrationProblem, asked: Ensemble, members: Sequence[Any]) -> EnsembleResult:
    spent = sum(m["evaluations"] for m in members if not isinstance(m, TaskFailure))
    members = [m for m in members if isinstance(m, TaskFailure) or "work" not in m]
    good = [m for m in members if not isinstance(m, TaskFailure) and "t" in m]
    if len(good) < FEWEST:
        bad = next((m for m in members if isinstance(m, TaskFailure) or "t" not in m), None)
        reason = bad.sentence if isinstance(bad, TaskFailure) else (bad or {}).get("reason", "")
        raise BilevelError(
            f"only {len(good)} of {asked.count} members of the ensemble ended well; the first that did not: {reason}"
        )
    natural = [problem.parameters.natural(torch.tensor(m["t"], dtype=torch.float64)) for m in good]
    values = np.array([torch.cat([v.reshape(-1) for v in n.values()]).numpy() for n in natural])
    scenarios = [(e, g, rows) for e, g, rows in problem.groups if e.parameters_of]
    labels, forecast_labels, columns = row_labels(problem), [], []
    first = len(problem.value) - sum(len(rows) for _, _, rows in scenarios)
    predicted = np.array([m["predicted"] for m in good]).reshape(len(good), -1)
    for e, group, rows in scenarios:
        forecast_labels += [labels[i] for i in rows]
        columns.append(e.observations.units_of(group).conversion.inverse(predicted[:, rows - first]))
    return EnsembleResult(
        method=asked.method,
        labels=[label for p in problem.parameters.parameters for label in p.entry_labels],
        units=[p.units for p in problem.parameters.parameters for _ in p.entry_labels],
        values=values,
        forecast_labels=forecast_labels,
        forecasts=np.concatenate(columns, axis=1) if columns else np.zeros((len(good), 0)),
        failed=len(members) - len(good),
        evaluations=spent,
    )
