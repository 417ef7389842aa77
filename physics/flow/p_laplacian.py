"""Flow whose flux grows with a power of the gradient, on meshes: the p-Laplacian.

Non-Newtonian fluids in thin gaps and porous media, creeping ice (Glen 1955: p = 4/3), turbulent filtration (p = 3/2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.problem import Params
from bilevel.report import InputError
from physics.discretisation import Mesh
from physics.discretisation.constraints import Constraint
from physics.discretisation.matmul import matmul
from physics.discretisation.operator import nodal_operator
from physics.discretisation.rigid_body_modes import constant_modes
from physics.flow.darcy import VALUE, Source
from physics.local.density import Cells, Density, Measure
from physics.local.energy import LocalEnergy
from physics.local.term import Term


@dataclass(frozen=True)
class PowerLawConduction(Density):
    """psi = k/p ((|g|^2 + e^2)^(p/2) - e^p) of a gradient g; e is the threshold (Glowinski & Marrocco 1975, smoothed).

    params: conductivity k. Raises InputError unless p > 1 and e > 0.
    """

    exponent: float
    threshold: float
    parameters = ("conductivity",)

    def __post_init__(self) -> None:
        if self.exponent <= 1.0:
            raise InputError(f"a p-Laplacian needs an exponent p > 1 for its energy to be convex, got {self.exponent}")
        if self.threshold <= 0.0:
            raise InputError(f"a p-Laplacian needs a positive threshold gradient, got {self.threshold}")

    def energy(self, x: Tensor, params: Params) -> Tensor:
        p = self.exponent
        return params["conductivity"] / p * (self._square(x) ** (p / 2.0) - self.threshold**p)

    def stress(self, x: Tensor, params: Params) -> Tensor:
        return self._secant(self._square(x), params).unsqueeze(-1) * x

    def energy_and_stress(self, x: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        square, p = self._square(x), self.exponent
        secant = self._secant(square, params)
        energy = (secant * square - params["conductivity"] * self.threshold**p) / p
        return energy, secant.unsqueeze(-1) * x

    def tangent(self, x: Tensor, params: Params, state_dims: int) -> Tensor:
        square = self._square(x)
        unit = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
        along = ((self.exponent - 2.0) / square)[..., None, None] * x.unsqueeze(-1) * x.unsqueeze(-2)
        return self._secant(square, params)[..., None, None] * (unit + along)

    def element_matrices(self, x: Tensor, params: Params, cells: Cells) -> Tensor:
        if cells.measure.matrix is not None:
            return super().element_matrices(x, params, cells)
        # B^T D B with D = secant (I + (p-2)/s x x^T): the product of B and of one more column, B x, with themselves.
        square = self._square(x)
        scale = (cells.weights * self._secant(square, params))[:, None, :, None]
        along = sum_of_columns(cells.matrix * x[:, None]).unsqueeze(-1)
        stiffer = scale * ((self.exponent - 2.0) / square)[:, None, :, None] * along
        left, right = torch.cat((cells.matrix, along), -1), torch.cat((scale * cells.matrix, stiffer), -1)
        return matmul(left.flatten(2), right.flatten(2).mT).unsqueeze(0)

    def _square(self, x: Tensor) -> Tensor:
        return sum_of_columns(x.square()) + self.threshold**2

    def _secant(self, square: Tensor, params: Params) -> Tensor:
        """The flux per gradient; exp and log take half the time of a general power."""
        return params["conductivity"] * ((self.exponent / 2.0 - 1.0) * square.log()).exp()


def sum_of_columns(x: Tensor) -> Tensor:
    """x summed over its last dimension, which is short: ten times as fast as a reduction."""
    total, *others = x.unbind(-1)
    for column in others:
        total = total + column
    return total


class PLaplacian(LocalEnergy):
    """- div(k |grad u|^(p-2) grad u) = source on a mesh; the unknown is u at the nodes that are not fixed.

        flow = PLaplacian(mesh, 1.5, 1e-3, [mesh.fixed("left", value=1.0), mesh.fixed("right")])
        solution = bilevel.argmin(flow, flow.start(), {"flow": {"conductivity": k}, "source": q})

    exponent: p. threshold: the gradient e below which the flow is linear. params: "flow": {"conductivity": k} (), per
    cell (E,) or per point (E, Q); optional "source" per volume and "inflow" (nodes,). Raises InputError where no value is
    fixed.
    """

    def __init__(self, mesh: Mesh, exponent: float, threshold: float, constraints: Sequence[Constraint]) -> None:
        nodes = len(mesh.coordinates)
        self.mesh, self.law = mesh, PowerLawConduction(exponent, threshold)
        terms = [
            Term("flow", mesh.operator(), self.law, Measure((mesh.dim,))),
            Term("source", mesh.operator(gradient=False, value=True), Source(), VALUE),
            Term("inflow", nodal_operator(torch.arange(nodes)), Source(), VALUE),
        ]
        super().__init__(terms, nodes, 1, constraints, kernel=constant_modes(nodes))
