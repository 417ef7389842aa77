"""Parameters of a material that vary over a mesh, cell by cell or between pilot points, and priors of their smoothness."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bilevel.calibrate.field_prior import FieldPrior
from bilevel.calibrate.model import ParameterDefault
from bilevel.report import InputError
from physics.discretisation import Mesh
from physics.studies.on_mesh.smoothness import differences, gaussian_field
from physics.studies.on_mesh.zones import Zones


@dataclass(frozen=True)
class CellField:
    """One value for each cell, and what is known of their logarithms."""

    name: str
    default: ParameterDefault
    known: FieldPrior | None

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
        length: float | None = None,
    ) -> CellField:
        """std: about the reference, of each cell by itself, or correlated over a length; roughness: of what `order` says."""
        from scipy.sparse import identity, vstack

        parts = []
        if std is not None:
            white = identity(len(mesh.cells)) / std if length is None else gaussian_field(mesh, zones, std, length)
            parts.append(white)
        if roughness is not None:
            parts.append(differences(mesh, zones, order) / roughness)
        mean = math.log(reference or 1.0)
        known = FieldPrior.of(name, vstack(parts), mean, logarithmic=True) if parts else None
        return CellField(name, replace(default, size=len(mesh.cells)), known)

    def defaults(self) -> dict[str, ParameterDefault]:
        return {self.name: self.default}

    def values(self, parameters: Mapping[str, Tensor]) -> Tensor:
        return parameters[self.name]

    def priors(self) -> list[FieldPrior]:
        return [] if self.known is None else [self.known]


@dataclass(frozen=True)
class PilotField:
    """Values at pilot points; in between, ordinary kriging of their logarithms with covariance exp(-distance / length).

    weights (cells, points). known: of the logarithms at the points.
    Source: de Marsily 1984; Chiles & Delfiner 2012, section 3.4.
    """

    name: str
    default: ParameterDefault
    weights: Tensor
    known: FieldPrior | None

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
        known = None
        if std is not None and reference is not None:
            white = np.linalg.inv(np.linalg.cholesky(covariance)) / std
            known = FieldPrior.of(name, white, math.log(reference), logarithmic=True)
        return PilotField(name, replace(default, size=count), torch.from_numpy(np.ascontiguousarray(weights)), known)

    def defaults(self) -> dict[str, ParameterDefault]:
        return {self.name: self.default}

    def values(self, parameters: Mapping[str, Tensor]) -> Tensor:
        return torch.exp(self.weights @ torch.log(parameters[self.name]))

    def priors(self) -> list[FieldPrior]:
        return [] if self.known is None else [self.known]
