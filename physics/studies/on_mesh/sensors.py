"""What is observed of a field on a mesh: values at points, their differences, resultants over boundaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from bilevel.calibrate.model import ConfigError
from bilevel.calibrate.observations import ObservationTable
from bilevel.calibrate.study.observation_schema import ColumnSection, LayoutSection
from bilevel.calibrate.study.section import Section
from bilevel.calibrate.study.units import parse_unit
from bilevel.calibrate.study.validated import hint
from bilevel.report import InputError
from physics.discretisation import Mesh
from physics.discretisation.point_location import Interpolation, OutsideMesh
from physics.studies.on_mesh.quantities import numbers, quantity
from physics.studies.quantities import require_units

AXES = "xyz"


class SensorSection(Section):
    """A point, the difference of two other sensors, the resultant over a boundary, or another name of a whole field."""

    at: list[str] | None = Field(default=None, min_length=2, max_length=3)
    """coordinates of a point, as [3 m, 40 cm]"""
    quantity: str | None = None
    """what is read there; left out: the field itself. Without a place: what stands at the rows' own x, y (z)"""
    difference: list[str] | None = Field(default=None, min_length=2, max_length=2)
    """two sensors, the first minus the second"""
    through: str | None = None
    """a boundary"""

    @model_validator(mode="after")
    def _one(self) -> SensorSection:
        given = sum(x is not None for x in (self.at, self.difference, self.through))
        if given > 1 or (not given and self.quantity is None):
            raise ValueError(
                "a sensor has one of: at (a point), difference (of two sensors), through (a boundary); or a quantity "
                "alone, which is read at the places of the rows"
            )
        if self.difference is not None and self.quantity is not None:
            raise ValueError("a difference is of what its two sensors read; leave quantity out")
        return self


class PointsSection(LayoutSection):
    """A table of points with names."""

    file: str
    """a CSV beside the study"""
    name: str
    """its column of names"""
    x: ColumnSection
    """its columns of coordinates"""
    y: ColumnSection
    """likewise"""
    z: ColumnSection | None = None
    """likewise, in three dimensions"""

    def places(self, folder: Path, dim: int, key: tuple[str | int, ...]) -> dict[str, np.ndarray]:
        """The positions (dim,) by name, in metres."""
        columns = [column for column in (self.x, self.y, self.z) if column is not None]
        if len(columns) != dim:
            raise ConfigError(key, f"the mesh has {dim} dimensions, the points have {len(columns)}")
        file = self.read(folder / self.file)
        places = np.stack([numbers(file, column, "m", (*key, axis)) for column, axis in zip(columns, AXES)], 1)
        names = file.texts(self.name)
        for row, name in enumerate(names):
            if name in names[:row]:
                raise InputError(f"{file.where(row)}: there are two points called '{name}'")
        return dict(zip(names, places))


@dataclass(frozen=True)
class Reading:
    """One number that a model can give: a quantity at a place, or through a boundary; of neither, at a row's own place."""

    quantity: str
    place: tuple[float, ...] = ()
    boundary: str = ""


@dataclass(frozen=True)
class Readable:
    """What may be read of a field: its units, at points or through boundaries."""

    units: str
    through: bool = False


@dataclass
class Sensors:
    """The readings that all rows of observations need, and which of them each row is made of.

    readings: what the model must give, in order. first, second (rows,): the reading of each row, and the one that is
    taken off it, or -1. scale (rows,): from the model's units to SI. own (rows,): whether a row has a place of its own.
    asked: where each reading is first asked for, for messages.
    """

    readings: list[Reading] = field(default_factory=list)
    first: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    second: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    scale: Tensor = field(default_factory=lambda: torch.zeros(0))
    own: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))
    asked: list[str] = field(default_factory=list)

    def predictions(self, read: Tensor) -> Tensor:
        """Values (rows,) in SI, from what each row's readings are: (rows, 2)."""
        return self.scale * torch.where(self.second >= 0, read[:, 0] - read[:, 1], read[:, 0])

    def located(self, mesh: Mesh, tolerance: float = 1e-6) -> Interpolation:
        """The places of the readings at points, in order; InputError, with its row, for one outside the mesh."""
        try:
            return mesh.locate(self.points(), tolerance)
        except OutsideMesh as error:
            asked = [asked for reading, asked in zip(self.readings, self.asked) if reading.place]
            first, low, high = int(error.lost[0]), mesh.positions.min(0), mesh.positions.max(0)
            raise InputError(
                f"{asked[first]} at {_point(self.points()[first])} m lies outside the mesh ({len(error.lost)} such points), "
                f"which is between {_point(low)} and {_point(high)} m; look at units and origin"
            ) from None

    def points(self, quantity: str | None = None) -> np.ndarray:
        """The places (points, dim) of the readings at points, of one quantity or of all."""
        return np.array([r.place for r in self.readings if r.place and quantity in (None, r.quantity)])


def named_sensors(
    sections: Mapping[str, SensorSection],
    points: Mapping[str, np.ndarray],
    quantities: Mapping[str, Readable],
    dim: int,
) -> dict[str, tuple[Reading, Reading | None]]:
    """Each named sensor's reading, and the reading that is taken off it."""
    fields = [name for name, q in quantities.items() if not q.through]
    at = fields[0]
    through = next((name for name, q in quantities.items() if q.through), "")
    found: dict[str, tuple[Reading, Reading | None]] = {
        name if len(fields) == 1 else f"{name}.{what}": (Reading(what, tuple(place.tolist())), None)
        for name, place in points.items()
        for what in fields
    }
    for name, section in sections.items():
        key = ("sensors", name)
        if section.difference is not None:
            continue
        what = section.quantity or (at if section.through is None else through)
        if section.quantity is None and len(fields) > 1:
            raise ConfigError(key, f"say which quantity it reads: {', '.join(quantities)}")
        if what not in quantities or quantities[what].through != (section.through is not None):
            known = [q for q, about in quantities.items() if about.through == (section.through is not None)]
            raise ConfigError((*key, "quantity"), f"'{what}' cannot be read there; it is one of {', '.join(known)}")
        if section.at is not None:
            if len(section.at) != dim:
                raise ConfigError((*key, "at"), f"the mesh has {dim} dimensions, the point has {len(section.at)}")
            place = tuple(quantity(x, "m", (*key, "at", i)) for i, x in enumerate(section.at))
            found[name] = Reading(what, place), None
        else:
            found[name] = Reading(what, boundary=section.through or ""), None
    for name, section in sections.items():
        if section.difference is not None:
            found[name] = _difference(section.difference, found, ("sensors", name, "difference"))
    return found


def _difference(
    of: Sequence[str], found: Mapping[str, tuple[Reading, Reading | None]], key: tuple[str, ...]
) -> tuple[Reading, Reading]:
    for name in of:
        if name not in found:
            raise ConfigError(key, f"there is no sensor '{name}'{hint(name, found)}")
        if found[name][1] is not None:
            raise ConfigError(key, f"'{name}' is a difference itself")
        if found[name][0] == Reading(found[name][0].quantity):
            raise ConfigError(key, f"'{name}' has no place of its own")
    one, other = (found[name][0] for name in of)
    if one.quantity != other.quantity:
        raise ConfigError(key, f"'{of[0]}' reads {one.quantity}, '{of[1]}' reads {other.quantity}")
    return one, other


def observed(
    table: ObservationTable,
    named: Mapping[str, tuple[Reading, Reading | None]],
    quantities: Mapping[str, Readable],
    dim: int,
) -> Sensors:
    """The readings of a table's rows: `sensor` names a sensor, or a quantity at the row's own place (x, y, z)."""
    places = torch.stack([table.columns.get(a, table.value.new_full((len(table),), torch.nan)) for a in AXES[:dim]], 1)
    number: dict[Reading, int] = {}
    known = {name: (Reading(name), None) for name, what in quantities.items() if not what.through} | dict(named)
    first, second, scale, own = [], [], [], []
    asked: list[str] = []
    for row, name in enumerate(table.labels["sensor"]):
        if name not in known:
            raise InputError(f"{table.source_of(row)}: there is no sensor '{name}'{hint(name, [*named, *quantities])}")
        one, other = known[name]
        own.append(one == Reading(one.quantity))
        if own[-1]:
            one = Reading(one.quantity, _place(places[row], table, row))
        first.append(number.setdefault(one, len(number)))
        second.append(-1 if other is None else number.setdefault(other, len(number)))
        asked += [f"{table.source_of(row)}: '{name}'"] * (len(number) - len(asked))
        scale.append(_scale(table, row, quantities[one.quantity].units, other is not None))
    columns = torch.tensor(first), torch.tensor(second), torch.tensor(scale, dtype=torch.float64), torch.tensor(own)
    return Sensors(list(number), *columns, asked)


def _point(place: np.ndarray) -> str:
    return f"({', '.join(f'{x:.6g}' for x in place)})"


def _place(place: Tensor, table: ObservationTable, row: int) -> tuple[float, ...]:
    if bool(torch.isnan(place).any()):
        raise InputError(
            f"{table.source_of(row)}: '{table.labels['sensor'][row]}' is read at a place, so map the columns "
            f"{', '.join(AXES[: len(place)])}, or name a sensor"
        )
    return tuple(place.tolist())


def _scale(table: ObservationTable, row: int, units: str, difference: bool) -> float:
    """From the model's units to SI, in which the table is; InputError where the table has another dimension."""
    require_units(table, row, units)
    given = table.units_of(table.group[row])
    if difference and given.conversion.offset != 0.0:
        raise InputError(f"{table.source_of(row)}: a difference of temperatures is in K, not {given.name}")
    return parse_unit(units).scale
