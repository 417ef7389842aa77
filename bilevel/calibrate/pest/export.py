"""A calibrated study as a PEST case: control file, Jacobian, prior and posterior covariance, for pyEMU and PEST++.

PEST's parameters are natural values, of log-transformed ones their decimal logarithm. Fields become one parameter an
entry; formulas stay out, as they follow from the others. Observations of weight 0 and forecasts are among the rows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from bilevel.calibrate.experiment import Experiment
from bilevel.calibrate.parameter import Parameter
from bilevel.calibrate.pest.control_file import (
    ParameterGroup,
    PestCase,
    PestObservation,
    PestParameter,
    PriorInformation,
    write_pst,
)
from bilevel.calibrate.pest.matrices import write_covariance, write_jcb
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.result import CalibrationResult
from bilevel.calibrate.settings import Transform
from bilevel.calibrate.statistics.forecast_worth import prior_rows, row_labels, with_scenarios
from bilevel.report import InputError

_UNBOUNDED = 1e10
"""How far a bound lies that is none: PEST needs them."""


def write_pest_case(
    result: CalibrationResult, file: Path, forecasts: Sequence[Experiment] = (), command: str = ""
) -> list[Path]:
    """Write FILE.pst with its tables, FILE.jcb, and the covariances where they exist; returns their paths.

    Raises InputError where names cannot be told apart in lower case, and for large fields, which have no Jacobian.
    """
    if result.posterior is not None:
        raise InputError("fields of so many parameters have no Jacobian for PEST")
    problem, evaluation = result.problem, result.evaluation
    whole = with_scenarios(problem, forecasts) if forecasts else problem
    predicted, slopes = whole.predictions_at(evaluation.t, np.ones(len(whole.value), dtype=bool))
    steps = _steps(problem, evaluation.t)
    rows, columns = _names(row_labels(whole)), _names(problem.parameters.entry_labels)
    observed, jacobian = _observed(whole, predicted, slopes * steps, rows, len(problem.value))
    case = PestCase(
        parameters=_parameters(result, columns),
        observations=observed,
        prior_information=_prior_information(result, steps, columns),
        groups=[ParameterGroup(name) for name in dict.fromkeys(_group(p) for p in problem.parameters.parameters)],
        command=[command] if command else [],
    )
    written = write_pst(case, file)
    write_jcb(file.with_suffix(".jcb"), jacobian, rows, columns)
    written.append(file.with_suffix(".jcb"))
    prior = prior_rows(problem, evaluation) * steps
    covariances = {"prior": (prior.T @ prior, True)}
    if result.statistics is not None and result.statistics.covariance_t is not None:
        covariances["post"] = (result.statistics.covariance_t / np.outer(steps, steps), False)
    for name, (matrix, inverse) in covariances.items():
        path = file.with_suffix(f".{name}.cov")
        if inverse and np.linalg.matrix_rank(matrix, hermitian=True) < len(matrix):
            continue
        matrix = np.linalg.inv(matrix) if inverse else matrix
        known = np.isfinite(np.diag(matrix))
        if known.any():
            names = [column for column, yes in zip(columns, known) if yes]
            write_covariance(path, matrix[np.ix_(known, known)], names)
            written.append(path)
    return written


def _names(labels: Sequence[str]) -> list[str]:
    """Lower case, without blanks and commas, each once."""
    found = [re.sub(r"[^!-+\--~]", "_", label).lower() for label in labels]
    for name in found:
        if found.count(name) > 1:
            raise InputError(
                f"'{name}' would be the name of two things in PEST's files, which are in lower case; rename one"
            )
    return found


def _steps(problem: CalibrationProblem, t: np.ndarray) -> np.ndarray:
    """d t / d (PEST's parameter) of each entry."""
    slopes = problem.parameters.slopes(torch.as_tensor(t)).numpy()
    logarithmic = [p.transform is Transform.LOG for p in problem.parameters.free for _ in range(p.size)]
    return np.where(logarithmic, math.log(10.0), 1 / slopes)


def _observed(
    whole: CalibrationProblem, predicted: np.ndarray, jacobian: np.ndarray, names: list[str], readings: int
) -> tuple[list[PestObservation], np.ndarray]:
    """Observations in the units of their files (forecasts at what is predicted), and the Jacobian in them."""
    found: dict[int, PestObservation] = {}
    jacobian = jacobian.copy()
    for experiment, group, rows in whole.groups:
        convert = experiment.observations.units_of(group).conversion
        label = _names([whole.group_label(experiment, group)])[0]
        for i in rows:
            value = float(convert.inverse(whole.value[i] if i < readings else predicted[i]))
            weight, scale = float(whole.weight[i]), convert.scale
            if whole.misfit.logarithmic[i]:
                value, scale = math.log(value), float(predicted[i])
            else:
                weight *= convert.scale
            jacobian[i] /= scale
            found[int(i)] = PestObservation(names[i], value, weight, label)
    return [found[i] for i in range(len(names))], jacobian


def _parameters(result: CalibrationResult, columns: list[str]) -> list[PestParameter]:
    problem, left = result.problem, iter(columns)
    natural = problem.parameters.natural(torch.as_tensor(result.evaluation.t))
    found = []
    for p in problem.parameters.parameters:
        if p.expr is not None:
            continue
        values = natural[p.label].reshape(-1).tolist()
        for label, value in zip(_names(p.entry_labels), values):
            name = label if p.fixed else next(left)
            low, high = _bounds(p, value)
            limit = "factor" if low > 0 else "relative"
            transform = "fixed" if p.fixed else "log" if p.transform is Transform.LOG else "none"
            found.append(PestParameter(name, transform, limit, value, low, high, _group(p)))
    return found


def _bounds(p: Parameter, value: float) -> tuple[float, float]:
    log = p.transform is Transform.LOG
    far = (value / _UNBOUNDED, value * _UNBOUNDED) if log else (value - _UNBOUNDED, value + _UNBOUNDED)
    low = far[0] if p.lower is None or (log and p.lower <= 0) else p.lower
    return low, far[1] if p.upper is None else p.upper


def _group(p: Parameter) -> str:
    return _names([p.label])[0]


def _prior_information(result: CalibrationResult, steps: np.ndarray, columns: list[str]) -> list[PriorInformation]:
    """All priors, linearised about the optimum in what PEST adjusts, values or their decimal logarithms: a row an equation."""
    problem, evaluation = result.problem, result.evaluation
    assert evaluation.jacobian is not None
    natural = problem.parameters.natural(torch.as_tensor(evaluation.t))
    values = torch.cat([natural[p.label].reshape(-1) for p in problem.parameters.free]).numpy()
    logarithmic = [p.transform is Transform.LOG for p in problem.parameters.free for _ in range(p.size)]
    adjusted = np.array([math.log10(x) if log else x for x, log in zip(values, logarithmic)])
    terms = [f"log({name})" if log else name for name, log in zip(columns, logarithmic)]
    found: list[PriorInformation] = []
    rows = zip(evaluation.residual[evaluation.data_rows :], evaluation.jacobian[evaluation.data_rows :] * steps)
    for k, (residual, slopes) in enumerate(rows, 1):
        own = np.flatnonzero(slopes)
        if len(own) == 0:
            continue
        largest = slopes[own[np.argmax(np.abs(slopes[own]))]]
        factors = slopes / largest
        target = float(factors[own] @ adjusted[own]) - residual / largest
        left = " + ".join(f"{float(factors[j])!r} * {terms[j]}" for j in own).replace("+ -", "- ")
        name = f"pi_{columns[own[0]]}" if len(own) == 1 else f"pi_joint_{k}"
        found.append(PriorInformation(name, f"{left} = {target:.17g}", abs(float(largest)), "regul_prior"))
    return found
