"""What holds and what loads a solid body: supports and loads by the names of boundaries, constant or in time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import model_validator
from torch import Tensor

from bilevel.calibrate.model import ConfigError
from bilevel.calibrate.study.section import Section
from physics.discretisation import Mesh
from physics.discretisation.constraints import Dirichlet
from physics.solids.loads import BodyForce, Load, Traction
from physics.studies.on_mesh.mesh_section import require_boundary
from physics.studies.on_mesh.quantities import Given, Key, Signal
from physics.studies.on_mesh.sensors import AXES


class Components(Section):
    """A vector by its components along the axes; those left out are free (of supports) or zero (of loads)."""

    x: Given | None = None
    """along x; the radius, where the body is axisymmetric"""
    y: Given | None = None
    """along y; the axis, where the body is axisymmetric"""
    z: Given | None = None
    """along z, in space"""

    def given(self) -> dict[int, Given]:
        """The components that are there, by number."""
        return {number: given for number, given in enumerate((self.x, self.y, self.z)) if given is not None}


class LoadSection(Components):
    """A load by area of the undeformed boundary: components of a traction, or a pressure against it."""

    pressure: Given | None = None
    """against the boundary, from outside"""

    @model_validator(mode="after")
    def _one(self) -> LoadSection:
        if (self.pressure is None) == (not self.given()):
            raise ValueError("give components x, y, z, or a pressure")
        return self


@dataclass(frozen=True)
class _Applied:
    """A load, the signals of its components, and of a pressure its directions (facets, dim)."""

    load: Load
    signals: dict[int, Signal]
    directions: Tensor | None = None


class BodyLoading:
    """Supports and loads of a body, and their values in time."""

    def __init__(
        self,
        mesh: Mesh,
        folder: Path,
        supports: Mapping[str, Components],
        loads: Mapping[str, LoadSection],
        gravity: Components | None,
    ) -> None:
        """ConfigError, with the key, for boundaries that the mesh does not have and for axes beyond it."""
        self.mesh, self.folder = mesh, folder
        self.supports = self._supports(supports)
        self.applied = [self._load(name, section) for name, section in loads.items()]
        if gravity is not None:
            self.applied.append(_Applied(BodyForce("gravity"), self._vector(gravity, "N/m3", ("gravity",))))

    @property
    def constraints(self) -> list[Dirichlet]:
        return [constraint for constraint, _ in self.supports]

    @property
    def loads(self) -> list[Load]:
        return [applied.load for applied in self.applied]

    @property
    def signals(self) -> list[Signal]:
        """All quantities that drive the body."""
        loads = [signal for applied in self.applied for signal in applied.signals.values()]
        return [*(signal for _, signal in self.supports), *loads]

    def at(self, times: Any, parameters: Mapping[str, Tensor]) -> dict[str, Any]:
        """Loads and prescribed displacements as a solid's parameters, with one leading entry for each time if there are times."""
        found: dict[str, Any] = {"boundary": {held.name: s.at(times, parameters) for held, s in self.supports}}
        for applied in self.applied:
            values = {number: signal.at(times, parameters) for number, signal in applied.signals.items()}
            if applied.directions is not None:
                found[applied.load.name] = values[0][..., None, None] * applied.directions
                continue
            zero = torch.zeros_like(next(iter(values.values())))
            found[applied.load.name] = torch.stack([values.get(number, zero) for number in range(self.mesh.dim)], -1)
        return found

    def _supports(self, supports: Mapping[str, Components]) -> list[tuple[Dirichlet, Signal]]:
        """Prescribed components; where two supports meet, the first one listed holds."""
        taken: list[Tensor] = [torch.zeros(0, dtype=torch.long) for _ in range(self.mesh.dim)]
        found = []
        for name, components in supports.items():
            require_boundary(self.mesh, name, ("supports", name), points=True)
            for number, signal in self._vector(components, "m", ("supports", name)).items():
                nodes = self.mesh.nodes_on(name)
                nodes = nodes[~torch.isin(nodes, taken[number])]
                taken[number] = torch.cat((taken[number], nodes))
                if len(nodes):
                    found.append((Dirichlet(f"{name}.{AXES[number]}", nodes, [number]), signal))
        return found

    def _load(self, name: str, section: LoadSection) -> _Applied:
        require_boundary(self.mesh, name, ("loads", name))
        load = Traction(f"load_{name}", name)
        if section.pressure is None:
            return _Applied(load, self._vector(section, "Pa", ("loads", name)))
        signal = Signal.read(section.pressure, "Pa", self.folder, ("loads", name, "pressure"))
        return _Applied(load, {0: signal}, -self.mesh.facet_normals(self.mesh.boundary(name)))

    def _vector(self, section: Components, units: str, key: Key) -> dict[int, Signal]:
        given = section.given()
        if not given:
            raise ConfigError(key, f"give its components, such as {{y: 0 {units}}}")
        for number in given:
            if number >= self.mesh.dim:
                raise ConfigError((*key, AXES[number]), f"the mesh has {self.mesh.dim} dimensions")
        return {n: Signal.read(g, units, self.folder, (*key, AXES[n])) for n, g in given.items()}
