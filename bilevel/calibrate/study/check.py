"""What `bilevel check` says of a study: what was read, one evaluation as a run would make it, and whether it is right."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from bilevel.calibrate.problem import CalibrationProblem, Experiment
from bilevel.calibrate.statistics.derivative_check import TRUSTED, certificate, check_derivatives
from bilevel.calibrate.statistics.noise import require_sigma
from bilevel.calibrate.study.study import Study
from bilevel.calibrate.study.units import parse_unit
from bilevel.report import InputError


def check_study(study: Study) -> tuple[str, bool]:
    """A text for the user, and whether all is well: the Jacobian of a run, by its own path, parameter by parameter."""
    problem = study.problem
    require_sigma(problem, study.settings.noise)
    evaluation = problem.evaluate(problem.parameters.start())
    lines = [f"{study.path}: valid", *_contents(problem), *(f"note: {note}" for note in study.notes)]
    start = torch.as_tensor(evaluation.t)
    lines += [line for experiment in problem.experiments for line in _received(problem, experiment, start)]
    lines.append(f"one simulation at the start values: phi = {evaluation.phi:.6g}")
    if not problem.parameters.size:
        return "\n".join([*lines, "no free parameter, so there is no gradient to check"]), True
    check = check_derivatives(problem, evaluation, apart=True)
    certified = certificate(problem, evaluation.t)
    lines += [f"derivatives of {e.name}: {e.model.derivatives}" for e in problem.experiments if e.model.precision]
    lines += [str(certified), "derivatives against finite differences, relative:"]
    lines += [f"  {name}: {error:.1e}" for name, error in check.errors.items()]
    lines += [f"  {name}: no fitted observation depends on it" for name in check.unseen if name not in check.cut]
    right = not check.sentences and certified.relative_error <= TRUSTED
    return "\n".join([*lines, *check.sentences, f"verdict: {'right' if right else 'WRONG'}"]), right


def draw_maps(study: Study, file: Path) -> list[Path]:
    """Write the models' maps as pictures, one for each experiment that has one; InputError where none has."""
    drawn = [figure for e in study.problem.experiments for figure in e.model.maps()]
    if not drawn:
        raise InputError(f"{study.path}: a study of this kind has no map; leave --map out")
    paths = [file if k == 0 else file.with_stem(f"{file.stem}_{k + 1}") for k in range(len(drawn))]
    for path, picture in zip(paths, drawn):
        try:
            picture.drawing().savefig(path, dpi=160)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: the map cannot be written: {error}") from None
    return paths


def _contents(problem: CalibrationProblem) -> list[str]:
    free = len(problem.parameters.free)
    lines = [
        f"{len(problem.parameters.parameters)} parameters, {free} of them free ({problem.parameters.size} unknowns)"
    ]
    for experiment, group, rows in problem.groups:
        fitted = int((problem.weight[rows] > 0).sum())
        lines.append(f"group {problem.group_label(experiment, group)}: {len(rows)} rows, {fitted} fitted")
    return lines


def _si(given: str) -> str:
    """How numbers are called that a model takes in SI units: as they were given, where these are SI units."""
    unit = parse_unit(given)
    return given if (unit.scale, unit.offset) == (1.0, 0.0) else f"in SI units, from {given}"


def _received(problem: CalibrationProblem, experiment: Experiment, t: Tensor) -> list[str]:
    """The numbers that a model works with, in its own units: what was converted is seen to be right or wrong."""
    model, table = experiment.model, experiment.observations
    defaults, written = model.parameter_defaults(), {p.name: p.units for p in problem.parameters.parameters}

    def line(what: str, values: Tensor, units: str | None, as_given: str) -> str:
        values = values.reshape(-1)[~torch.isnan(values.reshape(-1))]  # optional columns have gaps
        if not len(values):
            return f"  {what}: none"
        low, high = float(values.min()), float(values.max())
        numbers = f"{low:g}" if low == high else f"{low:g} .. {high:g}"
        unit = f"{as_given} (as written)" if model.as_written else units if units is not None else _si(as_given)
        return f"  {what}: {numbers} {unit}".rstrip()

    lines = [f"the model of experiment '{experiment.name}' receives, at the start values:"]
    for name, value in problem.arguments(experiment, t).items():
        known = defaults[name].units if name in defaults else None if written.get(name) else ""
        lines.append(line(f"parameter {name}", value, known, written.get(name, "")))
    columns = {**model.columns, **model.optional_columns}
    for name, values in table.columns.items():
        own = table.column_units[name].name if name in table.column_units else ""
        lines.append(line(f"column {name}", values, columns.get(name, None if own else ""), own))
    for group in table.groups:
        own = table.units_of(group).name
        units = model.value_units if model.value_units is not None else None if own else ""
        lines.append(line(f"and is compared with {group}", table.value[table.rows(group)], units, own))
    return lines
