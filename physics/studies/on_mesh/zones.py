"""Parameters of a material over a mesh: one for all, or one for each zone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bilevel.calibrate.field_prior import FieldPrior
from bilevel.calibrate.model import ConfigError, ParameterDefault
from physics.discretisation import Mesh


@dataclass(frozen=True)
class Zones:
    """Zones that share out the cells of a mesh: names, and the zone of each cell (cells,)."""

    names: tuple[str, ...]
    of_cell: Tensor

    @staticmethod
    def of(mesh: Mesh, names: Sequence[str] | None, key: tuple[str | int, ...] = ("zones",)) -> Zones:
        """The regions of a mesh with these names, by default all; ConfigError where they leave cells out or overlap."""
        chosen = tuple(mesh.regions) if names is None else tuple(names)
        unknown = [name for name in chosen if name not in mesh.regions]
        if unknown:
            raise ConfigError(key, f"the mesh has no zone '{unknown[0]}'; it has {', '.join(mesh.regions) or 'none'}")
        count, of_cell = np.zeros(len(mesh.cells), dtype=int), np.zeros(len(mesh.cells), dtype=np.int64)
        for number, name in enumerate(chosen):
            count[mesh.regions[name]] += 1
            of_cell[mesh.regions[name]] = number
        if not chosen or (count != 1).any():
            lost, twice = int((count == 0).sum()), int((count > 1).sum())
            what = f"{lost} cells are in no zone" if lost else f"{twice} cells are in two zones"
            raise ConfigError(
                key, f"{what} of {', '.join(chosen) or 'the mesh, which has none'}; name zones that share out the cells"
            )
        return Zones(chosen, torch.from_numpy(of_cell))

    def cells(self, values: Sequence[Tensor]) -> Tensor:
        """The values () of all zones, in order, as one for each cell (cells,)."""
        return torch.stack(list(values))[self.of_cell]


@dataclass(frozen=True)
class Field:
    """How one parameter of a material is spread over the cells."""

    name: str
    default: ParameterDefault

    def defaults(self) -> dict[str, ParameterDefault]:
        """The study's parameters that it is made of."""
        return {self.name: self.default}

    def values(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The parameter, () or (cells,)."""
        return parameters[self.name]

    def priors(self) -> list[FieldPrior]:
        """Nothing is known of it beyond the priors of the study's parameters."""
        return []


@dataclass(frozen=True)
class ZoneField(Field):
    """One value for each zone, called name[zone]."""

    zones: Zones

    def defaults(self) -> dict[str, ParameterDefault]:
        return {f"{self.name}[{zone}]": self.default for zone in self.zones.names}

    def values(self, parameters: Mapping[str, Tensor]) -> Tensor:
        return self.zones.cells([parameters[f"{self.name}[{zone}]"] for zone in self.zones.names])
