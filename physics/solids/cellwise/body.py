"""Solids with mean dilatation, and the same linearised about states that need not fit together.

With mean dilatation the energy of a cell is its distortion D(F) integrated, plus V U(theta), theta the mean of det F. About any
F^ and pressure p^ (Newton's method on displacements and pressures; Simo, Taylor & Pister 1985),

    P = D'(F^) + D''(F^)[F - F^] + p^ dcof(F^)[F - F^] + p cof F^,    p = p^ + U''(theta^) (theta_lin - theta^),   U'(theta^) = p^

is linear in the field, whether the F^ fit together or not; theta_lin is the mean of det F^ + cof F^ : (F - F^).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bilevel.linalg.operator import Sparse
from bilevel.problem import Params
from bilevel.torch_internals import pytree
from physics.constitutive.elastic.law import SplitElasticLaw
from physics.constitutive.kinematics import Kinematics
from physics.discretisation import Mesh
from physics.discretisation.constraints import Constraint
from physics.discretisation.matrices import cofactor, determinant
from physics.discretisation.operator import local_force, local_matrix, local_state
from physics.solids.cellwise.geometry import Geometry
from physics.solids.cellwise.matrices import cofactor_change
from physics.solids.cellwise.split_law import SplitLaw
from physics.solids.solid import ElasticSolid


class NearlyIncompressibleSolid(ElasticSolid):
    """A `Solid` with mean dilatation, in plane strain or in space, whose Hessian is made of integrals that the mesh has once.

    law: an elastic law of distortion and volume change. upright: the energy is infinite where a point is turned inside out,
    which the mean dilatation of its cell may hide: bricks otherwise have equilibria, even stable ones, with corners inside
    out.
    """

    def __init__(
        self, mesh: Mesh, law: SplitElasticLaw, constraints: Sequence[Constraint], *, upright: bool = False
    ) -> None:
        kinematics = Kinematics.PLANE_STRAIN if mesh.dim == 2 else Kinematics.THREE_DIMENSIONAL
        super().__init__(mesh, law, kinematics, constraints, mean_dilatation=True)
        self.law, self.upright = law, upright
        self._known: list[tuple[object, int]] = []

    @cached_property
    def geometry(self) -> Geometry:
        return Geometry.of(self.mesh, self.material.operator)

    def split_law(self, params: Params) -> SplitLaw:
        """The law of the cells at these parameters; what it derives of them is kept while they stay the same."""
        leaves = pytree.tree_leaves(params["material"])
        key = [(leaf, leaf._version if isinstance(leaf, Tensor) else 0) for leaf in leaves]
        same = len(key) == len(self._known) and all(
            a is b and before == now for (a, before), (b, now) in zip(self._known, key)
        )
        if not same:
            fields = self.fields(self.material, params)
            own = pytree.tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, fields)
            self._split_law, self._known = SplitLaw(self.law, own, len(self.mesh.cells)), key
        return self._split_law

    def value(self, u: Tensor, params: Params) -> Tensor:
        return self._guarded(super().value(u, params), u, params)

    def value_and_residual(self, u: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        value, residual = super().value_and_residual(u, params)
        return self._guarded(value, u, params), residual

    def _guarded(self, value: Tensor, u: Tensor, params: Params) -> Tensor:
        if not self.upright:
            return value
        return torch.where((determinant(self.gradients(u, params)) > 0.0).all(), value, torch.inf)

    @torch.no_grad()
    def assembled(self, full: Tensor, params: Params, change: Callable[[Tensor], Tensor] | None = None) -> Sparse:
        gradients, law = self._gradients(full), self.split_law(params)
        theta = self.mean(determinant(gradients))
        return LinearisedSolid(self, law, gradients, *law.pressure_and_slope(theta), theta).matrix(change)

    def gradients(self, u: Tensor, params: Params) -> Tensor:
        """F (E, Q, d, d)."""
        return self._gradients(self.expand(u, params))

    def _gradients(self, full: Tensor) -> Tensor:
        state = local_state(full[self.mesh.cells], self.geometry.matrix)
        return state + torch.eye(self.mesh.dim, dtype=torch.float64)

    def mean(self, values: Tensor) -> Tensor:
        """Means over the points of each cell (E, ...) of values (E, Q, ...)."""
        return torch.einsum("eq,eq...->e...", self.geometry.share, values)

    def forces(self, stress: Tensor) -> Tensor:
        """B^T w P (E, A, d) of stresses (E, Q, d, d)."""
        return local_force(self.geometry.weights[..., None, None] * stress, self.geometry.matrix)


@dataclass(frozen=True, eq=False)
class LinearisedSolid:
    """Stresses linear in the field about F^ (E, Q, d, d), pressures p^ (E,) of slopes U'' (E,), and dilatations theta^ (E,)."""

    solid: NearlyIncompressibleSolid
    law: SplitLaw
    about: Tensor
    pressure: Tensor
    stiffness: Tensor
    theta: Tensor

    @cached_property
    def cofactor(self) -> Tensor:
        return cofactor(self.about)

    @cached_property
    def distortion(self) -> Tensor:
        """The distortional tangent (E, Q, d, d, d, d)."""
        return self.law.tangent(self.about)

    def pressure_in(self, gradients: Tensor) -> Tensor:
        """p (E,) in a field of gradients F (E, Q, d, d)."""
        change = (self.cofactor * (gradients - self.about)).sum((-2, -1))
        return self.pressure + self.stiffness * (self.solid.mean(determinant(self.about) + change) - self.theta)

    def stress_in(self, gradients: Tensor) -> Tensor:
        """P (E, Q, d, d)."""
        old, new = (x[:, None, None, None] for x in (self.pressure, self.pressure_in(gradients)))
        change = gradients - self.about
        if self.law.constant_stiffness is None:
            distortional = self.law.stress(self.about) + (self.distortion * change[..., None, None, :, :]).sum((-2, -1))
        else:
            distortional = self.law.stress(gradients)
        return distortional + old * cofactor_change(self.about, change) + new * self.cofactor

    def residual_in(self, gradients: Tensor) -> Tensor:
        """The forces (n,) on the unknowns."""
        solid = self.solid
        forces = solid.forces(self.stress_in(gradients)).flatten(0, 1)
        full = torch.zeros_like(solid.mesh.coordinates).index_add(0, solid.mesh.cells.reshape(-1), forces)
        return solid.constraints.reduce(full)

    def matrix(self, change: Callable[[Tensor], Tensor] | None = None) -> Sparse:
        """Distortion + p^ (the second derivative of det) + U''/V s s^T, s the derivative of V theta."""
        solid, geometry = self.solid, self.solid.geometry
        scatter, swelling = solid.scatter, solid.forces(self.cofactor)
        scaled = (self.stiffness / geometry.volume)[:, None, None] * swelling
        turned, distorted = geometry.turned(self.about), self._distorted()
        sums, planes = scatter.zeros(swelling), []
        for i, k in scatter.planes:
            plane = scaled[:, :, i, None] * swelling[:, None, :, k]
            if (i, k) in turned:
                plane = torch.addcmul(plane, self.pressure[:, None, None], turned[i, k])
            planes.append(plane + distorted[i, k] if (i, k) in distorted else plane)
        stacked = torch.stack(planes)
        scatter.add(sums, stacked if change is None else change(stacked))
        return Sparse(scatter.pattern, scatter.finish(sums), solid.structure)

    def _distorted(self) -> dict[tuple[int, int], Tensor]:
        """What the distortion adds to the planes (E, A, A) of pairs of components."""
        geometry, planes, constant = self.solid.geometry, self.solid.scatter.planes, self.law.constant_stiffness
        if constant is None:
            weighted = geometry.weights[..., None, None, None, None] * self.distortion
            return dict(zip(planes, local_matrix(weighted, geometry.matrix, planes)))
        shear = constant[:, None, None] * geometry.laplace
        return {(i, i): shear for i in range(geometry.dim)}
