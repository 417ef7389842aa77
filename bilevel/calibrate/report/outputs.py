"""The files of a run, under the names that PEST users know, each written in one step."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bilevel.calibrate.fit.progress import describe
from bilevel.calibrate.report.result_json import as_json
from bilevel.calibrate.report.summary import summary
from bilevel.calibrate.result import CalibrationResult
from bilevel.calibrate.settings import Transform
from bilevel.calibrate.statistics.state_deviations import state_deviations
from bilevel.calibrate.study.files import REPORT, RESULT, write_atomically
from bilevel.calibrate.study.study import Study

_SUFFIXES = (".rec", ".par.csv", ".rei.csv", ".jac.npz", ".post.cov.csv", ".ensemble.csv", ".failed.csv")


def file_names(study: Study) -> list[str]:
    """The files that a run may write, besides those in folders."""
    return [RESULT, REPORT, *(study.case + suffix for suffix in _SUFFIXES)]


def write_numbers(study: Study, result: CalibrationResult, folder: Path) -> None:
    """Write all numbers; result.json last, so that it stands only beside complete files."""
    folder.mkdir(parents=True, exist_ok=True)

    def write(suffix: str, content: str | bytes) -> None:
        write_atomically(folder / (study.case + suffix), content)

    write(".rec", _record(study, result))
    write(".par.csv", _parameters(result))
    write(".rei.csv", _residuals(result))
    if result.evaluation.jacobian is not None:
        write(".jac.npz", _jacobian(result))
    if result.statistics is not None and result.statistics.covariance is not None:
        write(".post.cov.csv", _posterior(result, result.statistics.covariance))
    if result.failed:
        write(".failed.csv", _failures(result))
    if (samples := result.ensemble) is not None:
        rows = np.concatenate([samples.values, samples.forecasts], axis=1).tolist()
        write(".ensemble.csv", _csv([*samples.labels, *samples.forecast_labels], rows))
    write_atomically(folder / RESULT, json.dumps(as_json(study, result), indent=1, allow_nan=False) + "\n")


def write_states(result: CalibrationResult, folder: Path) -> tuple[list[Path], list[str]]:
    """The models' VTU files, by experiment where there are several; returns their paths, and what failed."""
    t, experiments = torch.as_tensor(result.evaluation.t), result.problem.experiments
    written: list[Path] = []
    failed: list[str] = []
    for experiment, name in zip(experiments, _folder_names([e.name for e in experiments])):
        own = folder if len(experiments) == 1 else folder / name
        own.mkdir(parents=True, exist_ok=True)
        what = "the state"
        try:
            written += experiment.model.write_state(result.problem.arguments(experiment, t), own)
            what = "the standard deviations of the state"
            if deviations := state_deviations(result, experiment):
                written += experiment.model.write_deviations(deviations, own)
        except Exception as error:  # a model of anyone's own may raise anything, and the numbers are written
            why = f"{type(error).__name__}: {error}"
            failed.append(f"{what} of experiment '{experiment.name}': not written, {why}")
        for place in (own, folder):
            if place.exists() and not any(place.iterdir()):
                place.rmdir()
    return written, failed


def _folder_names(names: list[str]) -> list[str]:
    """A folder for each experiment that stays where it belongs, whatever the experiment is called."""
    found: list[str] = []
    for k, name in enumerate(names, 1):
        safe = re.sub(r"[^\w. -]", "_", name).strip(". ")[:80] or "experiment"
        taken = [other.lower() for other in found]  # some file systems know no case
        found.append(f"{safe}_{k}" if safe.lower() in taken else safe)
    return found


def _record(study: Study, result: CalibrationResult) -> str:
    """case.rec: the course of the calibration, then the summary."""
    lines = [f"{study.title}: {result.method}, {len(result.problem.fitted)} fitted observations", ""]
    for iteration in result.iterations:
        natural = result.problem.parameters.natural(torch.as_tensor(iteration.evaluation.t))
        values = ", ".join(f"{label} {v.item():.6g}" for label, v in natural.items() if v.dim() == 0)
        lines.append(f"iteration {iteration.number}: {describe(result.problem, iteration)}; {values}")
    return "\n".join([*lines, "", summary(study.title, result), ""])


def _parameters(result: CalibrationResult) -> str:
    header = [
        "parameter",
        "value",
        "std",
        "lower95",
        "upper95",
        "units",
        "start",
        "lower",
        "upper",
        "transform",
        "state",
        "at_bound",
        "std_correlated",
        "lower95_correlated",
        "upper95_correlated",
    ]
    rows = [
        [
            e.label,
            e.value,
            e.std,
            e.lower95,
            e.upper95,
            e.units,
            e.start,
            e.lower,
            e.upper,
            e.transform,
            e.state,
            e.at_bound,
            *(None if math.isnan(x) else x for x in (e.std_correlated, e.lower95_correlated, e.upper95_correlated)),
        ]
        for e in result.estimates
    ]
    return _csv(header, rows)


def _residuals(result: CalibrationResult) -> str:
    """case.rei.csv in the units of the files: measured, modelled, residual = measured - modelled (as PEST), weight.

    std, lower95 and upper95 are those of the prediction, as far as the parameters are uncertain; empty without statistics.
    """
    problem = result.problem
    measured, modelled, weight = problem.value.numpy(), result.evaluation.prediction, problem.weight.numpy()
    sources = [
        s.replace(", line ", ":")
        for e in problem.experiments
        for s in (e.observations.source or ("",) * len(e.observations))
    ]
    forecasts = result.forecasts
    rows: list[list[Any]] = []
    for experiment, group, members in problem.groups:
        units = experiment.observations.units_of(group)
        label = problem.group_label(experiment, group)
        for i in members:
            data, model = units.conversion.inverse(measured[i]), units.conversion.inverse(modelled[i])
            scale = 1.0 if problem.misfit.logarithmic[i] else units.conversion.scale
            own = [label, data, model, data - model, weight[i] * scale, units.name, sources[i]]
            if forecasts is not None:
                own += [forecasts.std[i] / units.conversion.scale]
                own += [units.conversion.inverse(bound[i]) for bound in (forecasts.lower95, forecasts.upper95)]
            rows.append(own)
    header = ["group", "measured", "modelled", "residual", "weight", "units", "source"]
    return _csv(header + ["std", "lower95", "upper95"] * (forecasts is not None), rows)


def _failures(result: CalibrationResult) -> str:
    """case.failed.csv: points at which a model failed: what it said, what became of it, and all parameters (user's units)."""
    parameters = result.problem.parameters.parameters
    header = ["experiment", "end", "first", "second", *(label for p in parameters for label in p.entry_labels)]
    rows: list[list[Any]] = []
    for f in result.failed:
        values = [float(x) for p in parameters for x in np.atleast_1d(f.values[p.label])]
        rows.append([f.experiment, f.end, f.first, f.second, *values])
    return _csv(header, rows)


def _jacobian(result: CalibrationResult) -> bytes:
    """case.jac.npz: d (weighted residual) / d t, t the transformed free parameters; prior rows come last."""
    problem, buffer = result.problem, io.BytesIO()
    assert result.evaluation.jacobian is not None
    np.savez(
        buffer,
        jacobian=result.evaluation.jacobian,
        residual=result.evaluation.residual,
        parameters=np.array(problem.parameters.entry_labels),
        t=result.evaluation.t,
        slope=problem.parameters.slopes(torch.as_tensor(result.evaluation.t)).numpy(),
        rows=problem.fitted.numpy(),
    )
    return buffer.getvalue()


def _posterior(result: CalibrationResult, natural: np.ndarray) -> str:
    """The covariance, of the logarithms of those parameters that are calibrated by their logarithms; a later study's prior."""
    parameters = result.problem.parameters.parameters
    labels = [label for p in parameters for label in p.entry_labels]
    scales = ["log" if p.free and p.transform is Transform.LOG else "none" for p in parameters for _ in p.entry_labels]
    values = result.problem.parameters.natural(torch.as_tensor(result.evaluation.t))
    slopes = np.array([1 / float(v) if s == "log" else 1.0 for v, s in zip(_flat(values.values()), scales)])
    matrix = slopes[:, None] * natural * slopes
    units = [p.units for p in parameters for _ in p.entry_labels]
    rows = zip(labels, scales, units, _flat(values.values()), matrix)
    return _csv(["parameter", "transform", "units", "value", *labels], [[*about, *row] for *about, row in rows])


def _flat(values: Iterable[torch.Tensor]) -> list[float]:
    return [float(x) for value in values for x in value.reshape(-1)]


def _csv(header: list[str], rows: list[list[Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(
        [
            ["" if cell is None else float(cell) if isinstance(cell, np.floating) else cell for cell in row]
            for row in rows
        ]
    )
    return buffer.getvalue()
