"""Calibration in stages: some parameters from some groups, then others from others, and one report of all.

A stage is a calibration of its own: what it does not free keeps its value, what it does not fit has weight 0.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from bilevel.calibrate.evaluation import Evaluation, Iteration
from bilevel.calibrate.experiment import Experiment
from bilevel.calibrate.fit.executors import HERE, Workers
from bilevel.calibrate.fit.journal import Journal
from bilevel.calibrate.fit.problem_source import GivenProblem, ProblemSource
from bilevel.calibrate.fit.run import calibrate
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.result import CalibrationResult
from bilevel.calibrate.settings import Failures, Method, Settings, Stage
from bilevel.calibrate.statistics.derivative_check import require_right_derivatives
from bilevel.report import InputError, OnFail, fail


def staged(
    problem: CalibrationProblem,
    stages: Sequence[Stage],
    *,
    settings: Settings | None = None,
    journal: Journal | None = None,
    watch: Callable[[Iteration], None] = lambda iteration: None,
    on_fail: OnFail = "raise",
    workers: Workers = HERE,
    source: ProblemSource | None = None,
) -> CalibrationResult:
    """Calibrate stage by stage, each from the last one's values; the result covers all parameters and all groups.

    Its statistics are joint ones where the last stage ended; a last stage that frees and fits all makes that the joint
    minimum. settings hold for every stage; workers and source as of `calibrate`. Without stages, or with noptmax <= 0,
    this is `calibrate`. Raises InputError for a stage that names an unknown parameter or group, else as `calibrate` does.
    """
    settings, journal = settings or Settings(), journal or Journal()
    fit = partial(calibrate, journal=journal, workers=workers, source=source or GivenProblem(problem))
    if stages and settings.failures is Failures.DROP:
        raise InputError(
            "stages, which fit different groups, cannot drop experiments; set failures to reject or penalise"
        )
    if not stages or settings.noptmax <= 0:
        return fit(problem, settings=settings, watch=watch, on_fail=on_fail)
    if settings.verify and not journal.path:  # the stages themselves check nothing
        with problem.undisturbed():
            require_right_derivatives(problem, problem.evaluate(problem.parameters.start()))
    done: list[CalibrationResult] = []
    values = {p.label: p.start for p in problem.parameters.parameters}
    each = replace(settings, statistics=False, verify=False)
    for stage in stages:
        part = restricted(problem, stage, values)
        journal.scope = stage.name
        done.append(fit(part, settings=each, watch=watch, on_fail="ignore"))
        values = {label: np.asarray(value) for label, value in done[-1].values.items()}
        if not done[-1].converged and on_fail == "raise":
            break
    journal.scope = ""
    last = fit(_from(problem, values), settings=replace(settings, noptmax=-1))
    result = _joined(problem, stages, done, last, settings.method)
    if not result.converged:
        fail(result.status, on_fail)
    return result


def restricted(problem: CalibrationProblem, stage: Stage, values: dict[str, np.ndarray]) -> CalibrationProblem:
    """The problem of one stage, from the given natural values; InputError for names that the problem does not know."""
    free = stage.parameters or tuple(p.label for p in problem.parameters.free)
    known = {problem.group_label(e, group) for e, group, _ in problem.groups}
    _require_known(stage, "parameter", free, [p.label for p in problem.parameters.free])
    _require_known(stage, "group", stage.groups, sorted(known))
    experiments = []
    for experiment in problem.experiments:
        table = experiment.observations
        fitted = {g for g in table.groups if problem.group_label(experiment, g) in (stage.groups or known)}
        mask = torch.tensor([group in fitted for group in table.group]).to(table.weight)
        experiments.append(Experiment(experiment.name, experiment.model, replace(table, weight=mask * table.weight)))
    started = _from(problem, values).parameters.parameters
    held = [
        replace(p, fixed=True, prior_mean=None, prior_std=None, prior_log_std=None)
        if p.free and p.label not in free
        else p
        for p in started
    ]
    return problem.changed(held, experiments)


def _require_known(stage: Stage, what: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}"
            free = "free parameter" if what == "parameter" else what
            raise InputError(f"stage '{stage.name}': there is no {free} '{name}'; {hint}")


def _from(problem: CalibrationProblem, values: dict[str, np.ndarray]) -> CalibrationProblem:
    """The same problem from other start values."""
    parameters = [p.started_at(values[p.label]) for p in problem.parameters.parameters]
    return problem.changed(parameters)


def _joined(
    problem: CalibrationProblem,
    stages: Sequence[Stage],
    done: list[CalibrationResult],
    last: CalibrationResult,
    method: Method,
) -> CalibrationResult:
    """The last evaluation as the result, with every stage's path, work and verdict."""
    path = [_whole(problem, part, i.evaluation) for part in done for i in part.iterations]
    last.problem = problem
    last.iterations = [Iteration(k, evaluation) for k, evaluation in enumerate([*path, last.evaluation])]
    last.converged = all(part.converged for part in done) and len(done) == len(stages)
    said = [f"stage '{stage.name}' {part.status}" for stage, part in zip(stages, done)]
    last.status = "; ".join(said if last.converged else [s for s, part in zip(said, done) if not part.converged])
    if last.converged and (stages[-1].parameters or stages[-1].groups):
        last.notes.insert(
            0, "standard deviations are joint ones of all parameters, though the stages fitted some at a time"
        )
    last.failed = [each for part in done for each in part.failed]
    last.notes = [*(note for part in done for note in part.notes), *last.notes]
    last.method = method.value
    last.evaluations += sum(part.evaluations for part in done)
    last.inner_solves += sum(part.inner_solves for part in done)
    last.inner_iterations += sum(part.inner_iterations for part in done)
    for part in done:
        last.counts.add(part.counts)
    return last


def _whole(problem: CalibrationProblem, part: CalibrationResult, evaluation: Evaluation) -> Evaluation:
    """A stage's evaluation as one of the whole problem: phi of all groups; the gradient stays the stage's, 0 where held."""
    natural = part.problem.parameters.natural(torch.as_tensor(evaluation.t))
    t = _from(problem, {label: value.numpy() for label, value in natural.items()}).parameters.start()
    gradient = np.zeros_like(t)
    for label, place in part.problem.parameters.slices.items():
        gradient[problem.parameters.slices[label]] = evaluation.gradient[place]
    residual = problem.misfit.residual(torch.as_tensor(evaluation.prediction))[problem.fitted].numpy()
    prior = problem.prior_residual(torch.as_tensor(t)).numpy()
    return replace(evaluation, t=t, residual=np.concatenate([residual, prior]), gradient=gradient, jacobian=None)
