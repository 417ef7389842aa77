"""An ensemble smoother with multiple data assimilation, ES-MDA (Emerick & Reynolds 2013, Comput. Geosci. 55:3).

Draws from the prior are moved towards the readings in a few steps, by the covariances of the ensemble itself: no derivatives,
and as many simulations as members times steps.
"""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bilevel.calibrate.evaluation import Evaluation
from bilevel.calibrate.fit.executors import TaskFailure, Workers, run_tasks
from bilevel.calibrate.fit.problem_source import ProblemSource
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.settings import Ensemble
from bilevel.calibrate.statistics.forecast_worth import prior_rows
from bilevel.calibrate.statistics.from_optimum import measured
from bilevel.implicit.memory import Memory
from bilevel.report import InputError

FEWEST = 3
"""Members that must end well."""
SHARES = 2.0 ** np.arange(6) / 63
"""What of the readings' information each step of the smoother uses: little at first, so that a bent model is followed.

In geometric progression (Rafiee & Reynolds 2017, Inverse Problems 33:115003); equal shares leave a spread too wide.
"""


@dataclass(frozen=True)
class Simulations:
    """Where and about what the smoother simulates, and the states from which inner solves start; finished ones are kept."""

    source: ProblemSource
    workers: Workers
    keep: Path | None
    about: str
    states: bytes

    def simulate(self, step: int, points: np.ndarray) -> list[Any]:
        jobs = [(self.source, t.tolist(), self.states) for t in points]
        keys = [f"step {step}, member {k} at {t.tobytes().hex()} of {self.about}" for k, t in enumerate(points)]
        return run_tasks(_simulated, jobs, self.workers, keep=self.keep, keys=keys, what="simulation")


def _simulated(source: ProblemSource, t: list[float], states: bytes) -> dict[str, Any]:
    """In a worker: all predictions at a point."""
    try:
        with torch.no_grad(), Memory(points=0, seed=pickle.loads(states)).consulted():
            predicted = source.problem().predict(torch.tensor(t, dtype=torch.float64))
        if bool(torch.isfinite(predicted).all()):
            return {"all": predicted.tolist()}
        return {"reason": "a prediction is NaN or infinite"}
    except Exception as error:  # a user's own model may raise anything
        return {"reason": str(error)}


def smoothed(
    problem: CalibrationProblem, evaluation: Evaluation, asked: Ensemble, noise: float, tasks: Simulations
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
    count = sum(len(e.observations) for e in measured(problem))
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
                f"parameter '{label}': an ensemble smoother draws from a prior; give prior_mean with prior_std or prior_log_std, or two bounds"
            )
    low, high = parameters.bounds()
    centre, bounded = parameters.start(), np.isfinite(high - low)
    centre[bounded] = (low[bounded] + high[bounded]) / 2
    means = problem.prior_means()
    given = {
        p.label: np.array([means.get(label, x) for label, x in zip(p.entry_labels, p.start.reshape(-1))])
        for p in parameters.free
    }
    coordinates = parameters.with_start(
        {p.label: given[p.label].reshape(p.start.shape) for p in parameters.free}
    ).start()
    known = np.array([label in means for label in parameters.entry_labels])
    centre[known] = coordinates[known]
    root = np.linalg.cholesky(np.linalg.inv(rows.T @ rows))
    least, most = parameters.limits()
    return np.clip(centre + generator.normal(size=(count, len(low))) @ root.T, least, most)
