"""The section `spread:` of a study: how the parameters of the material are laid out over the mesh."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import RootModel

from bilevel.calibrate.model import ConfigError, ParameterDefault
from bilevel.calibrate.study.validated import hint
from physics.discretisation import Mesh
from physics.studies.on_mesh.zones import Field, ZoneField, Zones, cell_field

Layout = Literal["uniform", "zones", "cells"]


class SpreadSection(RootModel[dict[str, Layout]]):
    """For each parameter of the material: uniform (one value), zones (one a zone, called name[zone]) or cells."""

    def by_zone(self) -> bool:
        """Whether any parameter has one value a zone."""
        return "zones" in self.root.values()

    def fields(
        self, material: Mapping[str, ParameterDefault], mesh: Mesh, zones: Zones | None, folder: Path
    ) -> dict[str, Field]:
        """How each parameter of the material is spread; ConfigError for a name that is none of them."""
        for name in self.root:
            if name not in material:
                raise ConfigError(("spread",), f"the material has no parameter '{name}'{hint(name, material)}")
        return {name: self._field(name, default, mesh, zones) for name, default in material.items()}

    def _field(self, name: str, default: ParameterDefault, mesh: Mesh, zones: Zones | None) -> Field:
        layout = self.root.get(name, "uniform")
        if layout == "zones":
            assert zones is not None
            return ZoneField(name, default, zones)
        return cell_field(name, default, len(mesh.cells)) if layout == "cells" else Field(name, default)
