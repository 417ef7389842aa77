"""Laboratory tables as element tests: signs and units are said by whoever loads them, nothing is guessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bilevel.calibrate.study.csv_file import CsvFile, TableLayout, read_csv
from bilevel.calibrate.study.units import parse_unit
from bilevel.report import InputError
from physics.constitutive.mandel import axisymmetric
from physics.soil.control import Control, Quantity
from physics.soil.element_test import ElementTest, LoadStage


class Sign(Enum):
    """Which sign a table gives to compression; p, q and void ratios have no choice."""

    COMPRESSION_POSITIVE = "compression_positive"
    TENSION_POSITIVE = "tension_positive"

    def factor(self, quantity: Quantity) -> float:
        """From the table's sign to tension positive."""
        fixed = quantity in (Quantity.PRESSURE, Quantity.DEVIATOR)
        return -1.0 if self is Sign.COMPRESSION_POSITIVE and not fixed else 1.0


@dataclass(frozen=True)
class Units:
    """The units of a table's stresses and strains, such as "kPa" and "%"."""

    stress: str
    strain: str

    def factor(self, quantity: Quantity) -> float:
        """From the table's units to Pa and strain."""
        given, wanted = (self.stress, "Pa") if quantity.is_stress else (self.strain, "-")
        return parse_unit(given).to(parse_unit(wanted)).scale


class Procedure(Enum):
    """What a standard test controls: the quantity that the table drives, and the one that keeps its starting value."""

    ISOTROPIC = ("isotropic", Quantity.PRESSURE, Quantity.DEVIATOR)
    OEDOMETER = ("oedometer", Quantity.STRESS_AXIAL, Quantity.STRAIN_RADIAL)
    OEDOMETER_STRAIN = ("oedometer_strain", Quantity.STRAIN_AXIAL, Quantity.STRAIN_RADIAL)
    DRAINED = ("drained_triaxial", Quantity.STRAIN_AXIAL, Quantity.STRESS_RADIAL)
    DRAINED_STRESS = ("drained_triaxial_stress", Quantity.STRESS_AXIAL, Quantity.STRESS_RADIAL)
    UNDRAINED = ("undrained_triaxial", Quantity.STRAIN_AXIAL, Quantity.STRAIN_VOLUMETRIC)
    CONSTANT_PRESSURE = ("constant_p_triaxial", Quantity.STRAIN_AXIAL, Quantity.PRESSURE)
    UNIAXIAL = ("uniaxial", Quantity.STRAIN_AXIAL, Quantity.STRESS_RADIAL)

    @property
    def driven(self) -> Quantity:
        return self.value[1]

    @property
    def held(self) -> Quantity:
        return self.value[2]

    @staticmethod
    def named(name: str) -> Procedure:
        """The kind by its name in a study; InputError with the known names."""
        for kind in Procedure:
            if kind.value[0] == name:
                return kind
        raise InputError(f"there is no test kind '{name}'; known: {', '.join(kind.value[0] for kind in Procedure)}")


@dataclass(frozen=True)
class LaboratoryTest:
    """A test read from a table: its path, its start, and the table's line of every row (row 0 is the start).

    stress (6,) Pa tension positive, void_ratio: at the start.
    """

    path: ElementTest
    kind: Procedure | None
    stress: Tensor
    void_ratio: float
    lines: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.path.name


@dataclass(frozen=True)
class Layout:
    """Names of a table's columns. The first row of each test is its start.

    test: names the test of each row. driven: what the machine drives. pressure: mean (or axial, for oedometers) stress at
    the start where the driven quantity is a strain. time: strictly increasing within a test, if there is one.
    """

    test: str
    driven: str
    void_ratio: str | None = None
    pressure: str | None = None
    time: str | None = None


def read_tests(
    file: Path,
    kind: Procedure,
    layout: Layout,
    *,
    sign: Sign,
    units: Units,
    lateral_ratio: float = 1.0,
    increments: int = 1,
    written: TableLayout | None = None,
    only: tuple[str, ...] = (),
) -> list[LaboratoryTest]:
    """The standard tests of a table, one for each name in its test column (`only` selects some).

    lateral_ratio: radial over axial stress at the start. increments: steps to each row at least.
    written: how the file is, where it is not of commas and points. Raises InputError naming file and line for a repeated time, a jump back to the start value, a tensile or missing start.
    """
    table = read_csv(file, layout=written)
    names = table.texts(layout.test)
    wanted = only or tuple(dict.fromkeys(names))
    missing = [name for name in wanted if name not in names]
    if missing:
        raise InputError(f"{file}: there is no test '{missing[0]}'; its tests are {', '.join(dict.fromkeys(names))}")
    return [
        _read_one(
            table,
            [i for i, n in enumerate(names) if n == name],
            name,
            kind,
            layout,
            sign,
            units,
            lateral_ratio,
            increments,
        )
        for name in wanted
    ]


def _read_one(
    table: CsvFile,
    rows: list[int],
    name: str,
    kind: Procedure,
    layout: Layout,
    sign: Sign,
    units: Units,
    lateral_ratio: float,
    increments: int,
) -> LaboratoryTest:
    driven = table.numbers(layout.driven)[rows] * sign.factor(kind.driven) * units.factor(kind.driven)
    _check_rows(table, rows, layout, driven)
    axial = _starting_stress(table, rows, kind, layout, sign, units, driven)
    start = axisymmetric(torch.tensor(axial), torch.tensor(axial * lateral_ratio))
    held = float(kind.held.of(start, torch.zeros_like(start)))
    targets = torch.stack([torch.as_tensor(driven[1:]), torch.full((len(rows) - 1,), held, dtype=torch.float64)], 1)
    path = ElementTest(name, (LoadStage(Control((kind.driven, kind.held)), targets, increments),))
    void_ratio = 0.0
    if layout.void_ratio:
        void_ratio = float(table.numbers(layout.void_ratio)[rows[0]])
        if void_ratio <= 0:
            raise InputError(f"{table.where(rows[0])}: the void ratio must be positive, got {void_ratio:g}")
    return LaboratoryTest(path, kind, start, void_ratio, tuple(table.where(i) for i in rows))


def _starting_stress(
    table: CsvFile, rows: list[int], kind: Procedure, layout: Layout, sign: Sign, units: Units, driven: np.ndarray
) -> float:
    """Axial stress at the start, tension positive."""
    if kind is Procedure.UNIAXIAL:
        return 0.0
    if kind.driven is Quantity.PRESSURE:
        return -float(driven[0])
    if kind.driven.is_stress:
        return float(driven[0])
    if layout.pressure is None:
        raise InputError(f"{table.path}: a {kind.value[0]} test needs a column with the pressure at its start")
    return (
        table.numbers(layout.pressure)[rows[0]]
        * sign.factor(Quantity.STRESS_AXIAL)
        * units.factor(Quantity.STRESS_AXIAL)
    )


def _check_rows(table: CsvFile, rows: list[int], layout: Layout, driven: np.ndarray) -> None:
    if len(rows) < 2:
        raise InputError(f"{table.where(rows[0])}: a test needs a start and at least one further row")
    if layout.time is not None:
        time = table.numbers(layout.time)[rows]
        for k in range(1, len(rows)):
            if time[k] <= time[k - 1]:
                what = "is repeated" if time[k] == time[k - 1] else "goes back"
                raise InputError(
                    f"{table.where(rows[k])}, column '{layout.time}': time {time[k]:g} {what}; remove the row or mend its time"
                )
    for k in range(1, len(rows)):
        if driven[k] == driven[k - 1]:
            raise InputError(
                f"{table.where(rows[k])}, column '{layout.driven}': {table.texts(layout.driven)[rows[k]]} repeats the row before, so "
                "nothing moves; remove the row"
            )


def read_path(
    file: Path,
    columns: Mapping[Quantity, str],
    *,
    sign: Sign,
    units: Units,
    time: str | None = None,
    increments: int = 1,
) -> LoadStage:
    """Any path as a table: the controlled quantities, each from its column, as one stage.

    Raises InputError naming file and line for a repeated time or a cell that is no number.
    """
    table = read_csv(file)
    control = Control(tuple(columns))
    targets = np.stack([table.numbers(c) * sign.factor(q) * units.factor(q) for q, c in columns.items()], 1)
    if time is not None:
        layout = Layout(test="", driven=next(iter(columns.values())), time=time)
        _check_rows(table, list(range(len(table.rows))), layout, np.arange(len(table.rows), dtype=float))
    return LoadStage(control, torch.as_tensor(targets), increments)
