"""Priors of several parameters together, from a file: `prior_covariance` of study.yml."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bilevel.calibrate.joint_prior import JointPrior
from bilevel.calibrate.parameter import Parameter
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.settings import Transform
from bilevel.calibrate.study.covariance_file import CovarianceFile, read_covariance
from bilevel.calibrate.study.schema import ParameterSection, PriorCovarianceSection, Scale
from bilevel.calibrate.study.units import parse_unit
from bilevel.calibrate.study.validated import hint
from bilevel.report import InputError

Place = tuple[Parameter, int]
"""A parameter, and one of its entries."""


def read_joint_prior(
    section: PriorCovarianceSection,
    folder: Path,
    parameters: Sequence[Parameter],
    means: Mapping[str, float | list[float]],
    notes: list[str],
) -> JointPrior:
    """The prior; its means are those given by the parameters' labels, else the file's, else the start values."""
    file = read_covariance(folder / section.file)
    places = _places(file, parameters)
    chosen = [k for k, place in enumerate(_chosen(section, file, places)) if place is not None]
    entries = [(places[file.names[k]], k) for k in chosen]
    labels = [p.entry_labels[i] for (p, i), _ in entries]
    logarithmic, factor, centre = [], [], []
    started: list[str] = []
    for (p, i), k in entries:
        scale = _scale(section, file, p, k)
        conversion = (
            parse_unit(file.units[k]).to(parse_unit(p.units)) if file.units and file.units[k] != p.units else None
        )
        logarithmic.append(scale is not Scale.NATURAL)
        own = 1.0 if conversion is None or scale is not Scale.NATURAL else conversion.scale
        factor.append(math.log(10) if scale is Scale.LOG10 else own)
        if p.label in means:
            centre.append(float(np.broadcast_to(means[p.label], p.size)[i]))
        elif file.values is not None:
            centre.append(float(file.values[k] if conversion is None else conversion(file.values[k])))
        else:
            centre.append(float(p.start.reshape(-1)[i]))
            started.append(p.entry_labels[i])
    if started:
        notes.append(f"{file.path}: the prior means of {', '.join(started[:5])} are their start values")
    matrix = file.matrix[np.ix_(chosen, chosen)] * np.outer(factor, factor)
    try:
        return JointPrior(tuple(labels), np.array(centre), matrix, np.array(logarithmic))
    except InputError as error:
        raise InputError(f"{file.path}: {error}") from None


def means_alone(
    sections: Sequence[ParameterSection], parameters: Sequence[Parameter]
) -> dict[str, float | list[float]]:
    """By label, every prior_mean without a std of its own: those of priors of several parameters."""
    return {
        p.label: s.prior_mean
        for s, p in zip(sections, parameters)
        if s.prior_mean is not None and s.prior_std is None and s.prior_log_std is None
    }


def require_used(means: Mapping[str, float | list[float]], problem: CalibrationProblem) -> None:
    """InputError for a mean that no prior of several parameters took."""
    named = {label for prior in problem.joint_priors for label in prior.labels}
    for label in means:
        parameter = problem.parameters.by_label[label]
        if not named & set(parameter.entry_labels):
            raise parameter.error("a prior_mean needs prior_std or prior_log_std, or the parameter in prior_covariance")


def _places(file: CovarianceFile, parameters: Sequence[Parameter]) -> dict[str, Place]:
    """Name in the file -> the entry that it means; PEST's names are in lower case, without blanks and commas."""
    found = {}
    for p in parameters:
        for i, label in enumerate(p.entry_labels):
            found[re.sub(r"[^!-+\--~]", "_", label).lower() if file.pest else label] = (p, i)
    return found


def _chosen(section: PriorCovarianceSection, file: CovarianceFile, places: dict[str, Place]) -> list[Place | None]:
    """For each row of the file its entry, or None: what is not asked for, or follows from the others."""
    if not file.names:
        raise InputError(
            f"{file.path}: its rows have no names; write a table with the parameters' names in row and column"
        )
    asked = section.parameters or [name for name in file.names if not _formula(places.get(name))]
    for name in asked:
        if name not in file.names:
            raise InputError(f"parameters: {file.path} has no row '{name}'{hint(name, file.names)}")
        if name not in places:
            raise InputError(
                f"{file.path}: the study has no parameter '{name}'{hint(name, places)}; say under parameters which to take"
            )
        if _formula(places[name]):
            raise InputError(f"parameter '{name}' follows from a formula; a prior of several stands on what is in it")
    known = np.isfinite(np.diag(file.matrix)) & (np.diag(file.matrix) > 0)
    return [
        places[name] if name in asked and (known[k] or section.parameters) else None
        for k, name in enumerate(file.names)
    ]


def _formula(place: Place | None) -> bool:
    return place is not None and place[0].expr is not None


def _scale(section: PriorCovarianceSection, file: CovarianceFile, p: Parameter, k: int) -> Scale:
    calibrated_by_log = p.transform is Transform.LOG
    if section.scale is not None:
        return section.scale
    if file.transforms:
        if file.transforms[k] not in ("none", "log"):
            raise InputError(f"{file.path}: transform is none or log, not '{file.transforms[k]}'")
        return Scale.LOG if file.transforms[k] == "log" else Scale.NATURAL
    if file.pest:
        return Scale.LOG10 if calibrated_by_log else Scale.NATURAL
    if calibrated_by_log:
        raise InputError(
            f"{file.path}: '{p.label}' is calibrated by its logarithm; say whether the covariance is that of values "
            "(scale: natural), of natural (log) or of decimal logarithms (log10)"
        )
    return Scale.NATURAL
