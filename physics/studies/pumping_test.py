"""The study model `pumping_test`: transmissivity and storage of an aquifer from drawdowns around a pumped well."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from bilevel.calibrate.model import Model, ModelConfig, ModelFigure, ModelReports, ParameterDefault
from bilevel.calibrate.observations import ObservationTable
from bilevel.report import InputError, Solution
from physics.flow.pumping import Drawdown, PumpingTest
from physics.studies.quantities import Days, Discharge, Length


class PumpingPeriod(BaseModel):
    """From `start` on the well is pumped at `rate` (0 m3/d: it recovers)."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    start: Days
    """since pumping began"""
    rate: Discharge
    """from then on"""


class PumpingTestModel(Model):
    """Drawdown around a fully penetrating well in a confined (Theis) or leaky (Hantush) aquifer."""

    class Config(ModelConfig):
        """Every quantity carries its units: "7 m", "788 m3/d", "0.34 d"."""

        aquifer: Literal["confined", "leaky"]
        """a leaky one has the parameter aquitard_resistance, too"""
        thickness: Length = Field(gt=0)
        """of the aquifer"""
        discharge: Discharge | list[PumpingPeriod]
        """pumped from the beginning on, or a list of periods"""
        observation_wells: dict[str, Length]
        """distance from the pumped well, by the name in the column `well`"""
        well_radius: Length = Field(default=0.1, gt=0)
        """of the pumped well"""
        outer_radius: Length = Field(default=1e5, gt=0)
        """where the drawdown is zero; an error where drawdown reaches it"""

    columns = {"time": "d", "well": "text"}  # noqa: RUF012
    value_units = "m"

    def __init__(self, config: Config, observations: ObservationTable, folder: Path) -> None:
        super().__init__(config, observations, folder)
        periods = config.discharge
        schedule = [(0.0, periods)] if isinstance(periods, float) else [(p.start, p.rate) for p in periods]
        self.test = PumpingTest(config.thickness, schedule, config.well_radius, config.outer_radius)
        self.solutions: list[Solution] = []
        self.drawdown = Drawdown(self.test, observations.columns["time"].numpy(), self._distances())

    def _distances(self) -> list[float]:
        wells = self.config.observation_wells
        for row, well in enumerate(self.observations.labels["well"]):
            if well not in wells:
                where = self.observations.source[row] if self.observations.source else f"observation {row + 1}"
                raise InputError(f"{where}: well '{well}' is not among observation_wells ({', '.join(wells)})")
        return [wells[well] for well in self.observations.labels["well"]]

    def parameter_defaults(self) -> Mapping[str, ParameterDefault]:
        defaults = {
            "hydraulic_conductivity": ParameterDefault(
                "m/d", lower=0.0, transform="log", description="K of the aquifer"
            ),
            "specific_storage": ParameterDefault("1/m", lower=0.0, transform="log", description="Ss of the aquifer"),
        }
        if self.config.aquifer == "leaky":
            defaults["aquitard_resistance"] = ParameterDefault(
                "d", lower=0.0, transform="log", description="c of the aquitard"
            )
        return defaults

    def simulate(self, parameters: Mapping[str, Tensor]) -> Tensor:
        self.solutions.clear()
        return self._run(self.drawdown, parameters, self.solutions.append)

    def reports(self) -> ModelReports:
        gradients = [gradient for solution in self.solutions for gradient in solution.gradients]
        return ModelReports([solution.report for solution in self.solutions], gradients)

    def _run(self, drawdown: Drawdown, parameters: Mapping[str, Tensor], watch: Callable[[Solution], None]) -> Tensor:
        conductivity, storage = parameters["hydraulic_conductivity"], parameters["specific_storage"]
        return drawdown(conductivity, storage, parameters.get("aquitard_resistance"), watch)

    def figures(self, parameters: Mapping[str, Tensor]) -> list[ModelFigure]:
        """Drawdown against the logarithm of time, measured and calibrated, by well."""
        from matplotlib.figure import Figure
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        time = self.observations.columns["time"].numpy()
        first = self.test.discharge[0][0]
        since = time[time > first] - first
        curve = first + np.geomspace(since.min(), since.max(), 120)
        wells = self.config.observation_wells
        distances = np.repeat(list(wells.values()), len(curve))
        model = Drawdown(self.test, np.tile(curve, len(wells)), distances)
        with torch.no_grad():
            lines = self._run(model, parameters, self.solutions.append).reshape(len(wells), -1).numpy()
        figure = Figure(figsize=(7.0, 4.5), layout="constrained")
        axes = figure.add_subplot()
        for k, (well, line) in enumerate(zip(wells, lines)):
            rows = [i for i, name in enumerate(self.observations.labels["well"]) if name == well]
            axes.semilogx(
                time[rows] - first, self.observations.value[rows].numpy(), "o", ms=4, color=f"C{k}", mfc="none"
            )
            axes.semilogx(curve - first, line, color=f"C{k}", label=f"{well}, r = {wells[well]:g} m")
        few = (since.max() / since.min()) < 300.0
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("time since pumping began [d]")
        axes.set_ylabel("drawdown [m]")
        axes.invert_yaxis()
        axes.grid(True, which="both", alpha=0.3)
        axes.legend()
        return [ModelFigure("Drawdown", figure, "Circles: measured. Lines: the calibrated model.")]
