"""What sensors read of a scalar field: its values at points, and what flows in through boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bilevel.calibrate.model import ConfigError
from bilevel.problem import Params
from physics.discretisation import Mesh
from physics.discretisation.point_location import Interpolation
from physics.flow.linear_system import LinearSystem
from physics.studies.on_mesh.drives import Drive
from physics.studies.on_mesh.quantities import Key
from physics.studies.on_mesh.sensors import Sensors


def conditions_on(boundary: str, drives: Sequence[Drive], key: Key) -> list[str]:
    """The terms by which something flows through a boundary, none where its field is prescribed.

    ConfigError where nothing flows.
    """
    entries = [drive.entry for drive in drives]
    found = [name for name in (f"inflow_{boundary}", f"exchange_{boundary}") if (name,) in entries]
    if not found and ("boundary", boundary) not in entries:
        raise ConfigError(key, f"nothing flows through '{boundary}': the study gives no condition on it")
    return found


@dataclass(frozen=True)
class _Through:
    """A boundary: its terms; or, where its field is prescribed, its nodes and the entries of K and C in their rows."""

    terms: tuple[str, ...]
    nodes: Tensor
    inside: Tensor
    stored: Tensor


class FieldReadings:
    """Readings (..., readings), in the order asked for, of fields (..., nodes)."""

    def __init__(self, mesh: Mesh, system: LinearSystem, sensors: Sensors, drives: Sequence[Drive]) -> None:
        self.system = system
        readings = sensors.readings
        self.at_points: Interpolation | None = sensors.located(mesh) if len(sensors.points()) else None
        through = [reading for reading in readings if reading.boundary]
        self.through = [self._through(mesh, reading.boundary, drives) for reading in through]
        order = [reading for reading in readings if not reading.boundary] + through
        self.order = torch.tensor([order.index(reading) for reading in readings])

    def _through(self, mesh: Mesh, name: str, drives: Sequence[Drive]) -> _Through:
        terms, nodes = tuple(conditions_on(name, drives, ())), mesh.nodes_on(name)
        return _Through(terms, nodes, torch.isin(self.system.rows, nodes), torch.isin(self.system.store.rows, nodes))

    def __call__(self, fields: Tensor, rates: Tensor | None, params: Params) -> Tensor:
        """rates: d field / d time, where something is stored; params: those of the fields, with their leading times."""
        parts = []
        if self.at_points is not None:
            parts.append((fields[..., self.at_points.nodes] * self.at_points.weights).sum(-1))
        parts += [self._flow(through, fields, rates, params).unsqueeze(-1) for through in self.through]
        return torch.cat(parts, -1)[..., self.order]

    def _flow(self, through: _Through, fields: Tensor, rates: Tensor | None, params: Params) -> Tensor:
        """What flows in (...): by its condition, or where the field is prescribed by the balance of its nodes."""
        system = self.system
        if through.terms:
            blocks = [name for name in through.terms if name in system.blocks]
            passed = sum((self._product(system.place(n), fields, params) for n in blocks), torch.zeros(()))
            return system.load(params, through.terms).sum(-1) - passed
        balance = self._product(through.inside, fields, params)
        if rates is not None:
            capacity, columns = system.capacity(params)[through.stored], system.store.columns[through.stored]
            balance = balance + (capacity * rates[..., columns]).sum(-1)
        return balance - system.load(params)[..., through.nodes].sum(-1)

    def _product(self, entries: Any, fields: Tensor, params: Params) -> Tensor:
        return (self.system.stiffness(params)[entries] * fields[..., self.system.columns[entries]]).sum(-1)
