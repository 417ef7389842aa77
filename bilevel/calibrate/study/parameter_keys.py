"""A parameter of study.yml: its start value, its units, and its bounds within what the models allow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bilevel.calibrate.experiment import Experiment
from bilevel.calibrate.model import ParameterDefault
from bilevel.calibrate.parameter import Parameter
from bilevel.calibrate.study.csv_file import read_csv
from bilevel.calibrate.study.number_file import read_npy
from bilevel.calibrate.study.schema import ParameterSection, ValueSection
from bilevel.calibrate.study.units import Conversion, describe, parse_unit
from bilevel.calibrate.study.validated import hint
from bilevel.report import InputError


def read_parameter(
    section: ParameterSection, folder: Path, experiments: Sequence[Experiment]
) -> tuple[Parameter, Path | None]:
    """The parameter, and the file that its start values come from; InputError for what no model allows.

    A prior_mean without a std is not in it: it belongs to a prior of several parameters.
    """
    value, file = (math.nan, None) if section.value is None else _value(section.value, folder)
    default, as_written = _known(section, experiments)
    conversion = _conversion(section, default, as_written)
    default = default or ParameterDefault()
    _require_allowed(section, value, default, conversion)
    has_std = section.prior_std is not None or section.prior_log_std is not None
    parameter = Parameter(
        name=section.name,
        value=value,
        lower=section.lower if section.lower is not None else _converted_bound(default.lower, conversion, section),
        upper=section.upper if section.upper is not None else _converted_bound(default.upper, conversion, section),
        transform=section.transform or ("none" if section.expr is not None else default.transform),
        fixed=section.fixed,
        expr=section.expr,
        prior_mean=section.prior_mean if has_std else None,
        prior_std=section.prior_std,
        prior_log_std=section.prior_log_std,
        units=section.units or "",
        experiments=tuple(section.experiment or ()),
        conversion=conversion,
    )
    return parameter, file


def _value(section: ValueSection, folder: Path) -> tuple[float | np.ndarray, Path | None]:
    if section.number is not None:
        return section.number, None
    if section.numbers is not None:
        return np.array(section.numbers, dtype=float), None
    file = folder / str(section.file)
    return (read_npy(file) if section.column is None else read_csv(file).numbers(section.column)), file


def _known(section: ParameterSection, experiments: Sequence[Experiment]) -> tuple[ParameterDefault | None, bool]:
    """What the models to which a parameter belongs know of it, and whether they take it as written."""
    names = [e.name for e in experiments]
    for name in section.experiment or ():
        if name not in names:
            raise InputError(f"parameter '{section.name}': there is no experiment '{name}'{hint(name, names)}")
    belonging = [e for e in experiments if not section.experiment or e.name in section.experiment]
    found: ParameterDefault | None = None
    for experiment in belonging:
        default = experiment.model.parameter_defaults().get(section.name)
        if default is None and section.name in experiment.observations.offset:
            default = ParameterDefault(units=_offset_units(section, experiment))
        if (
            default is not None
            and found is not None
            and None not in (default.units, found.units)
            and parse_unit(default.units or "").to(parse_unit(found.units or "")).scale != 1
        ):
            raise InputError(
                f"parameter '{section.name}': one model works in {found.units}, another in {default.units}; "
                "give each its own parameter with experiment: ..."
            )
        found = found or default
    as_written = {e.model.as_written for e in belonging}
    if found is None and len(as_written) > 1:
        raise InputError(
            f"parameter '{section.name}' belongs to a function that takes it as written and to a model that does not; "
            "decorate the function with @works_in(...)"
        )
    return found, as_written == {True}


def _offset_units(section: ParameterSection, experiment: Experiment) -> str:
    """Those of the predictions that an offset is added to: the model's, or SI where it leaves them to the study."""
    if section.units is not None and parse_unit(section.units).offset:
        raise InputError(
            f"parameter '{section.name}' is added to predictions; a difference of temperatures has the units K"
        )
    table, own = experiment.observations, experiment.model.value_units
    if own is not None or experiment.model.as_written:
        return own or ""
    groups = dict.fromkeys(group for group, name in zip(table.group, table.offset) if name == section.name)
    units = {parse_unit(table.units_of(group).name).dimension: table.units_of(group).name for group in groups}
    if len(units) > 1:
        raise InputError(f"parameter '{section.name}' is added to values in {' and in '.join(units.values())}")
    unit = parse_unit(next(iter(units.values())))
    return describe(unit) if any(unit.dimension) else ""


def _conversion(section: ParameterSection, default: ParameterDefault | None, as_written: bool) -> Conversion:
    meant = None if default is None or default.units is None else parse_unit(default.units)
    given = None if section.units is None else parse_unit(section.units, meant)
    if default is None or meant is None or as_written:
        return Conversion() if given is None or as_written else Conversion(given.scale, given.offset)
    if given is None:
        if any(meant.dimension):
            raise InputError(
                f"parameter '{section.name}': units are missing; the model works in {default.units}, say what yours are"
            )
        return Conversion()
    try:
        return given.to(meant)
    except InputError as error:
        raise InputError(f"parameter '{section.name}': {error}") from None


def _require_allowed(
    section: ParameterSection, value: float | np.ndarray, default: ParameterDefault, conversion: Conversion
) -> None:
    """Every number within the bounds that the model declares; a study may narrow them, not widen them."""
    limits = [
        -math.inf if default.lower is None else default.lower,
        math.inf if default.upper is None else default.upper,
    ]
    low, high = (float(conversion.inverse(limit)) for limit in limits)
    slack = 1e-12 * max(abs(x) for x in (low, high, 0.0) if math.isfinite(x))
    start = None if section.value is None else value
    given = {"value": start, "lower": section.lower, "upper": section.upper, "prior_mean": section.prior_mean}
    for key, numbers in given.items():
        for number in [] if numbers is None else np.atleast_1d(np.asarray(numbers)).ravel():
            if not low - slack <= number <= high + slack:
                raise InputError(
                    f"parameter '{section.name}': {key} {number:g} is not between {low:g} and {high:g} "
                    f"{section.units or ''}".rstrip()
                    + ", which the model allows"
                )


def _converted_bound(bound: float | None, conversion: Conversion, section: ParameterSection) -> float | None:
    """A model's own bound in the user's units, unless the parameter is fixed and so has none."""
    if bound is None or not math.isfinite(bound) or section.fixed:
        return None
    return float(conversion.inverse(bound))
