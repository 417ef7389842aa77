"""What `kind: darcy` and `kind: heat` share: a scalar field on a mesh, steady or in time, driven by boundaries and sources."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from bilevel.calibrate.model import ConfigError, Model, ModelFigure, ModelReports, ParameterDefault
from bilevel.calibrate.observations import ObservationTable
from bilevel.implicit.solve import argmin
from bilevel.problem import Params
from bilevel.report import InputError, Solution
from bilevel.solvers.newton import Newton
from bilevel.solvers.steps.constant import Constant
from physics.constitutive.flow.anisotropic import AnisotropicConduction
from physics.constitutive.flow.linear import Linear
from physics.discretisation import Mesh
from physics.discretisation.constraints import Dirichlet
from physics.discretisation.write import write_vtu
from physics.flow.darcy import Diffusion
from physics.flow.linear_march import LinearMarch
from physics.flow.linear_system import LinearSystem
from physics.flow.time_stepping import SDIRK2
from physics.studies.on_mesh.map import draw_field, draw_map
from physics.studies.on_mesh.mesh_section import require_boundary
from physics.studies.on_mesh.quantities import Given, Key, Signal, quantity
from physics.studies.on_mesh.sensors import Quantity, Reading, named_sensors, observed
from physics.studies.on_mesh.spread import spread_fields
from physics.studies.on_mesh.time_section import InTime
from physics.studies.on_mesh.zones import Zones

LINEAR = Newton(step=Constant(1.0))
"""The energy is quadratic: a full Newton step ends at its minimum, and a line search would only see rounding errors."""


@dataclass(frozen=True)
class Words:
    """How a kind calls what diffuses, and the units in which its model works.

    coefficient, capacity: parameters of the material. through: the flow through a boundary. source, inflow, exchange,
    discharge: units of what flows in by volume, by boundary, through it by difference, and at a point.
    """

    field: str
    units: str
    time: str
    coefficient: str
    capacity: str
    defaults: Mapping[str, ParameterDefault]
    through: str
    source: str
    inflow: str
    exchange: str
    discharge: str


@dataclass(frozen=True)
class Drive:
    """One thing that drives the field: an entry of the energy's parameters, made of signals.

    entry: its name, or ("boundary", name). build: from the signals' values (...) to the entry.
    """

    entry: tuple[str, ...]
    signals: tuple[Signal, ...]
    build: Callable[[Sequence[Tensor]], Any]

    def at(self, times: np.ndarray | None, parameters: Mapping[str, Tensor]) -> dict[str, Any]:
        """The parameters with this entry alone."""
        value = self.build([signal.at(times, parameters) for signal in self.signals])
        return {self.entry[0]: value} if len(self.entry) == 1 else {self.entry[0]: {self.entry[1]: value}}


@dataclass
class Boundaries:
    """The keys of boundaries, sources and wells, by what they do: each with the path of its key."""

    prescribed: dict[str, tuple[Key, Given]] = field(default_factory=dict)
    inflow: dict[str, tuple[Key, Given]] = field(default_factory=dict)
    exchange: dict[str, tuple[Key, Given, Given]] = field(default_factory=dict)
    sources: dict[str, tuple[Key, Given]] = field(default_factory=dict)
    wells: dict[str, tuple[Key, Sequence[str], Given]] = field(default_factory=dict)
    leakage: tuple[Key, Given, Given] | None = None


class DiffusionModel(Model):
    """A field on a mesh; each row is the reading of a sensor, in SI units."""

    columns: ClassVar[Mapping[str, str]] = {"sensor": "text"}
    value_units = None
    level: ClassVar[str]
    """what the other side of an exchange is called in the keys"""

    @abstractmethod
    def words(self) -> Words:
        """Names and units for the geometry at hand."""

    @abstractmethod
    def boundaries(self) -> Boundaries:
        """The keys by what they do."""

    def __init__(self, config: Any, observations: ObservationTable, folder: Path) -> None:
        super().__init__(config, observations, folder)
        self.mesh = config.mesh.read(folder)
        self._require_dimension()
        self.named = self.words()
        self.zones = Zones.of(self.mesh, config.zones) if config.zones or self._by_zone() else None
        self.fields = spread_fields(config.spread, self._material(), self.mesh, self.zones, folder)
        self.drives = self._drives(self.boundaries())
        self.steps = None
        signals = [s for drive in self.drives for s in drive.signals]
        if config.time is not None:
            self.steps = config.time.times(self.named.time, [t for s in signals for t in s.jumps])
        self.initial = self._initial()
        self.steady = self._flow(transient=False) if self.steps is None or self.initial is None else None
        self.flow = self._flow(transient=True) if self.steps is not None else self.steady
        assert self.flow is not None
        self.system = LinearSystem(self.flow)
        names = [drive.entry[1] for drive in self.drives if len(drive.entry) == 2]
        rest = self.flow.start()
        self.indicators = {
            n: self.flow.constraints.expand(rest, {m: float(m == n) for m in names})[:, 0] for n in names
        }
        self._require_tables(signals)
        self._prepare_sensors(signals)
        self._solutions: list[Solution] = []

    # What the keys say

    def _require_dimension(self) -> None:
        geometry = self.config.geometry
        if self.mesh.dim != (3 if geometry == "space" else 2):
            raise ConfigError(("geometry",), f"'{geometry}' does not go with a mesh in {self.mesh.dim} dimensions")

    def _by_zone(self) -> bool:
        zoned = any(section.layout == "zones" for section in self.config.spread.values())
        return zoned or any(name != "all" for name in self.boundaries().sources)

    def _material(self) -> dict[str, ParameterDefault]:
        """The parameters of the material that are in use."""
        names = [self.named.coefficient, *(["anisotropy"] if self.config.anisotropic else [])]
        names += [self.named.capacity] if self.config.time is not None else []
        known = {**self.named.defaults, "anisotropy": ParameterDefault("", lower=0.0, transform="log")}
        return {name: known[name] for name in names}

    def _drives(self, keys: Boundaries) -> list[Drive]:
        words, drives = self.named, []

        def read(given: Given, units: str, key: Key, hold: bool = False) -> Signal:
            return Signal.read(given, units, self.folder, key, words.time, hold)

        def first(values: Sequence[Tensor]) -> Tensor:
            return values[0]

        for name, (key, given) in keys.prescribed.items():
            require_boundary(self.mesh, name, key[:-1], points=True)
            drives.append(Drive(("boundary", name), (read(given, words.units, key),), first))
        for name, (key, given) in keys.inflow.items():
            require_boundary(self.mesh, name, key[:-1])
            drives.append(Drive((f"inflow_{name}",), (read(given, words.inflow, key, hold=True),), first))
        for name, (key, coefficient, level) in keys.exchange.items():
            require_boundary(self.mesh, name, key[:-1])
            signals = (
                read(coefficient, words.exchange, (*key, "coefficient")),
                read(level, words.units, (*key, self.level)),
            )
            drives.append(Drive((f"exchange_{name}",), signals, lambda v: {"coefficient": v[0], "level": v[1]}))
        if keys.sources:
            drives.append(self._source(keys, read))
        if keys.wells:
            wells = tuple(
                read(given, words.discharge, (*key, "rate"), hold=True) for key, _, given in keys.wells.values()
            )
            drives.append(Drive(("wells",), wells, lambda values: torch.stack(torch.broadcast_tensors(*values), -1)))
        if keys.leakage is not None:
            key, resistance, level = keys.leakage
            signals = (read(resistance, words.time, (*key, "resistance")), read(level, words.units, (*key, self.level)))
            drives.append(Drive(("leakage",), signals, lambda v: {"resistance": v[0], "head": v[1]}))
        return drives

    def _source(self, keys: Boundaries, read: Callable[..., Signal]) -> Drive:
        signals = tuple(read(given, self.named.source, key, hold=True) for key, given in keys.sources.values())
        names = list(keys.sources)
        if names == ["all"]:
            return Drive(("source",), signals, lambda values: values[0])
        assert self.zones is not None
        for name, (key, _) in keys.sources.items():
            if name not in self.zones.names:
                raise ConfigError(
                    key, f"there is no zone '{name}'; there are {', '.join(self.zones.names)}, or 'all' alone"
                )
        places = [names.index(zone) if zone in names else len(names) for zone in self.zones.names]
        of_cell = torch.tensor(places)[self.zones.of_cell]

        def build(values: Sequence[Tensor]) -> Tensor:
            values = torch.broadcast_tensors(*values)
            return torch.stack([*values, torch.zeros_like(values[0])], -1)[..., of_cell]

        return Drive(("source",), signals, build)

    def _initial(self) -> Signal | None:
        """The uniform field at the start, or None where it begins from its steady state."""
        given = self.config.initial
        if self.steps is None and given != "steady":
            raise ConfigError(("initial",), "there is no initial state without `time:`")
        if given == "steady":
            return None
        return Signal.read(Given(quantity=given), self.named.units, self.folder, ("initial",))

    def _flow(self, transient: bool) -> Diffusion:
        words, axisymmetric = self.named, self.config.geometry == "axisymmetric"
        entries = [drive.entry for drive in self.drives]
        law: Any = Linear(words.coefficient, "")
        if self.config.anisotropic:
            turn = quantity(self.config.direction, "rad", ("direction",))
            law = AnisotropicConduction(words.coefficient, "", self.mesh.dim, turn)
        ties = self.mesh.hanging_ties() if self.config.mesh.hanging else []
        try:
            return _Flow(
                self.mesh,
                [*self._prescribed(), *ties],
                capacity=words.capacity,
                law=law,
                axisymmetric=axisymmetric,
                leaky=("leakage",) in entries,
                transient=transient,
                inflow=[entry[0][7:] for entry in entries if entry[0].startswith("inflow_")],
                exchange=[entry[0][9:] for entry in entries if entry[0].startswith("exchange_")],
                wells=self._located_wells(),
            )
        except InputError as error:
            raise ConfigError(("boundaries",), str(error)) from None

    def _prescribed(self) -> list[Dirichlet]:
        """Where two boundaries with prescribed values meet, the first one holds."""
        names = list(self.boundaries().prescribed)
        return [self.mesh.fixed(name, without=names[:number]) for number, name in enumerate(names)]

    def _located_wells(self) -> Any:
        wells = self.boundaries().wells
        if not wells:
            return None
        places = []
        for key, at, _ in wells.values():
            if len(at) != self.mesh.dim:
                raise ConfigError((*key, "at"), f"the mesh has {self.mesh.dim} dimensions, the place has {len(at)}")
            places.append([quantity(x, "m", (*key, "at", i)) for i, x in enumerate(at)])
            try:
                self.mesh.locate([places[-1]])
            except InputError as error:
                raise ConfigError((*key, "at"), str(error)) from None
        return self.mesh.locate(places)

    def _require_tables(self, signals: Sequence[Signal]) -> None:
        """Tables must be wanted, and cover the steps; found out now, with the line of their key."""
        for signal in signals:
            if signal.varies and self.steps is None:
                raise ConfigError(signal.key, "a table over time needs `time:` among the model's keys")
            if signal.varies and self.steps is not None:
                signal.at(self.steps.times, {})
            if signal.varies and signal.key[-1] in ("coefficient", "resistance"):
                raise ConfigError(signal.key, "it may not vary in time; let the other side's value do that")

    # What is observed

    def quantities(self) -> dict[str, Quantity]:
        """What sensors may read."""
        words = self.named
        return {words.field: Quantity(words.units), words.through: Quantity(words.discharge, through=True)}

    def _prepare_sensors(self, signals: Sequence[Signal]) -> None:
        config, words = self.config, self.named
        points = {} if config.points is None else config.points.read(self.folder, self.mesh.dim, ("points",))
        named = named_sensors(config.sensors, points, self.quantities(), self.mesh.dim)
        for name, (reading, _) in named.items():
            if reading.boundary:
                require_boundary(self.mesh, reading.boundary, ("sensors", name, "through"))
                self._entries(reading, ("sensors", name, "through"))
        table = self.observations
        self.sensors = observed(table, named, self.quantities(), self.mesh.dim)
        places = self.sensors.points(words.field)
        self.at_points = self.mesh.locate(places) if len(places) else None
        self.throughs = [reading for reading in self.sensors.readings if reading.boundary]
        on = {reading.boundary: self.mesh.nodes_on(reading.boundary) for reading in self.throughs}
        rows, stored = self.system.rows, self.system.store.rows
        self.balances = {name: (n, torch.isin(rows, n), torch.isin(stored, n)) for name, n in on.items()}
        order = [r for r in self.sensors.readings if not r.boundary] + self.throughs
        self.order = torch.tensor([order.index(reading) for reading in self.sensors.readings])
        if self.steps is not None:
            # As NumPy's arrays: inside torch.func's transforms no tensor turns into them, as interpolation needs.
            self.stage_times = self.steps.stage_times(SDIRK2.nodes)
            self.begin = self.steps.times[0]
            self.last_stages = torch.from_numpy(self.steps.stage_lengths(SDIRK2.diagonal, SDIRK2.nodes)[:, -1:])
            self.march = LinearMarch(self.system, self.flow.constraints, self.steps, SDIRK2)
            self.in_time = InTime.of(self.steps.times, [t for s in signals for t in s.jumps], self._times(table))

    def _times(self, table: ObservationTable) -> np.ndarray:
        assert self.steps is not None
        times = table.columns.get("time", table.value.new_full((len(table),), torch.nan)).numpy()
        first, last = self.steps.times[0], self.steps.times[-1]
        slack = 1e-9 * (last - first)
        for row, t in enumerate(times):
            if not first - slack <= t <= last + slack:
                said = "has no time; map the column time" if np.isnan(t) else f"is at time {t:g} {self.named.time}"
                raise InputError(f"{table.source_of(row)}: {said}, and the model runs from {first:g} to {last:g}")
        return np.clip(times, first, last)

    def _entries(self, reading: Reading, key: Key) -> list[str]:
        """What flows through a boundary: its terms, none where its field is prescribed; ConfigError where nothing does."""
        name = reading.boundary
        if any(drive.entry == ("boundary", name) for drive in self.drives):
            return []
        found = [t for t in (f"inflow_{name}", f"exchange_{name}") if any(d.entry == (t,) for d in self.drives)]
        if not found:
            raise ConfigError(key, f"nothing flows through '{name}': the study gives no condition on it")
        return found

    def _read(self, fields: Tensor, rates: Tensor | None, params: Params) -> Tensor:
        """All readings (..., readings) of fields (..., nodes), with d field / d time where something is stored."""
        parts = []
        if self.at_points is not None:
            parts.append((fields[..., self.at_points.nodes] * self.at_points.weights).sum(-1))
        for reading in self.throughs:
            parts.append(self._through(reading, fields, rates, params).unsqueeze(-1))
        return torch.cat(parts, -1)[..., self.order]

    def _through(self, reading: Reading, fields: Tensor, rates: Tensor | None, params: Params) -> Tensor:
        """What flows in through a boundary (...): by its condition, or where the field is prescribed by the balance there."""
        system, names = self.system, self._entries(reading, ())
        if names:
            blocks = [name for name in names if name in system.blocks]
            passed = sum((self._product(system, system.place(n), fields, params) for n in blocks), torch.zeros(()))
            return system.load(params, tuple(names)).sum(-1) - passed
        nodes, inside, kept = self.balances[reading.boundary]
        balance = self._product(system, inside, fields, params)
        if rates is not None:
            balance = balance + (system.capacity(params)[kept] * rates[..., system.store.columns[kept]]).sum(-1)
        return balance - system.load(params)[..., nodes].sum(-1)

    @staticmethod
    def _product(system: LinearSystem, entries: Any, fields: Tensor, params: Params) -> Tensor:
        return (system.stiffness(params)[entries] * fields[..., system.columns[entries]]).sum(-1)

    # The model

    def parameter_defaults(self) -> Mapping[str, ParameterDefault]:
        found = {name: default for field in self.fields.values() for name, default in field.defaults().items()}
        signals = [s for drive in self.drives for s in drive.signals] + ([self.initial] if self.initial else [])
        for signal in signals:
            for name, default in signal.default().items():
                if found.setdefault(name, default).units != default.units:
                    raise ConfigError(signal.key, f"parameter '{name}' is in {found[name].units} elsewhere")
        return found

    def _params(
        self, parameters: Mapping[str, Tensor], times: np.ndarray | None, varying: bool | None = None
    ) -> dict[str, Any]:
        """The entries of drives; varying: of those alone that vary in time, or that do not."""
        found: dict[str, Any] = {}
        for drive in self.drives:
            if varying is None or any(s.varies for s in drive.signals) is varying:
                for name, value in drive.at(times, parameters).items():
                    found[name] = {**found[name], **value} if name in found else value
        return found

    def _material_params(self, parameters: Mapping[str, Tensor], transient: bool) -> dict[str, Any]:
        values = {name: field.values(parameters) for name, field in self.fields.items()}
        storage = values.pop(self.named.capacity, None)
        return {"flow": values, **({"storage": {self.named.capacity: storage}} if transient else {})}

    def _steady_state(self, parameters: Mapping[str, Tensor], time: np.ndarray | None) -> tuple[Tensor, Params]:
        """The steady field (nodes,) at a time, and the parameters under which it is so."""
        assert self.steady is not None
        params = {**self._material_params(parameters, False), **self._params(parameters, time)}
        solution = argmin(self.steady, self.steady.start(), params, solver=LINEAR)
        self._solutions.append(solution)
        return self.steady.expand(solution.u, params)[:, 0], params

    def _history(self, parameters: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Params]:
        """The fields (steps + 1, nodes) at the start and after each step, their rates, and the parameters in time."""
        flow, steps = self.flow, self.steps
        assert flow is not None
        assert steps is not None
        if self.initial is None:
            first = self._steady_state(parameters, self.begin)[0]
        else:
            first = self.initial.at(None, parameters).expand(len(self.mesh.coordinates))
        material = self._material_params(parameters, True)
        driven = self._params(parameters, self.stage_times)
        fixed = {**material, **self._params(parameters, None, varying=False)}
        constant = {**driven, **fixed}  # matrices do not vary in time
        held = self._held(driven.get("boundary", {}))
        load = self.system.load(driven).expand(*self.stage_times.shape, -1)[:, 1:]
        start = first[flow.constraints.free]
        heads, anchors = self.march(self.system.stiffness(constant), self.system.capacity(material), load, held, start)
        rates = (heads[:, -1] - anchors[:, -1]) / self.last_stages
        begin = flow.constraints.extend(start)[:, 0] + held[0, 0]
        at_ends = {**self._params(parameters, self.steps.times), **fixed}
        fields = torch.cat((begin.unsqueeze(0), heads[:, -1]))
        return fields, torch.cat((torch.zeros_like(begin).unsqueeze(0), rates)), at_ends

    def _held(self, boundary: Mapping[str, Tensor]) -> Tensor:
        """What prescribed values add to the field at the times of all stages, (steps, 1 + stages, nodes)."""
        total = torch.zeros(*self.stage_times.shape, len(self.mesh.coordinates), dtype=torch.float64)
        for name, values in boundary.items():
            total = total + values.unsqueeze(-1) * self.indicators[name]
        return total

    def simulate(self, parameters: Mapping[str, Tensor]) -> Tensor:
        self._solutions.clear()
        first, second = self.sensors.first, self.sensors.second.clamp(min=0)
        if self.steps is None:
            field, params = self._steady_state(parameters, None)
            read = self._read(field, None, params)
            pair = read[first], read[second]
        else:
            history = self._read(*self._history(parameters))
            pair = self.in_time(history, first), self.in_time(history, second)
        return self.sensors.predictions(torch.stack(pair, 1))

    def prior_residual(self, parameters: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([field.prior_residual(parameters) for field in self.fields.values()])

    def reports(self) -> ModelReports:
        gradients = [gradient for solution in self._solutions for gradient in solution.gradients]
        return ModelReports([solution.report for solution in self._solutions], gradients)

    def _final(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The field (nodes,): the steady one, or that after the last step."""
        with torch.no_grad():
            if self.steps is None:
                return self._steady_state(parameters, None)[0]
            return self._history(parameters)[0][-1]

    def _cell_values(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {n: f.values(parameters).detach().expand(len(self.mesh.cells)) for n, f in self.fields.items()}

    def write_state(self, parameters: Mapping[str, Tensor], folder: Path) -> list[Path]:
        """The field at the nodes, at the end of time, and the material's parameters on the cells."""
        nodal = {self.named.field: self._final(parameters)}
        return [write_vtu(folder / f"{self.named.field}.vtu", self.mesh, nodal, self._cell_values(parameters))]

    def maps(self) -> list[ModelFigure]:
        wells = self.boundaries().wells
        places = {"sensors": self.sensors.points()}
        if wells:
            places["wells"] = np.array([[quantity(x, "m", (*k, "at")) for x in at] for k, at, _ in wells.values()])
        return draw_map(self.mesh, places)

    def figures(self, parameters: Mapping[str, Tensor]) -> list[ModelFigure]:
        """The mesh with its sensors, the field, and the material's parameters where they differ over the mesh."""
        words = self.named
        found = [*self.maps(), *_drawn(self.mesh, self._final(parameters), words.field, words.units)]
        for name, values in self._cell_values(parameters).items():
            if float(values.max()) > float(values.min()):
                found += _drawn(self.mesh, values, name, self.fields[name].default.units)
        return found


def _drawn(mesh: Mesh, values: Tensor, name: str, units: str) -> list[ModelFigure]:
    title = name.replace("_", " ")
    return draw_field(mesh, values.numpy(), f"{title} [{units or '-'}]", title[:1].upper() + title[1:])


def _merged(params: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    return {n: {**params[n], **v} if isinstance(v, Mapping) and n in params else v for n, v in others.items()}


class _Flow(Diffusion):
    """Diffusion that stores by a capacity of any name."""

    def __init__(self, *args: Any, capacity: str, **options: Any) -> None:
        self.capacity = capacity  # type: ignore[misc]
        super().__init__(*args, **options)
