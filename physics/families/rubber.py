"""Neo-Hookean solids with mean dilatation whose Hessian is made in closed form, and the same about states that need not fit.

With mean dilatation the energy of a cell is mu/2 (F:F - 3) integrated, plus V U(theta), theta the mean of det F. About any
F^ and pressure p^ (Newton's method on displacements and pressures; Simo, Taylor & Pister 1985),

    P = mu F + p^ dcof(F^)[F - F^] + p cof F^,    p = p^ + U''(theta^) (theta_lin - theta^),   U'(theta^) = p^

is linear in the field, whether the F^ fit together or not; theta_lin is the mean of det F^ + cof F^ : (F - F^).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bilevel.linalg.operator import Sparse
from bilevel.problem import Params
from physics.constitutive.elastic.neo_hookean import NeoHookean
from physics.constitutive.flow.linear import Linear
from physics.constitutive.kinematics import Kinematics
from physics.discretisation import Mesh
from physics.discretisation.constraints import Constraint
from physics.discretisation.matrices import cofactor, determinant
from physics.discretisation.operator import local_force, local_state
from physics.families.matrices import Matrices
from physics.families.plane_matrices import PlaneMatrices
from physics.families.solid_geometry import Geometry
from physics.families.space_matrices import SpaceMatrices
from physics.local.density import Measure
from physics.local.energy import LocalEnergy
from physics.local.term import Term
from physics.solids.solid import Solid

LEAST_STIFF = 0.9
"""Dilatations stay below this fraction of the one at which U' is largest, where cells lose their stiffness."""


@dataclass(frozen=True, eq=False)
class Dilatation:
    """U(theta) = -mu ln theta + lambda/2 (ln theta)^2 of each cell, mu (E,), lame_lambda (E,)."""

    mu: Tensor
    lame: Tensor

    @staticmethod
    def of(params: Params) -> Dilatation:
        return Dilatation(params["material"]["mu"].detach(), params["material"]["lame_lambda"].detach())

    def pressure(self, theta: Tensor) -> Tensor:
        """U' (E,)."""
        return (self.lame * theta.log() - self.mu) / theta

    def stiffness(self, theta: Tensor) -> Tensor:
        """U'' (E,)."""
        return (self.lame + self.mu - self.lame * theta.log()) / theta**2

    def at(self, pressure: Tensor) -> Tensor:
        """theta with U'(theta) = p, up to where U' is nearly largest; Newton's method on the concave U' from the left."""
        largest = LEAST_STIFF * (1.0 + self.mu / self.lame).exp()
        theta = torch.full_like(pressure, 0.3)
        for _ in range(12):
            step = (pressure - self.pressure(theta)) / self.stiffness(theta)
            theta = torch.minimum((theta + step).clamp(min=0.1), largest)
        return theta


class Rubber(Solid):
    """A neo-Hookean `Solid` with mean dilatation, in plane strain or in space, held at its left and right ends."""

    def __init__(self, mesh: Mesh, constraints: Sequence[Constraint]) -> None:
        kinematics = Kinematics.PLANE_STRAIN if mesh.dim == 2 else Kinematics.THREE_DIMENSIONAL
        super().__init__(mesh, NeoHookean(), kinematics, constraints, mean_dilatation=True)
        self.matrices: Matrices = PlaneMatrices() if mesh.dim == 2 else SpaceMatrices()

    @cached_property
    def geometry(self) -> Geometry:
        return Geometry.of(self.mesh, self.material.operator)

    @cached_property
    def harmonic(self) -> LocalEnergy:
        """Whose minimum is the harmonic interpolation of 0 at the left end and 1 at the right."""
        term = Term("harmonic", self.mesh.operator(), Linear("mu", "Pa"), Measure((self.mesh.dim,)))
        held = [self.mesh.fixed(name, value=value) for name, value in (("left", 0.0), ("right", 1.0))]
        return LocalEnergy([term], len(self.mesh.coordinates), 1, held)

    @torch.no_grad()
    def tangent(self, u: Tensor, params: Params) -> Sparse:
        gradients, dilatation = self.gradients(u, params), Dilatation.of(params)
        theta = self.mean(determinant(gradients))
        pressure = dilatation.pressure(theta)
        return Linearised(self, dilatation, gradients, pressure, theta).matrix()

    def gradients(self, u: Tensor, params: Params) -> Tensor:
        """F (E, Q, d, d)."""
        field = self.expand(u, params)[self.mesh.cells]
        return local_state(field, self.geometry.matrix) + torch.eye(self.mesh.dim, dtype=torch.float64)

    def mean(self, values: Tensor) -> Tensor:
        """Means over the points of each cell (E, ...) of values (E, Q, ...)."""
        return torch.einsum("eq,eq...->e...", self.geometry.share, values)

    def forces(self, stress: Tensor) -> Tensor:
        """B^T w P (E, A, d) of stresses (E, Q, d, d)."""
        return local_force(self.geometry.weights[..., None, None] * stress, self.geometry.matrix)


class UprightRubber(Rubber):
    """`Rubber` whose energy is infinite where a point is turned inside out, which the mean dilatation of its cell may hide.

    Otherwise bricks have equilibria, even stable ones, with corners inside out.
    """

    def value(self, u: Tensor, params: Params) -> Tensor:
        return self._guarded(super().value(u, params), u, params)

    def value_and_residual(self, u: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        value, residual = super().value_and_residual(u, params)
        return self._guarded(value, u, params), residual

    def _guarded(self, value: Tensor, u: Tensor, params: Params) -> Tensor:
        upright = (determinant(self.gradients(u, params)) > 0.0).all()
        return torch.where(upright, value, torch.inf)


@dataclass(frozen=True, eq=False)
class Linearised:
    """Stresses linear in the field about F^ (E, Q, d, d), p^ (E,) and theta^ (E,)."""

    solid: Rubber
    dilatation: Dilatation
    about: Tensor
    pressure: Tensor
    theta: Tensor

    @cached_property
    def stiffness(self) -> Tensor:
        return self.dilatation.stiffness(self.theta)

    @cached_property
    def cofactor(self) -> Tensor:
        return cofactor(self.about)

    def pressure_in(self, gradients: Tensor) -> Tensor:
        """p (E,) in a field of gradients F (E, Q, d, d)."""
        change = (self.cofactor * (gradients - self.about)).sum((-2, -1))
        return self.pressure + self.stiffness * (self.solid.mean(determinant(self.about) + change) - self.theta)

    def stress_in(self, gradients: Tensor) -> Tensor:
        """P (E, Q, d, d)."""
        shear, old, new = (
            x[:, None, None, None] for x in (self.dilatation.mu, self.pressure, self.pressure_in(gradients))
        )
        turned = self.solid.matrices.cofactor_change(self.about, gradients - self.about)
        return shear * gradients + old * turned + new * self.cofactor

    def residual_in(self, gradients: Tensor) -> Tensor:
        """The forces (n,) on the unknowns."""
        solid = self.solid
        forces = solid.forces(self.stress_in(gradients)).flatten(0, 1)
        full = torch.zeros_like(solid.mesh.coordinates).index_add(0, solid.mesh.cells.reshape(-1), forces)
        return solid.constraints.reduce(full)

    def matrix(self) -> Sparse:
        """mu B^T B + p^ (the second derivative of det) + U''/V s s^T, s the derivative of V theta."""
        solid, geometry = self.solid, self.solid.geometry
        scatter, swelling = solid.scatter, solid.forces(self.cofactor)
        scaled = (self.stiffness / geometry.volume)[:, None, None] * swelling
        shear, turned = self.dilatation.mu[:, None, None] * geometry.laplace, geometry.turned(self.about)
        pressure = self.pressure[:, None, None]
        sums = scatter.zeros(swelling)
        rest = [shear if i == k else pressure * turned[i, k] for i, k in scatter.planes]
        swollen = (scaled[:, :, i, None] * swelling[:, None, :, k] for i, k in scatter.planes)
        scatter.add(sums, torch.stack([a + b for a, b in zip(swollen, rest)]))
        return Sparse(scatter.pattern, scatter.finish(sums), solid.structure)
