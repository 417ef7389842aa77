"""The study model `pumping_test`: properties of an aquifer from drawdowns around pumped wells, or from a slug."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from bilevel.calibrate.model import Model, ModelConfig, ModelFigure, ParameterDefault
from bilevel.calibrate.observations import ObservationTable
from bilevel.calibrate.report.picture import Drawing
from bilevel.report import InputError
from physics.flow.pumping import OTHER, PUMPED, Drawdown, LeakyDrawdown, PumpingTest
from physics.flow.wells.closed_form import ClosedForm
from physics.flow.wells.layout import ObservationPoint, PumpedWell, with_images
from physics.studies.on_mesh.quantities import Given
from physics.studies.pumping_layout import (
    BoundarySection,
    ObservationWell,
    Schedule,
    ScreenSection,
    WellSection,
    held_at,
    schedule,
)
from physics.studies.pumping_parameters import parameters_of
from physics.studies.pumping_pictures import wells_in_time
from physics.studies.pumping_readings import DAY, HeldReadings, SummedDrawdown, changes_of, discharge_rows
from physics.studies.quantities import Length


class PumpingTestModel(Model):
    """Drawdown around pumped wells, or the head after a slug, in a uniform aquifer.

    Confined, leaky, or unconfined with delayed yield; wells that penetrate the whole aquifer or a part of it. Numerically on a
    radial mesh, with elements over the height where the drawdown varies over it; or by `solution: closed_form`, in milliseconds.
    """

    class Config(ModelConfig):
        """Every quantity carries its units: "7 m", "788 m3/d", "0.34 d"."""

        aquifer: Literal["confined", "leaky", "unconfined", "two_aquifers"]
        """a leaky one has the parameter aquitard_resistance, an unconfined one specific_yield; two have an aquitard between them"""
        solution: Literal["numerical", "closed_form"] = "numerical"
        """a radial mesh and time steps, or a Laplace transform, which takes milliseconds"""
        thickness: Length = Field(gt=0)
        """of the aquifer"""
        discharge: Schedule | None = None
        """of the one pumped well, at 0, 0: from the beginning on, or a list of periods"""
        wells: list[WellSection] = Field(default=[])
        """pumped wells by coordinates, in place of discharge, well_radius and screen"""
        drawdown: Given | None = None
        """in place of discharge, what the one well is held at: a quantity from time 0 on, a parameter, or a table over time"""
        head: Given | None = None
        """the same as a head; needs rest_head"""
        rest_head: Length | None = None
        """of the water before the test, from where heads are measured"""
        displacement: Length | None = Field(default=None, gt=0)
        """in place of discharge, for a slug test: what the head in the well was raised by at the start; values are rises"""
        observation_wells: dict[str, ObservationWell]
        """distance from the pumped well or coordinates, by the name in the column `well`"""
        well_radius: Length = Field(default=0.1, gt=0)
        """of the pumped well"""
        screen: ScreenSection | None = None
        """where the pumped well takes water; left out: over the whole aquifer"""
        wellbore_storage: bool = False
        """the water in the well rises and falls: has the parameters casing_radius and, in closed form, skin"""
        boundaries: list[BoundarySection] = Field(default=[])
        """one straight boundary, or two that are perpendicular"""
        outer_radius: Length = Field(default=1e5, gt=0)
        """of the radial mesh, where the drawdown is zero; an error where drawdown reaches it"""

        @model_validator(mode="after")
        def _one_source(self) -> PumpingTestModel.Config:
            sources = (self.discharge, self.wells or None, self.drawdown, self.head, self.displacement)
            if sum(source is not None for source in sources) != 1:
                raise ValueError("give one of discharge, wells, drawdown, head and displacement")
            if (self.head is None) != (self.rest_head is None):
                raise ValueError("a head in the well and the rest_head before the test go together")
            return self

    columns = {"time": "d", "well": "text"}  # noqa: RUF012
    value_units = None

    def __init__(self, config: Config, observations: ObservationTable, folder: Path) -> None:
        super().__init__(config, observations, folder)
        self._require_known()
        self.held = held_at(config, folder)
        self.wells = self._pumped()
        self._require_two_aquifers_alone()
        self.of_discharge = discharge_rows(observations, config.observation_wells, self.held is not None)
        wells = observations.labels["well"]
        self.readings = self._prepared(observations.columns["time"].numpy(), wells, self.of_discharge)

    @property
    def _stores(self) -> bool:
        return self.config.wellbore_storage or self.config.displacement is not None

    @property
    def _partial(self) -> bool:
        return any(well.screen for well in self.wells)

    def _pumped(self) -> list[PumpedWell]:
        config = self.config
        if config.wells:
            wells = [section.well() for section in config.wells]
        else:
            periods = schedule(config.discharge) if config.discharge is not None else ((0.0, 1.0),)
            screen = config.screen.ends if config.screen else None
            wells = [PumpedWell((0.0, 0.0), periods, config.well_radius, screen)]
        if self._stores and (len(wells) > 1 or config.boundaries):
            raise InputError(
                "a well that stores water must be alone and far from boundaries: it would answer to the others"
            )
        return wells

    def _require_known(self) -> None:
        wells = self.config.observation_wells
        for row, well in enumerate(self.observations.labels["well"]):
            if well not in wells:
                where = self.observations.source_of(row)
                raise InputError(f"{where}: well '{well}' is not among observation_wells ({', '.join(wells)})")

    def _require_two_aquifers_alone(self) -> None:
        config, seen = self.config, self.config.observation_wells.values()
        if config.aquifer != "two_aquifers" and any(well.aquifer == "other" for well in seen):
            raise InputError("an observation well in the other aquifer needs `aquifer: two_aquifers`")
        screens = [*self.wells, *seen]
        if config.aquifer == "two_aquifers" and (self._stores or any(well.screen for well in screens)):
            raise InputError("wells in two aquifers penetrate the whole of theirs, and store no water")

    def _prepared(
        self, time: np.ndarray, wells: Sequence[str], discharges: Sequence[bool]
    ) -> ClosedForm | SummedDrawdown | HeldReadings:
        """The readings at times [d] of wells by name, as a function of the parameters."""
        config = self.config
        points = [config.observation_wells[well].point() for well in wells]
        if self.held is not None:
            unconfined = config.aquifer == "unconfined"
            site = PumpingTest(
                config.thickness,
                (),
                self.wells[0].radius,
                config.outer_radius,
                0.0,
                self.wells[0].screen,
                unconfined,
                changes_of(self.held),
            )
            return HeldReadings.of(site, self.held, config.rest_head, time, points, discharges)
        boundaries = [section.boundary() for section in config.boundaries]
        if config.solution == "closed_form":
            return ClosedForm(config.thickness, self.wells, time, points, boundaries, slug=config.displacement)
        unconfined = config.aquifer == "unconfined"
        if self._stores and (unconfined or self._partial):
            raise InputError("a well that stores water must penetrate the whole of an aquifer without a free surface")
        first = min(well.discharge[0][0] for well in self.wells)
        models, rows = [], []
        for well in with_images(self.wells, boundaries):
            start = well.discharge[0][0]
            read = np.flatnonzero(time > start) if start > first else np.arange(len(time))
            periods = [(0.0, 0.0)] if config.displacement is not None else well.discharge
            slug = config.displacement or 0.0
            test = PumpingTest(
                config.thickness, periods, well.radius, config.outer_radius, slug, well.screen, unconfined
            )
            if config.aquifer == "two_aquifers":
                test = replace(test, screen=PUMPED)
            distance = [max(math.dist(well.position, points[row].position), self._nearest(well)) for row in read]
            if len(read):
                models.append(self._model(test, time[read], distance, [points[row] for row in read]))
                rows.append(torch.from_numpy(read))
        return SummedDrawdown(models, rows, len(time), config.thickness)

    def _model(
        self, test: PumpingTest, time: np.ndarray, distance: Sequence[float], points: Sequence[ObservationPoint]
    ) -> Drawdown:
        if self.config.aquifer == "two_aquifers":
            return LeakyDrawdown(test, time, distance, [OTHER if point.other else PUMPED for point in points])
        return Drawdown(test, time, distance, [point.screen for point in points])

    def _nearest(self, well: PumpedWell) -> float:
        """Readings in a well that stores water are those of its wall; others must lie outside."""
        return well.radius if self._stores else 0.0

    def parameter_defaults(self) -> Mapping[str, ParameterDefault]:
        closed = self.config.solution == "closed_form"
        known = parameters_of(self.config.aquifer, stores=self._stores, partial=self._partial, closed_form=closed)
        return {**known, **(self.held.default() if self.held else {})}

    def simulate(self, parameters: Mapping[str, Tensor]) -> Tensor:
        return self.readings(parameters)

    def figures(self, parameters: Mapping[str, Tensor]) -> list[ModelFigure]:
        """Drawdowns, and discharges, against the logarithm of time, measured and calibrated, by well."""
        slug = self.config.displacement is not None
        names = {
            False: ("Rise", "rise [m]") if slug else ("Drawdown", "drawdown [m]"),
            True: ("Discharge", "discharge [m3/d]"),
        }
        caption = "Circles: measured. Lines: the calibrated model."
        return [
            ModelFigure(names[kind][0], self._drawn(kind, names[kind][1], parameters), caption)
            for kind in dict.fromkeys(self.of_discharge)
        ]

    def _drawn(self, discharge: bool, axis: str, parameters: Mapping[str, Tensor]) -> Drawing:
        time = self.observations.columns["time"].numpy()
        read = self.observations.labels["well"]
        rows = np.flatnonzero(np.array(self.of_discharge) == discharge)
        wells = [well for well in self.config.observation_wells if any(read[i] == well for i in rows)]
        since = time[rows] - self._beginning
        since = since[since > 0.0]
        curve = np.geomspace(since.min(), since.max(), 120)
        again = [well for well in wells for _ in curve]
        model = self._prepared(self._beginning + np.tile(curve, len(wells)), again, [discharge] * len(again))
        size = DAY if discharge else 1.0
        with torch.no_grad():
            lines = size * model(parameters).reshape(len(wells), -1).numpy()
        value = size * self.observations.value.numpy()
        of = {well: [i for i in rows if read[i] == well] for well in wells}
        return partial(
            wells_in_time,
            {well: (time[own] - self._beginning, value[own]) for well, own in of.items()},
            {well: (curve, line) for well, line in zip(wells, lines)},
            [f"{well}, r = {self.config.observation_wells[well].radius:g} m" for well in wells],
            axis,
            event="the slug" if self.config.displacement is not None else "pumping began",
        )

    @property
    def _beginning(self) -> float:
        """When the first well begins [d]."""
        if self.held is not None:
            return changes_of(self.held)[0]
        return min(well.discharge[0][0] for well in self.wells)
