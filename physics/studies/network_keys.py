"""Keys of `network` that say how links and tanks stand, and networks from two CSV files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator

from bilevel.calibrate.study.csv_file import CsvFile
from bilevel.calibrate.study.observation_schema import LayoutSection
from bilevel.calibrate.study.section import Section, is_number
from bilevel.calibrate.study.units import parse_unit
from physics.flow.water.friction import ChezyManning, DarcyWeisbach, HazenWilliams
from physics.flow.water.network import WaterNetwork
from physics.flow.water.tables import Row, read_tables
from physics.studies.quantities import Length, Seconds


class StatusPeriod(Section):
    """From `start` on the link stands like this."""

    start: Seconds = -math.inf
    """of the period"""
    status: Literal["open", "closed", "active"]
    """active: a valve holds its setting"""


class TankLevel(Section):
    """The level of a tank at a time; between two times it is interpolated."""

    time: Seconds = 0.0
    """of the reading"""
    level: Length
    """above the tank's bottom"""


Name = Annotated[str, BeforeValidator(lambda given: str(given) if is_number(given) else given)]
"""Of a pipe, say; most are numbers."""


def listed(key: str) -> BeforeValidator:
    """A single value is a list of one, from the beginning on."""
    return BeforeValidator(lambda given: given if isinstance(given, list) else [{key: given}])


class TablesSection(LayoutSection):
    """A network of pipes alone, from two CSV files."""

    nodes: str
    """columns name, elevation, demand, head; a node with a head is a reservoir, the others have none"""
    pipes: str
    """columns name, start, end, length, diameter, roughness and, if need be, minor (loss coefficient)"""
    formula: Literal["H-W", "D-W", "C-M"]
    """Hazen-Williams, Darcy-Weisbach or Chezy-Manning"""
    length_units: str = "m"
    """of lengths, elevations and heads"""
    diameter_units: str = "mm"
    """of diameters"""
    roughness_units: str = ""
    """of the roughness, for Darcy-Weisbach"""
    demand_units: str = "m3/s"
    """of demands"""


def network_of_tables(tables: TablesSection, folder: Path) -> WaterNetwork:
    """The network of two CSV files; InputError for columns that are missing and units of another dimension."""
    formula = {"H-W": HazenWilliams(), "D-W": DarcyWeisbach(), "C-M": ChezyManning()}[tables.formula]
    metre, diameter = _scale(tables.length_units, "m"), _scale(tables.diameter_units, "m")
    rough, demand = _scale(tables.roughness_units, formula.units), _scale(tables.demand_units, "m3/s")
    nodes = _rows(
        tables.read(folder / tables.nodes),
        ("name",),
        {"elevation": metre, "demand": demand, "head": metre},
        ("demand", "head"),
    )
    sizes = {"length": metre, "diameter": diameter, "roughness": rough, "minor": 1.0}
    pipes = _rows(tables.read(folder / tables.pipes), ("name", "start", "end"), sizes, ("minor",))
    return read_tables(nodes, pipes, formula)


def _scale(units: str, model: str) -> float:
    return parse_unit(units).to(parse_unit(model)).scale


def _rows(table: CsvFile, texts: Sequence[str], scales: Mapping[str, float], optional: Sequence[str]) -> list[Row]:
    """The rows of a table in SI units; cells of optional columns may be empty, or the whole column may be missing."""
    columns: dict[str, Sequence[str | float | None]] = {name: table.texts(name) for name in texts}
    for name, scale in scales.items():
        if name in optional and name not in table.header:
            continue
        empty = [name in optional and not cell for cell in table.texts(name)]
        filled = table.chosen([row for row, e in enumerate(empty) if not e])
        numbers = iter((scale * filled.numbers(name)).tolist())
        columns[name] = [None if e else next(numbers) for e in empty]
    return [dict(zip(columns, cells)) for cells in zip(*columns.values())]
