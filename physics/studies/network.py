"""The study model `network`: roughness of groups of pipes in a water supply network, from heads, pressures and flows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from bilevel.calibrate.model import Model, ModelConfig, ModelFigure, ModelReports, ParameterDefault
from bilevel.calibrate.observations import ObservationTable
from bilevel.calibrate.study.csv_file import read_csv
from bilevel.calibrate.study.unit_table import LENGTH, PRESSURE
from bilevel.calibrate.study.units import parse_unit
from bilevel.calibrate.study.validated import hint
from bilevel.report import InputError, Solution
from physics.flow.water.epanet import read_epanet
from physics.flow.water.network import LinkStatus
from physics.flow.water.pipe_flow import PipeFlow
from physics.studies.network_keys import Name, StatusPeriod, TablesSection, TankLevel, listed, network_of_tables

WATER = 9806.65
"""Weight of water, N/m3."""

FLOW = parse_unit("m3/s").dimension
QUANTITIES = {"head": (LENGTH,), "pressure": (LENGTH, PRESSURE), "flow": (FLOW,)}
"""What may be observed, and the dimensions that it may have: pressures also as metres of water."""


class NetworkModel(Model):
    """Steady states of a water supply network, one for each time of observation.

    Each group of pipes has a parameter roughness_GROUP; pipes of no group keep the file's. A row observes the `quantity` head,
    pressure or flow of an `element`, the name of a node or link; flows are positive from a link's first node to its second.
    demand_factor multiplies all demands, 1 unless the study has this parameter.
    """

    class Config(ModelConfig):
        file: str | None = None
        """an EPANET input file beside the study; what it holds beyond the supported is refused"""
        tables: TablesSection | None = None
        """two CSV files in its place"""
        groups: dict[str, list[Name]] | str
        """names of pipes by group, or a CSV with columns pipe and group"""
        status: dict[str, Annotated[list[StatusPeriod], listed("status")]] = Field(default={})
        """how links stand, always or from times on, in place of the file; needed for links under the file's controls"""
        levels: dict[str, Annotated[list[TankLevel], listed("level")]] = Field(default={})
        """of tanks, in place of the file's; one for all times, or readings between which it is interpolated"""

        @model_validator(mode="after")
        def _one(self) -> NetworkModel.Config:
            if (self.file is None) == (self.tables is None):
                raise ValueError("give either an EPANET file or tables of nodes and pipes")
            return self

    columns = {"time": "s", "element": "text", "quantity": "text"}  # noqa: RUF012
    value_units = None

    def __init__(self, config: Config, observations: ObservationTable, folder: Path) -> None:
        super().__init__(config, observations, folder)
        if config.tables is not None:
            self.network = network_of_tables(config.tables, folder)
        else:
            self.network = read_epanet(folder / str(config.file))
        self.groups = self._groups()
        self._require_known()
        times = observations.columns["time"].numpy()
        self.times, self._state = np.unique(times, return_inverse=True)
        self.flows = [PipeFlow(self.network, self._status(time)) for time in self.times]
        self._given = [flow.parameters(time, self._levels(time)) for flow, time in zip(self.flows, self.times)]
        rows = [self._row(i) for i in range(len(observations))]
        self._place, self._below, self._factor = (torch.tensor(column) for column in zip(*rows))
        self.solutions: list[Solution] = []

    def parameter_defaults(self) -> Mapping[str, ParameterDefault]:
        units = self.network.friction.units
        rough = {
            f"roughness_{name}": ParameterDefault(
                units, lower=0.0, transform="log", description=f"of the pipes in {name}"
            )
            for name in self.groups
        }
        factor = ParameterDefault("", 1.0, lower=0.0, description="what all demands are multiplied by")
        return {**rough, "demand_factor": factor}

    def simulate(self, parameters: Mapping[str, Tensor]) -> Tensor:
        self.solutions.clear()
        return self._observe(self._solve(parameters))

    def reports(self) -> ModelReports:
        gradients = [gradient for solution in self.solutions for gradient in solution.gradients]
        return ModelReports([solution.report for solution in self.solutions], gradients)

    def figures(self, parameters: Mapping[str, Tensor]) -> list[ModelFigure]:
        """A map of the pipes by group, with the nodes that were read."""
        from matplotlib.figure import Figure

        at = self.network.positions
        if any(name not in at for name in self.network.nodes):
            return []
        figure = Figure(figsize=(7.0, 6.0), layout="constrained")
        axes = figure.add_subplot()
        colour = {pipe: f"C{k}" for k, pipes in enumerate(self.groups.values()) for pipe in pipes}
        for link in self.network.links:
            axes.plot(*zip(*(at[node] for node in link.ends)), color=colour.get(self._number(link.name), "0.8"), lw=1.5)
        for k, name in enumerate(self.groups):
            axes.plot([], [], color=f"C{k}", label=name)
        read = {name for name in self.observations.labels["element"] if name in at}
        axes.plot(*zip(*(at[name] for name in sorted(read))), "o", ms=4, color="k", mfc="w") if read else None
        axes.set_aspect("equal")
        axes.set_axis_off()
        figure.legend(loc="outside right upper")
        return [ModelFigure("Network", figure, "Lines: pipes by group. Circles: nodes that were read.")]

    def _solve(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Heads and flows (times, nodes + links)."""
        states, start = [], None
        for flow, given in zip(self.flows, self._given):
            params = {
                **given,
                "demand": given["demand"] * parameters["demand_factor"],
                "roughness": given["roughness"].clone(),
            }
            for name, pipes in self.groups.items():
                chosen = torch.zeros(len(self.network.pipes), dtype=torch.bool)
                chosen[pipes] = True
                params["roughness"] = torch.where(chosen, parameters[f"roughness_{name}"], params["roughness"])
            solution = flow.solve(params, start)
            self.solutions.append(solution)
            start = solution.u  # the next hour is like this one
            states.append(torch.cat((flow.heads(solution.u, params), flow.flows(solution.u))))
        return torch.stack(states)

    def _observe(self, states: Tensor) -> Tensor:
        return self._factor * (states[self._state, self._place] - self._below)

    def _row(self, i: int) -> tuple[int, float, float]:
        """Which of a state's numbers an observation is, what is taken from it, and the factor to SI units."""
        element, quantity = (self.observations.labels[name][i] for name in ("element", "quantity"))
        where = self.observations.source_of(i)
        if quantity not in QUANTITIES:
            raise InputError(f"{where}: quantity '{quantity}' is none of {', '.join(QUANTITIES)}")
        dimension = parse_unit(self.observations.units_of(self.observations.group[i]).name).dimension
        if dimension not in QUANTITIES[quantity]:
            units = self.observations.units_of(self.observations.group[i]).name or "no units"
            wanted = {"head": "m", "pressure": "kPa or m", "flow": "L/s"}[quantity]
            raise InputError(f"{where}: a {quantity} cannot be in {units}; give its file units such as {wanted}")
        known = self.network.link_numbers if quantity == "flow" else self.network.nodes
        if element not in known:
            what = "link" if quantity == "flow" else "node"
            raise InputError(f"{where}: the network has no {what} '{element}'{hint(element, known)}")
        number = known[element]
        if quantity == "flow":
            return len(self.network.nodes) + number, 0.0, 1.0
        if quantity == "head":
            return number, 0.0, 1.0
        weight = WATER * self.network.specific_gravity if dimension == PRESSURE else 1.0
        return number, float(self.network.elevations[number]), weight

    def _groups(self) -> dict[str, list[int]]:
        """The numbers of the pipes of each group."""
        given = self.config.groups
        if isinstance(given, str):
            table = read_csv(self.folder / given)
            pairs = list(zip(table.texts("pipe"), table.texts("group")))
            given = {group: [pipe for pipe, g in pairs if g == group] for group in dict.fromkeys(g for _, g in pairs)}
        found: dict[int, str] = {}
        pipes = {pipe.name: k for k, pipe in enumerate(self.network.pipes)}
        for group, names in given.items():
            for name in names:
                if name not in pipes:
                    raise InputError(
                        f"groups: '{name}' in group '{group}' is no pipe of the network{hint(name, pipes)}"
                    )
                if pipes[name] in found:
                    raise InputError(f"groups: pipe '{name}' is in '{found[pipes[name]]}' and in '{group}'")
                found[pipes[name]] = group
        return {group: [pipe for pipe, g in found.items() if g == group] for group in given}

    def _number(self, link: str) -> int:
        return self.network.link_numbers[link]

    def _require_known(self) -> None:
        tanks = [node.name for node in self.network.fixed_heads if node.tank]
        for name in self.config.levels:
            if name not in tanks:
                raise InputError(f"levels: '{name}' is no tank of the network{hint(name, tanks)}")
        for link, line in self.network.controls.items():
            if link not in self.config.status:
                raise InputError(
                    f"link '{link}' is controlled ({line}), which a state does not obey; say under status how it stands"
                )

    def _status(self, time: float) -> dict[str, LinkStatus]:
        given = {name: _at(periods, time, name) for name, periods in self.config.status.items()}
        return {**self.network.resting_pumps(time), **{name: LinkStatus(status) for name, status in given.items()}}

    def _levels(self, time: float) -> dict[str, float]:
        return {name: _interpolated(readings, time, name) for name, readings in self.config.levels.items()}


def _at(periods: Sequence[StatusPeriod], time: float, name: str) -> str:
    begun = [period for period in periods if period.start <= time]
    if not begun:
        raise InputError(f"status of '{name}': nothing is said of the time {time:g} s, which is observed")
    return max(begun, key=lambda period: period.start).status


def _interpolated(readings: Sequence[TankLevel], time: float, name: str) -> float:
    if len(readings) == 1:
        return readings[0].level
    ordered = sorted(readings, key=lambda reading: reading.time)
    if not ordered or not ordered[0].time <= time <= ordered[-1].time:
        raise InputError(f"levels of '{name}': nothing is said of the time {time:g} s, which is observed")
    return float(np.interp(time, [x.time for x in ordered], [x.level for x in ordered]))
