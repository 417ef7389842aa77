"""The section `mesh:` of a study: a file with named groups, or a shape made on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator

from bilevel.calibrate.model import ConfigError
from bilevel.calibrate.study.section import Section
from bilevel.calibrate.study.units import parse_unit
from bilevel.report import InputError
from physics.discretisation import Mesh, Shape, box, rectangle
from physics.discretisation.read import read_mesh


class MeshSection(Section):
    """A mesh file, or a rectangle or box; a bare text is a file."""

    file: str | None = None
    """a file that meshio reads (gmsh, VTU, Abaqus, Exodus), beside the study"""
    lengths: list[float] | None = Field(default=None, min_length=2, max_length=3)
    """of the sides of a rectangle or box; boundaries left and right (x), bottom and top (y), front and back (z)"""
    cells: list[int] | None = Field(default=None, min_length=2, max_length=3)
    """along its sides"""
    origin: list[float] | None = Field(default=None, min_length=2, max_length=3)
    """its corner of least coordinates"""
    triangles: bool = False
    """whether its cells are cut into triangles or tetrahedra"""
    units: str = "m"
    """of lengths in the file or here"""
    order: Literal[1, 2] | None = None
    """2 makes linear cells quadratic"""
    plane: Literal["xy", "xz", "yz"] = "xy"
    """in which the cells of a plane mesh lie"""
    coincident: Literal["refuse", "merge", "keep"] = "refuse"
    """what becomes of different nodes in one place"""
    hanging: bool = False
    """whether nodes may hang on sides of larger cells; they are tied to them"""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, given: Any) -> Any:
        return {"file": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _one(self) -> MeshSection:
        if (self.file is None) == (self.lengths is None):
            raise ValueError("give a file, or lengths and cells of a rectangle or box")
        if self.lengths is not None and (self.cells is None or len(self.cells) != len(self.lengths)):
            raise ValueError("cells needs one number for each of lengths")
        if self.lengths is not None and (min(self.lengths) <= 0 or min(self.cells or [1]) < 1):
            raise ValueError("lengths must be positive, and cells at least 1")
        return self

    def read(self, folder: Path, key: str = "mesh") -> Mesh:
        """The mesh, in metres; ConfigError where there is none."""
        try:
            scale = parse_unit(self.units).to(parse_unit("m")).scale
        except InputError as error:
            raise ConfigError((key, "units"), str(error)) from None
        if self.file is None:
            return self._made(scale)
        try:
            return read_mesh(
                folder / self.file,
                self.order,
                plane=self.plane,
                coincident=self.coincident,
                scale=scale,
                hanging=self.hanging,
            )
        except InputError as error:
            raise ConfigError((key,), str(error)) from None

    def _made(self, scale: float) -> Mesh:
        assert self.lengths is not None
        assert self.cells is not None
        lengths, origin = (
            [scale * x for x in self.lengths],
            [scale * x for x in self.origin or [0.0] * len(self.lengths)],
        )
        if len(lengths) == 2:
            shape = Shape.TRIANGLE if self.triangles else Shape.QUADRILATERAL
            mesh = rectangle(self.cells[0], self.cells[1], (lengths[0], lengths[1]), shape, self.order or 1)
        else:
            shape = Shape.TETRAHEDRON if self.triangles else Shape.HEXAHEDRON
            mesh = box(
                self.cells[0],
                self.cells[1],
                self.cells[2],
                (lengths[0], lengths[1], lengths[2]),
                shape,
                self.order or 1,
            )
        return mesh.moved(mesh.coordinates + torch.tensor(origin, dtype=torch.float64))


def require_boundary(mesh: Mesh, name: str, key: tuple[str | int, ...], points: bool = False) -> None:
    """ConfigError where the mesh has no boundary (or set of points) of that name."""
    known = [*mesh.boundaries, *(mesh.point_sets if points else ())]
    if name not in known:
        raise ConfigError(key, f"the mesh has no boundary '{name}'; it has {', '.join(sorted(known)) or 'none'}")
