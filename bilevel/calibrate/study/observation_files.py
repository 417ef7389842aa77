"""The observations of a study: rows of CSV files, converted to the model's units, weighted by group."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from bilevel.calibrate.misfit import GroupNoise
from bilevel.calibrate.model import Model
from bilevel.calibrate.observations import GroupUnits, ObservationTable, Sigma
from bilevel.calibrate.settings import WeightRule
from bilevel.calibrate.study.csv_file import CsvFile
from bilevel.calibrate.study.dates import seconds_since
from bilevel.calibrate.study.error_covariance import error_covariances
from bilevel.calibrate.study.observation_schema import (
    CandidateSection,
    ColumnSection,
    ForecastSection,
    ObservationSection,
    TableFileSection,
    Weighting,
)
from bilevel.calibrate.study.readings import with_readings
from bilevel.calibrate.study.units import Conversion, Unit, parse_unit
from bilevel.calibrate.study.validated import hint
from bilevel.report import InputError


def read_observations(
    section: ObservationSection, folder: Path, model: type[Model], notes: list[str]
) -> ObservationTable:
    """The table of one `observations` entry, in the units of a class of models; what seems odd goes to `notes`."""
    file = section.read(folder / section.file)
    if section.wide is not None:
        file = file.long(section.wide.columns, section.wide.name, section.value.column)
    file = _kept(section, file)
    file, limits = with_readings(file, section, notes)
    if repeated := file.repeated_rows:
        more = f" and {len(repeated) - 1} more" if len(repeated) > 1 else ""
        notes.append(f"{file.path}: line {repeated[0][1]} repeats line {repeated[0][0]}{more}; each counts")
    labels, known = _labels(section, model), {**model.columns, **model.optional_columns}
    numeric = {name: c for name, c in section.columns.items() if name not in labels}
    conversion = _conversion(section.value, model, model.value_units, "value")
    converted = {name: _conversion(c, model, known.get(name), f"columns.{name}") for name, c in numeric.items()}
    groups = file.texts(section.group.column) if section.group.column else [str(section.group.name)] * len(file.rows)
    _require_named(file, groups, section.group.column)
    raw = file.numbers(section.value.column) * section.value.sign
    noise = {name: _noise(section.groups.get(name, section)) for name in dict.fromkeys(groups)}
    weights = _weights(section, file, groups, raw)
    weights = np.where([noise[name].logarithmic for name in groups], weights, weights / conversion.scale)
    columns = {name: converted[name](_numbers(file, c)) for name, c in numeric.items()}
    _require_fit(file, groups, noise, columns, raw, section, conversion)
    for name, numbers in {"value": conversion(raw), "weight": weights, **columns}.items():
        _require_finite(file, name, numbers)
    return ObservationTable(
        value=torch.as_tensor(conversion(raw)),
        weight=torch.as_tensor(weights),
        group=tuple(groups),
        columns={name: torch.as_tensor(numbers) for name, numbers in columns.items()},
        labels={name: tuple(file.texts(c.column)) for name, c in labels.items()},
        source=tuple(file.where(i) for i in range(len(file.rows))),
        group_units={group: GroupUnits(section.value.units or "", conversion) for group in dict.fromkeys(groups)},
        column_units={
            name: GroupUnits("s" if numeric[name].origin else numeric[name].units or "", c)
            for name, c in converted.items()
        },
        offset=(section.offset or "",) * len(file.rows),
        sigma=_sigma(section),
        noise=noise,
        censored=limits,
        covariance=error_covariances(section, folder, groups, noise, conversion.scale),
    )


def read_places(section: ForecastSection, folder: Path, model: type[Model]) -> ObservationTable:
    """The table of rows without readings; those of candidates have the weight that a reading would have."""
    file = _kept(section, section.read(folder / section.file))
    labels, known = _labels(section, model), {**model.columns, **model.optional_columns}
    numeric = {name: c for name, c in section.columns.items() if name not in labels}
    values = _conversion(ColumnSection(column=section.name, units=section.units), model, model.value_units, "values")
    converted = {name: _conversion(c, model, known.get(name), f"columns.{name}") for name, c in numeric.items()}
    columns = {name: converted[name](_numbers(file, c)) for name, c in numeric.items()}
    for name, numbers in columns.items():
        _require_finite(file, name, numbers)
    rows = len(file.rows)
    weight = 1 / (section.std * values.scale) if isinstance(section, CandidateSection) else 0.0
    return ObservationTable(
        value=torch.zeros(rows, dtype=torch.float64),
        weight=torch.full((rows,), weight, dtype=torch.float64),
        group=(section.name,) * rows,
        columns={name: torch.as_tensor(numbers) for name, numbers in columns.items()},
        labels={name: tuple(file.texts(c.column)) for name, c in labels.items()},
        source=tuple(file.where(i) for i in range(rows)),
        group_units={section.name: GroupUnits(section.units or "", values)},
        column_units={
            name: GroupUnits("s" if numeric[name].origin else numeric[name].units or "", c)
            for name, c in converted.items()
        },
    )


def _kept(section: TableFileSection, file: CsvFile) -> CsvFile:
    """The rows that `where` keeps; InputError where there is none."""
    for column, wanted in section.where.items():
        file = file.keep(column, wanted)
    if not file.rows:
        chosen = f" with {section.where}" if section.where else ""
        raise InputError(f"{file.path}: there is no row{chosen}; an observation group may not be empty")
    return file


def _numbers(file: CsvFile, column: ColumnSection) -> np.ndarray:
    if column.origin is not None:
        return seconds_since(file, column.column, column.origin, column.format)
    return file.numbers(column.column) * column.sign


def _noise(weighting: Weighting) -> GroupNoise:
    correlated = "" if weighting.correlated == "rows" else weighting.correlated
    return GroupNoise(weighting.loss, weighting.logarithmic, correlated)


def _require_fit(
    file: CsvFile,
    groups: list[str],
    noise: Mapping[str, GroupNoise],
    columns: Mapping[str, np.ndarray],
    values: np.ndarray,
    section: ObservationSection,
    conversion: Conversion,
) -> None:
    """InputError where readings have no logarithm or relative error, or rows no place along which they are correlated."""
    for i, name in enumerate(groups):
        if noise[name].logarithmic and not values[i] > 0:
            raise InputError(f"{file.where(i)}: {values[i]:g} has no logarithm, as logarithmic asks for")
    given = [section, *section.groups.values()]
    relative = any(w.logarithmic or (w.std is not None and w.std.relative is not None) for w in given)
    if relative and conversion.offset:
        raise InputError(f"'{section.value.units}' has an arbitrary zero, so its readings have no relative error")
    for name, own in noise.items():
        if not own.correlated:
            continue
        if own.correlated not in columns:
            raise InputError(
                f"correlated: there is no column '{own.correlated}' of numbers{hint(own.correlated, columns)}"
            )
        rows = [i for i, group in enumerate(groups) if group == name]
        places = columns[own.correlated][rows]
        order = np.argsort(places, kind="stable")
        if len(same := np.nonzero(np.diff(places[order]) == 0)[0]):
            first, second = (file.lines[rows[order[same[0] + k]]] for k in (0, 1))
            raise InputError(
                f"{file.path}: lines {first} and {second} of group '{name}' have the same '{own.correlated}', so errors "
                "correlated along it would be equal; make groups of them"
            )


def _labels(section: TableFileSection, model: type[Model]) -> dict[str, ColumnSection]:
    """The columns that the model wants as texts; InputError for columns that it misses."""
    for name, units in model.columns.items():
        if name not in section.columns:
            raise InputError(f"the model needs a column '{name}' ({units}); map it under columns")
    known = {**model.columns, **model.optional_columns}
    labels = {name: c for name, c in section.columns.items() if known.get(name) == "text"}
    for name, column in labels.items():
        if column.units is not None or column.sign != 1 or column.origin is not None:
            raise InputError(f"columns.{name}: the model reads it as a text, which has neither units, sign nor origin")
    return labels


def _conversion(section: ColumnSection, model: type[Model], model_units: str | None, what: str) -> Conversion:
    """From the file's units to the model's, or to SI where the model leaves them open."""
    try:
        target = None if model_units is None else parse_unit(model_units)
        if section.origin is not None:
            return parse_unit("s").to(target or parse_unit("s"))
        if section.units is None:
            if target is not None and (target.scale != 1.0 or any(target.dimension)):
                dates = "; dates need an origin" if target.dimension == parse_unit("s").dimension else ""
                raise InputError(f"units are missing; the model works in {model_units}, say what the file has{dates}")
            return Conversion()
        given = parse_unit(section.units, target)
        return Conversion() if model.as_written else given.to(target or _si(given))
    except InputError as error:
        raise InputError(f"{what}: {error}") from None


def _require_finite(file: CsvFile, name: str, numbers: np.ndarray) -> None:
    """Conversions and 1/std may overflow."""
    bad = np.nonzero(~np.isfinite(numbers))[0]
    if len(bad):
        raise InputError(f"{file.where(int(bad[0]))}: '{name}' is beyond the range of numbers in the model's units")


def _si(unit: Unit) -> Unit:
    return Unit("SI", 1.0, unit.dimension)


def _weights(section: ObservationSection, file: CsvFile, groups: list[str], values: np.ndarray) -> np.ndarray:
    """Weights in the units of the file's values."""
    for name in section.groups:
        if name not in groups:
            known = list(dict.fromkeys(groups))
            raise InputError(f"group '{name}' has no row in {file.path}; its groups are: {', '.join(known)}")
    weights = np.ones(len(groups))
    names = np.array(groups)
    for name in dict.fromkeys(groups):
        rows = names == name
        own = section.groups.get(name)
        weights[rows] = _group_weights(own if own is not None else section, file, values[rows], rows, name)
    return weights


def _sigma(section: ObservationSection) -> Sigma:
    given = [section, *section.groups.values()]
    if any(weighting.std is not None for weighting in given):
        return Sigma.STD
    return Sigma.WEIGHT if any(weighting.weight is not None for weighting in given) else Sigma.NONE


def _group_weights(weighting: Weighting, file: CsvFile, values: np.ndarray, rows: np.ndarray, group: str) -> np.ndarray:
    given = weighting.std or weighting.weight
    if given is None:
        return np.ones(len(values))
    if given.rule is not None:
        size = np.abs(values)
        typical = size.mean() if given.rule is WeightRule.INVERSE_MEAN_ABSOLUTE else size.max()
        if typical == 0:
            raise InputError(f"all values of group '{group}' are 0, so {given.rule.value} gives no weight")
        return np.full(len(values), 1 / typical)
    if given.column is not None:
        numbers = file.numbers(given.column)[rows]
    elif given.number is not None:
        numbers = np.full(len(values), given.number)
    else:
        numbers = np.hypot((given.relative or 0.0) * values, given.floor or 0.0)
    least = 0.0
    bad = np.nonzero(numbers <= least if weighting.std else numbers < least)[0]
    if len(bad):
        row = int(np.nonzero(rows)[0][bad[0]])
        wanted = "a positive standard deviation" if weighting.std else "a weight that is not negative"
        raise InputError(f"{file.where(row)}: expected {wanted}, got {numbers[bad[0]]:g}")
    return 1 / numbers if weighting.std else numbers


def _require_named(file: CsvFile, groups: list[str], column: str | None) -> None:
    for i, name in enumerate(groups):
        if not name:
            raise InputError(f"{file.where(i)}, column '{column}': the group's name is empty")
