"""What `kind: darcy` and `kind: heat` share: a scalar field on a mesh, steady or in time, driven by boundaries and sources."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bilevel.calibrate.model import ConfigError, ModelFigure, ParameterDefault
from bilevel.calibrate.observations import ObservationTable
from bilevel.problem import Params
from bilevel.report import InputError
from physics.constitutive.flow.anisotropic import AnisotropicConduction
from physics.constitutive.flow.linear import Linear
from physics.discretisation import Mesh
from physics.discretisation.constraints import Dirichlet
from physics.flow.darcy import Diffusion
from physics.flow.linear_steady import LinearSteady
from physics.flow.linear_system import LinearSystem
from physics.studies.on_mesh.drives import Boundaries, Words, driven, read_drives
from physics.studies.on_mesh.field_history import FieldHistory
from physics.studies.on_mesh.field_readings import FieldReadings, conditions_on
from physics.studies.on_mesh.map import draw_map
from physics.studies.on_mesh.mesh_model import MeshModel
from physics.studies.on_mesh.mesh_section import require_boundary
from physics.studies.on_mesh.quantities import Given, Signal, quantity
from physics.studies.on_mesh.sensors import Readable, named_sensors, observed
from physics.studies.on_mesh.spread import spread_fields
from physics.studies.on_mesh.time_section import InTime, reading_times
from physics.studies.on_mesh.zones import Zones


class DiffusionModel(MeshModel):
    """A field on a mesh; each row is the reading of a sensor, in SI units."""

    @abstractmethod
    def words(self) -> Words:
        """Names and units for the geometry at hand."""

    @abstractmethod
    def boundaries(self) -> Boundaries:
        """The keys by what they do."""

    def __init__(self, config: Any, observations: ObservationTable, folder: Path) -> None:
        super().__init__(config, observations, folder)
        self.mesh = config.mesh.read(folder)
        if self.mesh.dim != (3 if config.geometry == "space" else 2):
            raise ConfigError(
                ("geometry",), f"'{config.geometry}' does not go with a mesh in {self.mesh.dim} dimensions"
            )
        self.named, self.keys = self.words(), self.boundaries()
        self.zones = Zones.of(self.mesh, config.zones) if config.zones or self._by_zone() else None
        self.fields = spread_fields(config.spread, self._material(), self.mesh, self.zones, folder)
        self.drives = read_drives(self.keys, self.named, self.mesh, self.zones, folder)
        jumps = [t for signal in self._signals() for t in signal.jumps]
        steps = None if config.time is None else config.time.times(self.named.time, jumps)
        self.initial = self._initial()
        self.flow = flow = self._flow(transient=steps is not None and self.initial is not None)
        self.system = system = LinearSystem(flow)
        matrix = flow.constraints.matrix
        self.steady = LinearSteady(system.places[0], matrix) if self.initial is None else None
        self._require_tables(None if steps is None else steps.times)
        self.history = None if steps is None else FieldHistory(flow, system, self.drives, steps)
        points = {} if config.points is None else config.points.places(folder, self.mesh.dim, ("points",))
        named = named_sensors(config.sensors, points, self.quantities(), self.mesh.dim)
        for name, (reading, _) in named.items():
            if reading.boundary:
                require_boundary(self.mesh, reading.boundary, ("sensors", name, "through"))
                conditions_on(reading.boundary, self.drives, ("sensors", name, "through"))
        self.sensors = observed(observations, named, self.quantities(), self.mesh.dim)
        self.read = FieldReadings(self.mesh, system, self.sensors, self.drives)
        if steps is not None:
            self.in_time = InTime.of(steps.times, jumps, reading_times(observations, steps.times, self.named.time))

    def _by_zone(self) -> bool:
        zoned = any(section.layout == "zones" for section in self.config.spread.values())
        return zoned or any(name != "all" for name in self.keys.sources)

    def _material(self) -> dict[str, ParameterDefault]:
        """The parameters of the material that are in use."""
        known = {**self.named.material, "anisotropy": ParameterDefault("", lower=0.0, transform="log")}
        names = [self.named.coefficient, *(["anisotropy"] if self.config.anisotropic else [])]
        return {name: known[name] for name in [*names, *([self.named.capacity] if self.config.time else [])]}

    def _initial(self) -> Signal | None:
        """The uniform field at the start, or None where it begins from its steady state."""
        given = self.config.initial
        if given == "steady":
            return None
        if self.config.time is None:
            raise ConfigError(("initial",), "there is no initial state without `time:`")
        return Signal.read(Given(quantity=given), self.named.units, self.folder, ("initial",))

    def _signals(self) -> list[Signal]:
        return [signal for drive in self.drives for signal in drive.signals]

    def _flow(self, transient: bool) -> Diffusion:
        law: Any = Linear(self.named.coefficient, "")
        if self.config.anisotropic:
            turn = quantity(self.config.direction, "rad", ("direction",))
            if turn and self.mesh.dim == 3:
                raise ConfigError(("direction",), "in space the principal directions are the axes; leave it out")
            law = AnisotropicConduction(self.named.coefficient, "", self.mesh.dim, turn)
        ties = self.mesh.hanging_ties() if self.config.mesh.hanging else []
        names = list(self.keys.prescribed)
        # Where two boundaries with prescribed values meet, the first one holds.
        held: list[Dirichlet] = [self.mesh.fixed(name, without=names[:number]) for number, name in enumerate(names)]
        try:
            return _Flow(
                self.mesh,
                [*held, *ties],
                capacity=self.named.capacity,
                law=law,
                axisymmetric=self.config.geometry == "axisymmetric",
                leaky=self.keys.leakage is not None,
                transient=transient,
                inflow=list(self.keys.inflow),
                exchange=list(self.keys.exchange),
                wells=self.mesh.locate(self._wells()) if self.keys.wells else None,
            )
        except InputError as error:
            raise ConfigError(("boundaries",), str(error)) from None

    def _wells(self) -> list[list[float]]:
        """The places of wells; ConfigError for those outside the mesh."""
        places = []
        for key, at, _ in self.keys.wells.values():
            if len(at) != self.mesh.dim:
                raise ConfigError((*key, "at"), f"the mesh has {self.mesh.dim} dimensions, the place has {len(at)}")
            places.append([quantity(x, "m", (*key, "at", i)) for i, x in enumerate(at)])
            try:
                self.mesh.locate([places[-1]])
            except InputError as error:
                raise ConfigError((*key, "at"), str(error)) from None
        return places

    def _require_tables(self, times: np.ndarray | None) -> None:
        """Tables must be wanted, and cover the steps; found out now, with the line of their key."""
        for signal in self._signals():
            if signal.varies and times is None:
                raise ConfigError(signal.key, "a table over time needs `time:` among the model's keys")
            if signal.varies and signal.key[-1] in ("coefficient", "resistance"):
                raise ConfigError(signal.key, "it may not vary in time; let the other side's value do that")
            if signal.varies:
                signal.at(times, {})

    def quantities(self) -> dict[str, Readable]:
        """What sensors may read."""
        words = self.named
        return {words.field: Readable(words.units), words.through: Readable(words.discharge, through=True)}

    def parameter_defaults(self) -> Mapping[str, ParameterDefault]:
        found = {name: default for field in self.fields.values() for name, default in field.defaults().items()}
        for signal in [*self._signals(), *([self.initial] if self.initial else [])]:
            for name, default in signal.default().items():
                if found.setdefault(name, default).units != default.units:
                    raise ConfigError(signal.key, f"parameter '{name}' is in {found[name].units} elsewhere")
        return found

    def _steady_state(
        self, material: Mapping[str, Any], parameters: Mapping[str, Tensor], time: np.ndarray | None
    ) -> tuple[Tensor, Params]:
        """The steady field (nodes,) at a time, and the parameters under which it is so."""
        assert self.steady is not None
        params = {"flow": material["flow"], **driven(self.drives, time, parameters)}
        held = self.flow.expand(self.flow.start(), params)[:, 0]
        return self.steady(self.system.stiffness(params), self.system.load(params), held), params

    def _fields(self, parameters: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None, Params]:
        """The field (nodes,), or fields (steps + 1, nodes) with their rates, and the parameters that go with them."""
        values = {name: field.values(parameters) for name, field in self.fields.items()}
        storage = {self.named.capacity: values.pop(self.named.capacity, None)}
        material = {"flow": values, "storage": storage}
        if self.history is None:
            field, params = self._steady_state(material, parameters, None)
            return field, None, params
        if self.initial is None:
            first = self._steady_state(material, parameters, self.history.steps.times[0])[0]
        else:
            first = self.initial.at(None, parameters).expand(len(self.mesh.coordinates))
        return self.history(material, first, parameters)

    def simulate(self, parameters: Mapping[str, Tensor]) -> Tensor:
        read = self.read(*self._fields(parameters))
        first, second = self.sensors.first, self.sensors.second.clamp(min=0)
        if self.history is None:
            return self.sensors.predictions(torch.stack((read[first], read[second]), 1))
        return self.sensors.predictions(torch.stack((self.in_time(read, first), self.in_time(read, second)), 1))

    def nodal_fields(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The field: the steady one, or that after the last step."""
        fields = self._fields(parameters)[0]
        return {self.named.field: fields if self.history is None else fields[-1]}

    @property
    def drawn_units(self) -> Mapping[str, str]:
        return {self.named.field: self.named.units}

    @property
    def state_file(self) -> str:  # type: ignore[override]
        return f"{self.named.field}.vtu"

    def maps(self) -> list[ModelFigure]:
        """The mesh with its zones, boundaries, sensors and wells."""
        return draw_map(self.mesh, {"sensors": self.sensors.points(), "wells": np.array(self._wells())})


class _Flow(Diffusion):
    """Diffusion that stores by a capacity of any name."""

    def __init__(self, mesh: Mesh, constraints: Sequence[Any], *, capacity: str, **options: Any) -> None:
        self.capacity = capacity  # type: ignore[misc]
        super().__init__(mesh, constraints, **options)
