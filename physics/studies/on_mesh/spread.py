"""The section `spread:` of a study: how each parameter of the material is laid out over the mesh."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field as Key
from pydantic import model_validator

from bilevel.calibrate.model import ConfigError, ParameterDefault
from bilevel.calibrate.study.section import Section
from bilevel.calibrate.study.validated import hint
from physics.discretisation import Mesh
from physics.studies.on_mesh.fields import CellField, PilotField
from physics.studies.on_mesh.quantities import quantity
from physics.studies.on_mesh.sensors import PointsSection
from physics.studies.on_mesh.zones import Field, ZoneField, Zones


class SpreadSection(Section):
    """How one parameter is laid out over the mesh, and what is known of it beforehand; a bare text is the layout."""

    layout: Literal["uniform", "zones", "cells", "pilot_points"]
    """one value; one a zone, called name[zone]; one a cell; or one a pilot point, with kriging in between"""
    points: PointsSection | None = None
    """the pilot points; the parameter's values come in their order"""
    correlation_length: str | None = None
    """of the exponential covariance between pilot points; of cells: over which correlation falls to 0.14 (Matern)"""
    reference: str | None = None
    """a value that the field is near, where nothing else is known"""
    std: float | None = Key(default=None, gt=0)
    """standard deviation of the field's natural logarithm about the reference (its covariance, at pilot points)"""
    roughness: float | None = Key(default=None, gt=0)
    """of cells: standard deviation of what `order` says between neighbours, as natural logarithms"""
    order: Literal[1, 2] = 1
    """1: neighbours are alike; 2: each cell is the mean of its neighbours"""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, given: Any) -> Any:
        return {"layout": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _complete(self) -> SpreadSection:
        pilot = self.layout == "pilot_points"
        if pilot != (self.points is not None) or (pilot and self.correlation_length is None):
            raise ValueError("points and correlation_length belong to the layout pilot_points, which needs both")
        if self.layout in ("uniform", "zones") and self.correlation_length is not None:
            raise ValueError("correlation_length is of pilot_points or cells")
        if self.layout == "cells" and self.correlation_length is not None and self.std is None:
            raise ValueError("correlation_length of cells needs reference and std")
        if (self.reference is None) != (self.std is None):
            raise ValueError("reference and std go together")
        if self.reference is not None and self.layout not in ("cells", "pilot_points"):
            raise ValueError("give a uniform or zoned parameter prior_mean and prior_std under parameters")
        if self.roughness is not None and self.layout != "cells":
            raise ValueError("roughness is of a layout of cells")
        return self

    def field(
        self, name: str, default: ParameterDefault, mesh: Mesh, zones: Zones | None, folder: Path
    ) -> Field | CellField | PilotField:
        """The parameter over the mesh; ConfigError with the key that is wrong."""
        key = ("spread", name)
        if self.layout == "uniform":
            return Field(name, default)
        if self.layout == "zones":
            assert zones is not None
            return ZoneField(name, default, zones)
        reference = (
            None if self.reference is None else quantity(self.reference, default.units or "", (*key, "reference"))
        )
        if reference is not None and not reference > 0:
            raise ConfigError((*key, "reference"), "it must be positive")
        length = self._length((*key, "correlation_length"))
        if self.layout == "cells":
            return CellField.over(mesh, name, default, zones, reference, self.std, self.roughness, self.order, length)
        assert self.points is not None
        assert length is not None
        points = self.points.places(folder, mesh.dim, (*key, "points"))
        return PilotField.over(mesh, name, default, points, length, reference, self.std)

    def _length(self, key: tuple[str | int, ...]) -> float | None:
        if self.correlation_length is None:
            return None
        length = quantity(self.correlation_length, "m", key)
        if not length > 0:
            raise ConfigError(key, "it must be positive")
        return length


def spread_fields(
    sections: Mapping[str, SpreadSection],
    material: Mapping[str, ParameterDefault],
    mesh: Mesh,
    zones: Zones | None,
    folder: Path,
) -> dict[str, Field | CellField | PilotField]:
    """Every parameter of the material over the mesh; ConfigError for a name that is none of them."""
    for name in sections:
        if name not in material:
            raise ConfigError(("spread", name), f"the material has no such parameter{hint(name, material)}")
    uniform = SpreadSection(layout="uniform")
    return {n: sections.get(n, uniform).field(n, default, mesh, zones, folder) for n, default in material.items()}
