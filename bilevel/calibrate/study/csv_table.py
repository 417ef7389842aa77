"""CSV files of observations: read with their line numbers, converted to the model's units, weighted by group."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bilevel.calibrate.observations import GroupUnits, ObservationTable
from bilevel.calibrate.settings import WeightRule
from bilevel.calibrate.study.schema import ColumnSection, ObservationSection, Weighting
from bilevel.calibrate.study.units import Conversion, Unit, parse_unit
from bilevel.calibrate.study.yaml_lines import unknown_key
from bilevel.report import InputError


@dataclass(frozen=True)
class CsvFile:
    """The cells of a CSV file as texts; lines: the line of each row in the file; header_line: that of the header."""

    path: Path
    header: list[str]
    rows: list[list[str]]
    lines: list[int]
    header_line: int

    def texts(self, column: str) -> list[str]:
        """A column as texts; InputError with the nearest column if it is missing."""
        if column not in self.header:
            missing = unknown_key(column, self.header).replace("unknown key", "there is no column")
            raise InputError(f"{self.path}, line {self.header_line}: {missing}{self._delimiter_hint()}")
        index = self.header.index(column)
        return [row[index] for row in self.rows]

    def numbers(self, column: str) -> np.ndarray:
        """A column as finite numbers; InputError with the line of the first cell that is none."""
        values = np.empty(len(self.rows))
        for i, text in enumerate(self.texts(column)):
            try:
                values[i] = float(text.replace("_", " "))  # Python would read 1_0 as 10
            except ValueError:
                got = f"'{text}'" if text else "an empty cell"
                raise InputError(f"{self.where(i)}, column '{column}': expected a number, got {got}") from None
            if not math.isfinite(values[i]):
                raise InputError(
                    f"{self.where(i)}, column '{column}': expected a finite number, got {text}; "
                    "remove the row or mend it"
                )
        return values

    def _delimiter_hint(self) -> str:
        found = [d for d in (";", "\t") if len(self.header) == 1 and d in self.header[0]]
        return (
            f"; its cells seem to be separated by {found[0]!r}, say so with delimiter: {json.dumps(found[0])}"
            if found
            else ""
        )

    def where(self, row: int) -> str:
        return f"{self.path}, line {self.lines[row]}"

    def keep(self, column: str, wanted: list[str]) -> CsvFile:
        """The rows whose text in a column is one of those wanted."""
        kept = [i for i, text in enumerate(self.texts(column)) if text in wanted]
        return CsvFile(
            self.path, self.header, [self.rows[i] for i in kept], [self.lines[i] for i in kept], self.header_line
        )


def read_csv(path: Path, delimiter: str = ",") -> CsvFile:
    """Read a CSV file with one header line; lines that are empty or start with # are comments."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text: {error}") from None
    numbered = [
        (i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip() and not line.lstrip().startswith("#")
    ]
    if not numbered:
        raise InputError(f"{path}: is empty; expected a header line and rows")
    cells = [[cell.strip() for cell in row] for row in csv.reader((line for _, line in numbered), delimiter=delimiter)]
    header, rows, lines = cells[0], cells[1:], [i for i, _ in numbered[1:]]
    for row, line in zip(rows, lines):
        if len(row) != len(header):
            raise InputError(f"{path}, line {line}: expected {len(header)} columns as in the header, got {len(row)}")
    if len(set(header)) < len(header):
        raise InputError(f"{path}, line {numbered[0][0]}: two columns have the same name")
    return CsvFile(path, header, rows, lines, numbered[0][0])


def read_observations(
    section: ObservationSection, folder: Path, columns: Mapping[str, str], value_units: str | None
) -> ObservationTable:
    """The table of one `observations` entry, for a model that needs `columns` and predicts in `value_units`."""
    file = read_csv(folder / section.file, section.delimiter)
    for column, wanted in section.where.items():
        texts = [str(w) for w in (wanted if isinstance(wanted, list) else [wanted])]
        file = file.keep(column, texts)
    if not file.rows:
        chosen = f" with {section.where}" if section.where else ""
        raise InputError(f"{file.path}: there is no row{chosen}; an observation group may not be empty")
    for name in columns:
        if name not in section.columns:
            raise InputError(f"the model needs a column '{name}' ({columns[name]}); map it under columns")
    conversion, units = _conversion(section.value, value_units, "value")
    groups = file.texts(section.group.column) if section.group.column else [str(section.group.name)] * len(file.rows)
    _require_named(file, groups, section.group.column)
    raw = file.numbers(section.value.column) * section.value.sign
    weights = _weights(section, file, groups, raw) / conversion.scale
    labels = {name: c for name, c in section.columns.items() if columns.get(name) == "text"}
    numeric = {name: c for name, c in section.columns.items() if name not in labels}
    converted = {name: _conversion(c, columns.get(name), f"columns.{name}")[0] for name, c in numeric.items()}
    return ObservationTable(
        value=torch.as_tensor(conversion(raw)),
        weight=torch.as_tensor(weights),
        group=tuple(groups),
        columns={
            name: torch.as_tensor(converted[name](file.numbers(c.column) * c.sign)) for name, c in numeric.items()
        },
        labels={name: tuple(file.texts(c.column)) for name, c in labels.items()},
        source=tuple(file.where(i) for i in range(len(file.rows))),
        group_units={group: GroupUnits(units, conversion) for group in dict.fromkeys(groups)},
        column_units={name: GroupUnits(numeric[name].units or "", c) for name, c in converted.items()},
        offset=(section.offset or "",) * len(file.rows),
    )


def _conversion(section: ColumnSection, model_units: str | None, what: str) -> tuple[Conversion, str]:
    """From the file's units to the model's, or to SI where the model leaves them open."""
    try:
        target = None if model_units is None else parse_unit(model_units)
        if section.units is None:
            if target is not None and (target.scale != 1.0 or any(target.dimension)):
                raise InputError(f"units are missing; the model works in {model_units}, say what the file has")
            return Conversion(), ""
        given = parse_unit(section.units)
        return given.to(target or _si(given)), section.units
    except InputError as error:
        raise InputError(f"{what}: {error}") from None


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
    numbers = np.full(len(values), given.number) if given.column is None else file.numbers(given.column)[rows]
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
