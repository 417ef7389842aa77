"""What sensors read of a body: displacements and strains at points, forces of supports; and the motion of a camera."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bilevel.calibrate.observations import ObservationTable
from physics.discretisation import Mesh
from physics.studies.on_mesh.sensors import AXES, Readable, Sensors


def readable(dim: int, axisymmetric: bool) -> dict[str, Readable]:
    """Displacements ux ..., entries exx, exy ... of the small strain (ezz is the hoop's about an axis), forces force_x ..."""
    axes = AXES[:dim]
    strains = [a + b for i, a in enumerate(axes) for b in axes[i:]] + (["zz"] if axisymmetric else [])
    return (
        {f"u{axis}": Readable("m") for axis in axes}
        | {f"e{pair}": Readable("") for pair in strains}
        | {f"force_{axis}": Readable("N", through=True) for axis in axes}
    )


class _AtPoints(NamedTuple):
    """A reading at each of P points as a weighted sum of displacements: nodes (P, A), weights (P, A, dim)."""

    nodes: Tensor
    weights: Tensor


class BodyReadings:
    """Readings (..., readings), in the order asked for, of displacements and reactions (..., nodes, dim)."""

    def __init__(self, mesh: Mesh, sensors: Sensors, thickness: float, tolerance: float) -> None:
        """tolerance: how far outside a cell places may lie, in its size; InputError for those farther away."""
        self.thickness = thickness
        at = [reading for reading in sensors.readings if reading.place]
        through = [reading for reading in sensors.readings if reading.boundary]
        self.places = np.array([reading.place for reading in at])
        self.at_points = _weights(mesh, sensors, tolerance) if at else None
        self.through = [(mesh.nodes_on(r.boundary), AXES.index(r.quantity[-1])) for r in through]
        order = at + through
        self.order = torch.tensor([order.index(reading) for reading in sensors.readings])

    def __call__(self, displacement: Tensor, reactions: Tensor) -> Tensor:
        parts = []
        if self.at_points is not None:
            parts.append((displacement[..., self.at_points.nodes, :] * self.at_points.weights).sum((-2, -1)))
        for nodes, axis in self.through:
            parts.append(self.thickness * reactions[..., nodes, axis].sum(-1, keepdim=True))
        return torch.cat(parts, -1)[..., self.order]


def _weights(mesh: Mesh, sensors: Sensors, tolerance: float) -> _AtPoints:
    readings = [reading for reading in sensors.readings if reading.place]
    found = sensors.located(mesh, tolerance)
    weights = torch.zeros(*found.nodes.shape, mesh.dim, dtype=torch.float64)
    for k, reading in enumerate(readings):
        kind, axes = reading.quantity[0], [AXES.index(axis) for axis in reading.quantity[1:]]
        if kind == "u":
            weights[k, :, axes[0]] = found.weights[k]
        elif max(axes) >= mesh.dim:  # the hoop's strain is u / r
            weights[k, :, 0] = found.weights[k] / reading.place[0]
        else:
            for one, other in (axes, axes[::-1]):
                weights[k, :, one] += 0.5 * found.gradients[k, :, other]
    return _AtPoints(found.nodes, weights)


class Camera:
    """The rigid motion, in its plane, of a camera that sees displacements at the rows' own places."""

    def __init__(self, table: ObservationTable, sensors: Sensors) -> None:
        quantity = [sensors.readings[k].quantity if own else "" for k, own in zip(sensors.first, sensors.own)]
        self.x, self.y = (table.columns.get(axis, torch.zeros(len(table))) for axis in "xy")
        self.is_x, self.is_y = (torch.tensor([q == f"u{axis}" for q in quantity]) for axis in "xy")

    def __call__(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """What it adds to the rows (rows,)."""
        along = parameters["translation_x"] - parameters["rotation"] * self.y
        across = parameters["translation_y"] + parameters["rotation"] * self.x
        zero = torch.zeros((), dtype=torch.float64)
        return torch.where(self.is_x, along, zero) + torch.where(self.is_y, across, zero)
