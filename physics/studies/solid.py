"""The study model `solid`: a solid body on a mesh of one's own, elastic or inelastic, under one load or a history of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from bilevel.acceleration.study_family import GuessableSolve
from bilevel.calibrate.model import ConfigError, ModelFigure, ModelReports, ParameterDefault
from bilevel.calibrate.observations import ObservationTable
from bilevel.report import InputError, Solution
from physics.constitutive.inelastic.law import InelasticLaw
from physics.constitutive.inelastic.zoned import ZonedLaw
from physics.constitutive.kinematics import Kinematics
from physics.solids.history import load_history
from physics.solids.solid import InelasticSolid, Solid
from physics.studies.law_parameters import parameter_defaults
from physics.studies.on_mesh.body_law import BodyLaw, body_law, zoned_law
from physics.studies.on_mesh.body_readings import BodyReadings, Camera, readable
from physics.studies.on_mesh.equilibria import BodyEquilibria
from physics.studies.on_mesh.ground import Ground
from physics.studies.on_mesh.loading import BodyLoading
from physics.studies.on_mesh.map import draw_map
from physics.studies.on_mesh.mesh_model import MeshModel
from physics.studies.on_mesh.mesh_section import require_boundary
from physics.studies.on_mesh.quantities import quantity
from physics.studies.on_mesh.sensors import Readable, named_sensors, observed
from physics.studies.on_mesh.spread import spread_fields
from physics.studies.on_mesh.time_section import InTime, reading_times
from physics.studies.on_mesh.zones import Zones
from physics.studies.solid_keys import SolidConfig

KINEMATICS = {
    "plane_strain": Kinematics.PLANE_STRAIN,
    "plane_stress": Kinematics.PLANE_STRESS,
    "axisymmetric": Kinematics.AXISYMMETRIC,
    "space": Kinematics.THREE_DIMENSIONAL,
}


class SolidModel(MeshModel):
    """Displacements and strains of points, and forces of supports, of a solid body under loads.

    Each row is a reading: its `sensor` is one of `sensors`, or `ux`, `uy`, `uz` at the row's own x, y (z): a field. Strains
    exx, eyy, exy (half the shear angle) ... are small ones, of the displacement's gradient. To fields of displacements, and
    to them alone, the rigid motion of the camera is added: translation_x, translation_y and a small rotation,
    0 unless the study has these parameters. With `time:`, loads are tables over a time that may be one of steps, and rows
    have a time, too. The other parameters are the law's own, and any name that stands in place of a quantity.
    """

    Config = SolidConfig
    optional_columns: ClassVar[Mapping[str, str]] = {"time": "", "x": "m", "y": "m", "z": "m"}
    state_file = "solid.vtu"
    drawn_units: ClassVar[Mapping[str, str]] = {"displacement": "m"}  # type: ignore[misc]

    def __init__(self, config: SolidConfig, observations: ObservationTable, folder: Path) -> None:
        super().__init__(config, observations, folder)
        self.mesh = config.mesh.read(folder)
        self.kinematics = KINEMATICS[config.kinematics]
        if self.kinematics.dim != self.mesh.dim:
            raise ConfigError(
                ("kinematics",), f"'{config.kinematics}' does not go with a mesh in {self.mesh.dim} dimensions"
            )
        self.material = self._law()
        self.law = self.material.law
        self.thickness = 1.0 if self.kinematics.dim == 3 else quantity(config.thickness, "m", ("thickness",))
        zoned = any(section.layout == "zones" for section in config.spread.values())
        self.zones = Zones.of(self.mesh, config.zones) if config.zones or zoned else None
        material = parameter_defaults(self.material.parameters)
        self.fields = spread_fields(config.spread, material, self.mesh, self.zones, folder)
        self.loading = BodyLoading(self.mesh, folder, config.supports, config.loads, config.gravity)
        self.ground = None if config.geostatic is None else Ground(config.geostatic, self.mesh, folder)
        elastic = self.law.elastic if isinstance(self.law, ZonedLaw) else not isinstance(self.law, InelasticLaw)
        if self.ground is not None and elastic:
            raise ConfigError(
                ("geostatic",), "an elastic law has no initial stress; its displacements need no geostatic one"
            )
        self.solid = self._solid()
        self.equilibria = BodyEquilibria(self.solid, config.law, folder, config.solver, config.follow_path)
        if config.solver == "learned" and config.time is not None:
            raise ConfigError(("solver",), "a history of loads begins each step at the one before, not at a guess")
        self.positions = self.mesh.operator(axisymmetric=config.kinematics == "axisymmetric").positions()
        self.steps = self._steps()
        self._prepare_sensors()
        self._solutions: list[Solution] = []

    def _law(self) -> BodyLaw:
        config = self.config
        if not config.laws:
            return body_law(config.law, config.hardening, config.terms)
        if "law" in config.model_fields_set or config.terms is not None:
            raise ConfigError(("laws",), "give one law (and its terms), or laws by zone")
        return zoned_law(config.laws, config.hardening, self.mesh)

    def _solid(self) -> Solid:
        ties = self.mesh.hanging_ties(self.mesh.dim) if self.config.mesh.hanging else []
        constraints = [*self.loading.constraints, *ties]
        try:
            return Solid(
                self.mesh,
                self.law,
                self.kinematics,
                constraints,
                [*self.loading.loads, *([self.ground.load] if self.ground else [])],
                mean_dilatation=self.config.mean_dilatation,
            )
        except InputError as error:
            raise ConfigError(("supports",), str(error)) from None

    def _steps(self) -> np.ndarray | None:
        """The ends of load steps, which are also where a table turns; None for one load."""
        turns = sorted({float(t) for s in self.loading.signals if s.times is not None for t in s.times})
        if self.config.time is None:
            for signal in self.loading.signals:
                if signal.varies:
                    raise ConfigError(signal.key, "a table over time needs `time:` among the model's keys")
            return None
        times = self.config.time.times("", turns).times
        for signal in self.loading.signals:
            if signal.varies:
                signal.at(times, {})
        self.turns = turns
        return times

    # What is observed

    def quantities(self) -> dict[str, Readable]:
        """What sensors may read."""
        return readable(self.mesh.dim, self.kinematics is Kinematics.AXISYMMETRIC)

    def _prepare_sensors(self) -> None:
        config, table, dim = self.config, self.observations, self.mesh.dim
        points = {} if config.points is None else config.points.places(self.folder, dim, ("points",))
        named = named_sensors(config.sensors, points, self.quantities(), dim)
        for name, (reading, _) in named.items():
            if reading.boundary:
                require_boundary(self.mesh, reading.boundary, ("sensors", name, "through"), points=True)
        self.sensors = observed(table, named, self.quantities(), dim)
        self.readings = BodyReadings(self.mesh, self.sensors, self.thickness, config.tolerance)
        self.camera = Camera(table, self.sensors)
        if self.steps is not None:
            self.in_time = InTime.of(self.steps, self.turns, reading_times(table, self.steps, ""))

    # The model

    def parameter_defaults(self) -> Mapping[str, ParameterDefault]:
        found = {name: default for field in self.fields.values() for name, default in field.defaults().items()}
        for signal in [*self.loading.signals, *(self.ground.signals if self.ground else [])]:
            for name, default in signal.default().items():
                if found.setdefault(name, default).units != default.units:
                    raise ConfigError(signal.key, f"parameter '{name}' is in {found[name].units} elsewhere")
        camera = ParameterDefault("m", value=0.0, description="of the camera; nuisance")
        turned = replace(camera, units="", description="of the camera, anticlockwise, in rad; nuisance")
        return found | {"translation_x": camera, "translation_y": camera, "rotation": turned}

    def _history(self, parameters: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Displacements and reactions, (nodes, dim) or (steps + 1, nodes, dim)."""
        self._solutions.clear()
        if self.steps is None and not isinstance(self.solid, InelasticSolid):
            params = self._params(parameters)
            solution = self.equilibria.solve(params)
            self._solutions.append(solution)
            return self.solid.expand(solution.u, params), self.solid.reactions(solution.u, params)
        times = None if self.steps is None else self.steps[1:]
        driven = self.loading.at(times, parameters)
        if times is None:
            driven = {
                n: {m: x[None] for m, x in v.items()} if isinstance(v, dict) else v[None] for n, v in driven.items()
            }
        constant = {"material": self._material(parameters), **self._at_rest(parameters)}
        found = load_history(self.solid, constant, driven, watch=self._solutions.append)
        if times is None:
            return found.displacement[0], found.reactions[0]
        rest = torch.zeros_like(found.displacement[:1])
        return torch.cat((rest, found.displacement)), torch.cat((rest, found.reactions))

    def _material(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: field.values(parameters) for name, field in self.fields.items()} | self.material.constants

    def _params(self, parameters: Mapping[str, Tensor]) -> dict[str, Any]:
        """The body's parameters under one load."""
        return {"material": self._material(parameters), **self.loading.at(None, parameters)}

    @property
    def guess_name(self) -> str:
        return self.equilibria.name

    def equilibrium(self, parameters: Mapping[str, Tensor]) -> GuessableSolve:
        """The one solve of an elastic body, for a guess to be trained on."""
        if self.steps is not None:
            raise InputError("a history of loads begins each step at the one before; guesses are for one load")
        return self.equilibria.at(self._params(parameters))

    def _at_rest(self, parameters: Mapping[str, Tensor]) -> dict[str, Any]:
        """Weight and state of the ground before the first load."""
        if self.ground is None:
            return {}
        assert isinstance(self.solid, InelasticSolid)
        state = self.solid.law.initial_state(self.ground.stress(self.positions, parameters))
        return {"ground": self.ground.weight(parameters), "begin": self.solid.begin(state)}

    def simulate(self, parameters: Mapping[str, Tensor]) -> Tensor:
        read = self.readings(*self._history(parameters))
        first, second = self.sensors.first, self.sensors.second.clamp(min=0)
        pair = (
            (read[first], read[second])
            if self.steps is None
            else (self.in_time(read, first), self.in_time(read, second))
        )
        return self.sensors.predictions(torch.stack(pair, 1)) + self.camera(parameters)

    def reports(self) -> ModelReports:
        gradients = [gradient for solution in self._solutions for gradient in solution.gradients]
        return ModelReports([solution.report for solution in self._solutions], gradients)

    def nodal_fields(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Displacement and reactions, after the last step."""
        found = self._history(parameters)
        last = found if self.steps is None else (found[0][-1], found[1][-1])
        return dict(zip(("displacement", "reaction"), last))

    def maps(self) -> list[ModelFigure]:
        """The mesh with its zones, boundaries and sensors."""
        return draw_map(self.mesh, {"sensors": np.unique(self.readings.places, axis=0)[:500]})
