"""The readings of a pumping test as functions of its parameters: of wells that are pumped, and of one that is held."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bilevel.calibrate.observations import ObservationTable
from bilevel.calibrate.study.units import parse_unit
from bilevel.report import InputError
from physics.flow.held_well import HeldWell
from physics.flow.pumping import Drawdown, LeakyDrawdown, PumpingTest
from physics.flow.wells.layout import ObservationPoint
from physics.flow.wells.two_aquifers import TwoAquifers
from physics.studies.on_mesh.quantities import Signal
from physics.studies.pumping_layout import ObservationWellSection
from physics.studies.pumping_parameters import ALWAYS, FURTHER

DAY = 86400.0
LENGTH, RATE = (parse_unit(units).dimension for units in ("m", "m3/d"))


@dataclass(frozen=True)
class SummedDrawdown:
    """The drawdowns (count,) of all wells and images together, each on its own radial mesh.

    rows: those of the readings that a well had begun to act on.
    """

    models: Sequence[Drawdown]
    rows: Sequence[Tensor]
    count: int
    thickness: float

    def __call__(self, parameters: Mapping[str, Tensor]) -> Tensor:
        main, more = _split(parameters)
        total = main[0].new_zeros(self.count)
        for model, rows in zip(self.models, self.rows):
            if isinstance(model, LeakyDrawdown):
                found = model.of(TwoAquifers.of(parameters, self.thickness))
            else:
                found = model(*main, **more)
            total = total.index_add(0, rows, found)
        return total


@dataclass(frozen=True)
class HeldReadings:
    """The readings (n,) of a well at a prescribed drawdown, or at a level [m] below `rest`.

    units (n,): what a reading is multiplied by, for discharges are found in m3/d.
    """

    model: HeldWell
    prescribed: Signal
    rest: float | None
    units: Tensor

    @staticmethod
    def of(
        test: PumpingTest,
        prescribed: Signal,
        rest: float | None,
        time: np.ndarray,
        points: Sequence[ObservationPoint],
        discharges: Sequence[bool],
    ) -> HeldReadings:
        """At times [d] and points, or of the discharge there; ConfigError where a table ends before the last reading."""
        if prescribed.varies:
            prescribed.at(time, {})
        distance = [max(math.hypot(*point.position), test.well_radius) for point in points]
        model = HeldWell(test, time, distance, [point.screen for point in points], discharges=discharges)
        return HeldReadings(model, prescribed, rest, torch.where(torch.tensor(discharges), 1.0 / DAY, 1.0).double())

    def __call__(self, parameters: Mapping[str, Tensor]) -> Tensor:
        main, more = _split(parameters)
        level = self.prescribed.at(self.model.times, parameters)
        return self.units * self.model.at(level if self.rest is None else self.rest - level, *main, **more)


def changes_of(prescribed: Signal) -> list[float]:
    """When [d] what is prescribed begins and changes: at the rows of its table."""
    return [0.0] if prescribed.times is None else prescribed.times.tolist()


def _split(parameters: Mapping[str, Tensor]) -> tuple[list[Tensor], dict[str, Tensor]]:
    return [parameters[name] for name in ALWAYS], {name: parameters[name] for name in FURTHER if name in parameters}


def discharge_rows(table: ObservationTable, wells: Mapping[str, ObservationWellSection], held: bool) -> list[bool]:
    """Which readings are discharges, by their units; InputError for other quantities, and for discharges that are prescribed."""
    found = []
    for row, (group, well) in enumerate(zip(table.group, table.labels["well"])):
        where, units = table.source_of(row), table.units_of(group).name
        dimension = parse_unit(units).dimension
        if dimension not in (LENGTH, RATE):
            stated = f"in '{units}'" if units else "without units"
            raise InputError(f"{where}: a drawdown is in m, say, a discharge in m3/d; a value {stated} is neither")
        if dimension == RATE and not held:
            raise InputError(
                f"{where}: the discharge is prescribed; it can be read where drawdown or head is prescribed"
            )
        if dimension == RATE and wells[well].radius > 0.0:
            raise InputError(f"{where}: a discharge is read in the pumped well, but '{well}' stands elsewhere")
        found.append(dimension == RATE)
    return found
