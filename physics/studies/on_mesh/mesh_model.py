"""What models on meshes share once they have a state: its files and its pictures."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from bilevel.calibrate.field_prior import FieldPrior
from bilevel.calibrate.model import Model, ModelFigure
from physics.discretisation import Mesh
from physics.discretisation.write import write_vtu
from physics.studies.on_mesh.fields import CellField, PilotField
from physics.studies.on_mesh.map import draw_field
from physics.studies.on_mesh.zones import Field


class MeshModel(Model):
    """A model on a mesh, with fields of parameters on its cells.

    state_file: the name of the VTU that the state is written to.
    """

    columns: ClassVar[Mapping[str, str]] = {"sensor": "text"}
    value_units = None
    state_file: str
    mesh: Mesh
    fields: Mapping[str, Field | CellField | PilotField]

    @property
    @abstractmethod
    def drawn_units(self) -> Mapping[str, str]:
        """The fields at the nodes that are drawn, and their units."""

    @abstractmethod
    def nodal_fields(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state at the nodes, after the last step, by name."""

    def cell_fields(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The material's parameters on the cells."""
        return {name: field.values(parameters).expand(len(self.mesh.cells)) for name, field in self.fields.items()}

    def state_fields(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state at the nodes, after the last step, and the material's parameters on the cells."""
        return self.nodal_fields(parameters) | self.cell_fields(parameters)

    def field_priors(self) -> list[FieldPrior]:
        return [prior for field in self.fields.values() for prior in field.priors()]

    def write_state(self, parameters: Mapping[str, Tensor], folder: Path) -> list[Path]:
        with torch.no_grad():
            return [self._write(self.state_fields(parameters), folder / self.state_file)]

    def write_deviations(self, deviations: Mapping[str, Tensor], folder: Path) -> list[Path]:
        return [self._write(deviations, folder / "standard_deviations.vtu")]

    def _write(self, fields: Mapping[str, Tensor], path: Path) -> Path:
        nodal, cells = ({n: f for n, f in fields.items() if (n in self.fields) is own} for own in (False, True))
        return write_vtu(path, self.mesh, nodal, cells)

    @torch.no_grad()
    def figures(self, parameters: Mapping[str, Tensor]) -> list[ModelFigure]:
        """The mesh with its sensors, the state, and the material's parameters where they differ over the mesh."""
        fields = self.state_fields(parameters)
        return self.maps() + self._drawn({n: f for n, f in fields.items() if float(f.max()) > float(f.min())})

    def deviation_figures(self, deviations: Mapping[str, Tensor]) -> list[ModelFigure]:
        return self._drawn(deviations, deviation=True)

    def _drawn(self, fields: Mapping[str, Tensor], deviation: bool = False) -> list[ModelFigure]:
        units = {**self.drawn_units, **{name: field.default.units or "" for name, field in self.fields.items()}}
        drawn = {name: values for name, values in fields.items() if name in units}
        return [f for n, values in drawn.items() for f in draw_field(self.mesh, values, n, units[n], deviation)]
