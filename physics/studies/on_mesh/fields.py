"""Parameters of a material that vary over a mesh, cell by cell or between pilot points, and priors of their smoothness."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bilevel.calibrate.model import ParameterDefault
from bilevel.report import InputError
from physics.discretisation import Mesh
from physics.studies.on_mesh.zones import Zones


@dataclass(frozen=True)
class CellField:
    """One value for each cell.

    whitening (rows, cells): takes the logarithms of all values, less the reference's, to residuals of the prior.
    """

    name: str
    default: ParameterDefault
    whitening: Tensor
    reference: float

    @staticmethod
    def over(
        mesh: Mesh,
        name: str,
        default: ParameterDefault,
        zones: Zones | None,
        reference: float | None,
        std: float | None,
        roughness: float | None,
        order: int,
    ) -> CellField:
        """std: about the reference; roughness: of differences (order 1) or of curvatures (order 2) within a zone."""
        count = len(mesh.cells)
        parts = [torch.eye(count, dtype=torch.float64) / std] if std is not None else []
        if roughness is not None:
            parts.append(_differences(mesh, zones, order) / roughness)
        whitening = torch.cat(parts) if parts else torch.zeros(0, count, dtype=torch.float64)
        return CellField(name, replace(default, size=count), whitening, reference or 1.0)

    def defaults(self) -> dict[str, ParameterDefault]:
        return {self.name: self.default}

    def values(self, parameters: Mapping[str, Tensor]) -> Tensor:
        return parameters[self.name]

    def prior_residual(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The whitened logarithms (rows,)."""
        return self.whitening @ torch.log(parameters[self.name] / self.reference)


def _differences(mesh: Mesh, zones: Zones | None, order: int) -> Tensor:
    """Differences across the sides between cells of one zone (sides, cells), or of each cell from its neighbours' mean."""
    one, other = (facets.cells for facets in mesh.interior)
    if zones is not None:
        zone = zones.of_cell.numpy()
        one, other = one[zone[one] == zone[other]], other[zone[one] == zone[other]]
    differences = torch.zeros(len(one), len(mesh.cells), dtype=torch.float64)
    rows = torch.arange(len(one))
    differences[rows, torch.from_numpy(one).long()] = 1.0
    differences[rows, torch.from_numpy(other).long()] = -1.0
    if order == 1:
        return differences
    laplacian = differences.T @ differences
    return laplacian / laplacian.diagonal().clamp(min=1.0).unsqueeze(1)


@dataclass(frozen=True)
class PilotField:
    """Values at pilot points; in between, ordinary kriging of their logarithms with covariance exp(-distance / length).

    weights (cells, points). whitening (points, points) or (0, points): of the logarithms, less the reference's.
    Source: de Marsily 1984; Chiles & Delfiner 2012, section 3.4.
    """

    name: str
    default: ParameterDefault
    weights: Tensor
    whitening: Tensor
    reference: float

    @staticmethod
    def over(
        mesh: Mesh,
        name: str,
        default: ParameterDefault,
        points: Mapping[str, np.ndarray],
        length: float,
        reference: float | None,
        std: float | None,
    ) -> PilotField:
        """points: positions (dim,) by name. std: of the logarithms, where there is a reference. InputError for two in one place."""
        places, centres = np.stack(list(points.values())), mesh.positions[mesh.corners].mean(1)
        distance = np.linalg.norm(places[:, None] - places[None], axis=-1)
        twice = np.argwhere(np.triu(distance <= 1e-9 * length, 1))
        if len(twice):
            first, second = (list(points)[k] for k in twice[0])
            raise InputError(f"pilot points '{first}' and '{second}' lie in one place")
        covariance = np.exp(-distance / length)
        to_cells = np.exp(-np.linalg.norm(centres[:, None] - places[None], axis=-1) / length)
        count = len(places)
        system = np.ones((count + 1, count + 1))
        system[:count, :count], system[count, count] = covariance, 0.0
        right = np.concatenate((to_cells, np.ones((len(centres), 1))), 1)
        weights = np.linalg.solve(system, right.T)[:count].T
        whitening = np.zeros((0, count)) if std is None else np.linalg.inv(np.linalg.cholesky(covariance)) / std
        tensors = torch.from_numpy(np.ascontiguousarray(weights)), torch.from_numpy(whitening)
        return PilotField(name, replace(default, size=count), *tensors, reference or 1.0)

    def defaults(self) -> dict[str, ParameterDefault]:
        return {self.name: self.default}

    def values(self, parameters: Mapping[str, Tensor]) -> Tensor:
        return torch.exp(self.weights @ torch.log(parameters[self.name]))

    def prior_residual(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The whitened logarithms (points,)."""
        return self.whitening @ torch.log(parameters[self.name] / self.reference)
