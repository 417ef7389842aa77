"""The study model `pumping_test`: properties of an aquifer from drawdowns around pumped wells, or from a slug."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from bilevel.calibrate.model import Model, ModelConfig, ModelFigure, ParameterDefault
from bilevel.calibrate.observations import ObservationTable
from bilevel.report import InputError
from physics.flow.pumping import OTHER, PUMPED, Drawdown, LeakyDrawdown, PumpingTest
from physics.flow.wells.closed_form import ClosedForm
from physics.flow.wells.layout import ObservationPoint, PumpedWell, with_images
from physics.flow.wells.two_aquifers import TwoAquifers
from physics.studies.pumping_layout import (
    BoundarySection,
    ObservationWell,
    Schedule,
    ScreenSection,
    WellSection,
    schedule,
)
from physics.studies.quantities import Length

FURTHER = ("aquitard_resistance", "casing_radius", "specific_yield", "anisotropy")
"""Parameters of a numerical drawdown that only some tests have."""


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
        main = parameters["hydraulic_conductivity"], parameters["specific_storage"]
        more = {name: parameters[name] for name in FURTHER if name in parameters}
        total = main[0].new_zeros(self.count)
        for model, rows in zip(self.models, self.rows):
            if isinstance(model, LeakyDrawdown):
                found = model.of(TwoAquifers.of(parameters, self.thickness))
            else:
                found = model(*main, **more)
            total = total.index_add(0, rows, found)
        return total


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
            if sum((self.discharge is not None, bool(self.wells), self.displacement is not None)) != 1:
                raise ValueError("give one of discharge, wells and displacement")
            return self

    columns = {"time": "d", "well": "text"}  # noqa: RUF012
    value_units = "m"

    def __init__(self, config: Config, observations: ObservationTable, folder: Path) -> None:
        super().__init__(config, observations, folder)
        self._require_known()
        self.wells = self._pumped()
        self._require_two_aquifers_alone()
        self.drawdown = self._prepared(observations.columns["time"].numpy(), observations.labels["well"])

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
            periods = ((0.0, 1.0),) if config.displacement is not None else schedule(config.discharge)
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

    def _prepared(self, time: np.ndarray, wells: Sequence[str]) -> ClosedForm | SummedDrawdown:
        """The readings at times [d] of wells by name, as a function of the parameters."""
        config = self.config
        points = [config.observation_wells[well].point() for well in wells]
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
        defaults = {
            "hydraulic_conductivity": ParameterDefault(
                "m/d", lower=0.0, transform="log", description="K of the aquifer"
            ),
            "specific_storage": ParameterDefault("1/m", lower=0.0, transform="log", description="Ss of the aquifer"),
        }
        more = {
            "aquitard_resistance": ParameterDefault("d", lower=0.0, transform="log", description="c of the aquitard"),
            "specific_yield": ParameterDefault(
                "", lower=0.0, upper=1.0, transform="log", description="Sy at the water table"
            ),
            "anisotropy": ParameterDefault(
                "", 1.0, lower=0.0, transform="log", description="vertical over horizontal K"
            ),
            "casing_radius": ParameterDefault(
                "m", lower=0.0, transform="log", description="where the well's water rises"
            ),
            "skin": ParameterDefault("", 0.0, lower=0.0, description="resistance at the well's wall"),
            "other_transmissivity": ParameterDefault(
                "m2/d", lower=0.0, transform="log", description="T of the aquifer that is not pumped"
            ),
            "other_storativity": ParameterDefault("", lower=0.0, transform="log", description="S of it"),
            "aquitard_storativity": ParameterDefault("", 0.0, lower=0.0, description="S' of the aquitard"),
        }
        two = self.config.aquifer == "two_aquifers"
        closed, unconfined = self.config.solution == "closed_form", self.config.aquifer == "unconfined"
        taken = {
            "aquitard_resistance": self.config.aquifer in ("leaky", "two_aquifers"),
            **dict.fromkeys(("other_transmissivity", "other_storativity", "aquitard_storativity"), two),
            "specific_yield": unconfined,
            "anisotropy": unconfined or self._partial,
            "casing_radius": self._stores,
            "skin": self._stores and closed,
        }
        return {**defaults, **{name: more[name] for name, has in taken.items() if has}}

    def simulate(self, parameters: Mapping[str, Tensor]) -> Tensor:
        return self.drawdown(parameters)

    def figures(self, parameters: Mapping[str, Tensor]) -> list[ModelFigure]:
        """Drawdown against the logarithm of time, measured and calibrated, by well."""
        from matplotlib.figure import Figure
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        time = self.observations.columns["time"].numpy()
        first = min(well.discharge[0][0] for well in self.wells)
        since = time[time > first] - first
        curve = first + np.geomspace(since.min(), since.max(), 120)
        wells = self.config.observation_wells
        model = self._prepared(np.tile(curve, len(wells)), [well for well in wells for _ in curve])
        with torch.no_grad():
            lines = model(parameters).reshape(len(wells), -1).numpy()
        figure = Figure(figsize=(7.0, 4.5), layout="constrained")
        axes = figure.add_subplot()
        for k, (well, line) in enumerate(zip(wells, lines)):
            rows = [i for i, name in enumerate(self.observations.labels["well"]) if name == well]
            axes.semilogx(
                time[rows] - first, self.observations.value[rows].numpy(), "o", ms=4, color=f"C{k}", mfc="none"
            )
            axes.semilogx(curve - first, line, color=f"C{k}", label=f"{well}, r = {wells[well].radius:g} m")
        few = (since.max() / since.min()) < 300.0
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(
            "time since pumping began [d]" if self.config.displacement is None else "time since the slug [d]"
        )
        axes.set_ylabel("drawdown [m]" if self.config.displacement is None else "rise [m]")
        if self.config.displacement is None:
            axes.invert_yaxis()
        axes.grid(True, which="both", alpha=0.3)
        axes.legend()
        return [ModelFigure("Drawdown", figure, "Circles: measured. Lines: the calibrated model.")]
