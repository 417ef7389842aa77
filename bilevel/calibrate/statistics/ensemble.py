"""Samples of the parameters that the readings allow: randomised maximum likelihood, and an ensemble smoother.

Randomised maximum likelihood (Oliver, Reynolds & Liu 2008, section 10.3) calibrates again and again, each time to readings
and priors moved by errors as large as theirs; with exact Jacobians a member costs a few evaluations. The smoother
(ES-MDA; Emerick & Reynolds 2013, Comput. Geosci. 55:3) moves draws from the prior towards the readings in a few steps, by
the covariances of the ensemble: it needs no derivatives and as many simulations as members times steps. Both are exact
where the model is linear and errors and priors are Gaussian and independent.
"""

from __future__ import annotations

import math
import pickle
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
from bilevel.calibrate.statistics.forecast_worth import row_labels
from bilevel.calibrate.statistics.from_optimum import FromOptimum, measured, states_at
from bilevel.calibrate.statistics.information import information
from bilevel.calibrate.statistics.markov_chains import (
    AGREED,
    CHAINS,
    chain,
    chain_members,
    chain_plan,
    scenario_predictions,
)
from bilevel.calibrate.statistics.profile_walk import walk_settings
from bilevel.calibrate.statistics.smoother import FEWEST, Simulations, smoothed
from bilevel.implicit.memory import Memory
from bilevel.report import BilevelError


@dataclass(frozen=True)
class EnsembleResult:
    """Members that ended well: natural values (n, q) by entry, predictions (n, k) of the forecasts' rows, in user's units.

    failed: how many did not. evaluations: simulations of the study, but for the smoother with derivatives. r_hat, effective:
    of Markov chains, the largest and the least among the entries of t.
    """

    method: EnsembleMethod
    labels: list[str]
    units: list[str]
    values: np.ndarray
    forecast_labels: list[str]
    forecasts: np.ndarray
    failed: int
    evaluations: int
    r_hat: float = math.nan
    effective: float = math.nan

    def summary(self, label: str) -> tuple[float, float, float, float]:
        """Mean, standard deviation, and the 2.5 and 97.5 % quantiles of an entry or a forecast."""
        names = [*self.labels, *self.forecast_labels]
        numbers = np.concatenate([self.values, self.forecasts], axis=1)[:, names.index(label)]
        low, high = np.quantile(numbers, [0.025, 0.975])
        return float(numbers.mean()), float(numbers.std(ddof=1)), float(low), float(high)

    @property
    def sentence(self) -> str:
        """How it was made."""
        name = {
            EnsembleMethod.RML: "randomised maximum likelihood",
            EnsembleMethod.SMOOTHER: "an ensemble smoother",
            EnsembleMethod.MCMC: f"{CHAINS} Markov chains",
        }
        said = f"{len(self.values)} samples by {name[self.method]}, {self.evaluations} evaluations"
        said += f"; {self.failed} more failed and are left out" if self.failed else ""
        if self.method is EnsembleMethod.MCMC:
            said += f"; worth at least {self.effective:.0f} independent ones, R-hat at most {self.r_hat:.3f}"
            said += "" if self.r_hat <= AGREED else ": the chains do not agree, so ask for more samples"
        return said


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
    informed = information(problem, evaluation, settings.noise)
    level = informed.level
    noise = math.sqrt(level.variance) if math.isfinite(level.variance) else 1.0
    source = source or GivenProblem(problem)
    states = pickle.dumps(states_at(problem, evaluation.t, settings.memory))
    about = f"{source.key} {asked} {evaluation.t.tobytes().hex()} {noise!r} {level.scale!r} {settings}"
    if asked.method is EnsembleMethod.RML:
        plan = _Perturbation(asked.seed, noise, level.scale, evaluation.t, walk_settings(settings), states)
        jobs = [(source, plan, k) for k in range(asked.count)]
        keys = [f"member {k} of {about}" for k in range(asked.count)]
        members = run_tasks(_fitted, jobs, workers, keep=keep, keys=keys, what="member")
    elif asked.method is EnsembleMethod.MCMC:
        chains = chain_plan(problem, evaluation, informed, asked.seed, asked.count, states)
        tasks = [(source, chains, k) for k in range(CHAINS)]
        keys = [f"chain {k} of {about}" for k in range(CHAINS)]
        found = run_tasks(chain, tasks, workers, keep=keep, keys=keys, what="chain")
        members, r_hat, effective = chain_members(problem, found)
        return replace(_gathered(problem, asked, members), r_hat=r_hat, effective=effective)
    else:
        members = smoothed(problem, evaluation, asked, noise, Simulations(source, workers, keep, about, states))
    return _gathered(problem, asked, members)


@dataclass(frozen=True)
class _Perturbation:
    seed: int
    noise: float
    prior_factor: float
    t: np.ndarray
    settings: Settings
    states: bytes


class _Perturbed(FromOptimum):
    """The measured part of a problem from t on, its readings and priors moved by one draw of their errors."""

    def __init__(self, problem: CalibrationProblem, plan: _Perturbation, member: int) -> None:
        generator = np.random.default_rng([plan.seed, member])
        experiments = []
        for experiment in measured(problem):
            table = experiment.observations
            value = _moved(table.misfit, torch.as_tensor(generator.normal(size=len(table))), plan.noise)
            experiments.append(replace(experiment, observations=replace(table, value=value)))
        super().__init__(problem, plan.t, plan.prior_factor, experiments)
        priors = len(super().prior_residual(torch.as_tensor(plan.t)))
        self.shift = plan.prior_factor * torch.as_tensor(generator.normal(size=priors))

    def prior_residual(self, t: Tensor) -> Tensor:
        return super().prior_residual(t) - self.shift


def _moved(misfit: Any, draw: Tensor, noise: float) -> Tensor:
    """Readings moved by their errors; limits stay, and so does what is not fitted."""
    moves = (misfit.weight > 0) & (misfit.limit == 0)
    error = torch.where(moves, noise * misfit.drawn(draw), 0.0)
    return torch.where(misfit.logarithmic, misfit.value * torch.exp(error), misfit.value + error)


def _fitted(source: ProblemSource, plan: _Perturbation, member: int) -> dict[str, Any]:
    """In a worker: one member of randomised maximum likelihood."""
    try:
        problem = source.problem()
        moved = _Perturbed(problem, plan, member)
        seed = pickle.loads(plan.states)
        memory = Memory(seed=seed) if plan.settings.memory else Memory(points=0)
        evaluator = Evaluator(moved, Journal(memory=memory), max(plan.settings.noptmax, 1))
        ending = LeastSquaresLoop(evaluator, plan.settings).minimise(moved.parameters.start())
        if not ending.converged:
            return {"reason": ending.sentence, "evaluations": len(evaluator.used)}
        predicted = scenario_predictions(problem, evaluator.best)
        return {"t": evaluator.best.tolist(), "predicted": predicted, "evaluations": len(evaluator.used)}
    except Exception as error:  # a user's own model may raise anything
        return {"reason": str(error), "evaluations": 0}


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
