"""Bodies linearised about states of their cells that need not fit together.

With mean dilatation the energy of a cell is its distortion D(F) integrated, plus V U(theta), theta the mean of det F. About any
F^ and pressure p^ (Newton's method on displacements and pressures; Simo, Taylor & Pister 1985),

    P = D'(F^) + D''(F^)[F - F^] + p^ dcof(F^)[F - F^] + p cof F^,    p = p^ + U''(theta^) (theta_lin - theta^),   U'(theta^) = p^

is linear in the field, whether the F^ fit together or not; theta_lin is the mean of det F^ + cof F^ : (F - F^). Without mean
dilatation the distortion is the whole energy, and U is nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bilevel.linalg.operator import Sparse
from bilevel.problem import Params
from bilevel.report import InputError
from bilevel.torch_internals import pytree
from physics.discretisation import Mesh
from physics.discretisation.matrices import cofactor, determinant
from physics.discretisation.operator import local_force, local_matrix, local_state
from physics.local.energy import LocalEnergy
from physics.local.term import Term
from physics.solids.cellwise.geometry import Geometry
from physics.solids.cellwise.matrices import cofactor_change
from physics.solids.cellwise.split_law import SplitLaw, WholeLaw
from physics.solids.mean_dilatation import MeanDilatation


class BodyCells:
    """A body in plane strain or in space as its cells see it: deformation gradients, means and forces.

    body: an energy of displacements whose term `material` is a law of deformation gradients, and whose other terms are dead
    loads. Raises InputError for another.
    """

    def __init__(self, body: LocalEnergy, mesh: Mesh, material: Term) -> None:
        loads = [term for term in body.terms if term is not material]
        if not all(load.density.affine for load in loads):
            raise InputError("first guesses of bodies know dead loads alone")
        self.body, self.mesh, self.material, self.loads = body, mesh, material, loads
        self.cells, self.geometry = mesh.cells, Geometry.of(mesh, material.operator)
        self._known: list[tuple[object, int]] = []

    def law(self, params: Params) -> SplitLaw:
        """The law of the cells at these parameters; what it derives of them is kept while they stay the same."""
        leaves = pytree.tree_leaves(params["material"])
        key = [(leaf, leaf._version if isinstance(leaf, Tensor) else 0) for leaf in leaves]
        same = len(key) == len(self._known) and all(
            a is b and before == now for (a, before), (b, now) in zip(self._known, key)
        )
        if not same:
            self._law, self._known = self._made(params), key
        return self._law

    def _made(self, params: Params) -> SplitLaw:
        fields = self.body.fields(self.material, params)
        own = pytree.tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, fields)
        if isinstance(self.material, MeanDilatation):
            return SplitLaw(self.material.law, own, len(self.cells))
        return WholeLaw(self.material.density, own, len(self.cells))

    def load(self, params: Params) -> Tensor:
        """Minus the forces of the loads (nodes, dim)."""
        rest = torch.zeros(self.body.constraints.shape, dtype=torch.float64)
        return self.body.nodal_forces(rest, params, self.loads).detach()

    def gradients(self, u: Tensor, params: Params) -> Tensor:
        """F (E, Q, d, d)."""
        return self.gradients_of(self.body.expand(u, params))

    def gradients_of(self, full: Tensor) -> Tensor:
        """F (E, Q, d, d) of displacements (nodes, d)."""
        state = local_state(full[self.cells], self.geometry.matrix)
        return state + torch.eye(self.geometry.dim, dtype=torch.float64)

    def mean(self, values: Tensor) -> Tensor:
        """Means over the points of each cell (E, ...) of values (E, Q, ...)."""
        return torch.einsum("eq,eq...->e...", self.geometry.share, values)

    def forces(self, stress: Tensor) -> Tensor:
        """B^T w P (E, A, d) of stresses (E, Q, d, d)."""
        return local_force(self.geometry.weights[..., None, None] * stress, self.geometry.matrix)


@dataclass(frozen=True, eq=False)
class LinearisedSolid:
    """Stresses linear in the field about F^ (E, Q, d, d), pressures p^ (E,) of slopes U'' (E,), and dilatations theta^ (E,)."""

    cells: BodyCells
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
        return self.pressure + self.stiffness * (self.cells.mean(determinant(self.about) + change) - self.theta)

    def stress_in(self, gradients: Tensor) -> Tensor:
        """P (E, Q, d, d)."""
        old, new = (x[:, None, None, None] for x in (self.pressure, self.pressure_in(gradients)))
        change = gradients - self.about
        if self.law.constant_stiffness is None:
            distortional = self.law.stress(self.about) + (self.distortion * change[..., None, None, :, :]).sum((-2, -1))
        else:
            distortional = self.law.stress(gradients)
        return distortional + old * cofactor_change(self.about, change) + new * self.cofactor

    def residual_in(self, gradients: Tensor, load: Tensor) -> Tensor:
        """The forces (n,) on the unknowns, with those of the loads (nodes, d)."""
        forces = self.cells.forces(self.stress_in(gradients)).flatten(0, 1)
        full = load.index_add(0, self.cells.cells.reshape(-1), forces)
        return self.cells.body.constraints.reduce(full)

    def matrix(self, change: Callable[[Tensor], Tensor] | None = None) -> Sparse:
        """Distortion + p^ (the second derivative of det) + U''/V s s^T, s the derivative of V theta."""
        body, geometry = self.cells.body, self.cells.geometry
        scatter, swelling = body.scatter, self.cells.forces(self.cofactor)
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
        return Sparse(scatter.pattern, scatter.finish(sums), body.structure)

    def _distorted(self) -> dict[tuple[int, int], Tensor]:
        """What the distortion adds to the planes (E, A, A) of pairs of components."""
        geometry, planes = self.cells.geometry, self.cells.body.scatter.planes
        constant = self.law.constant_stiffness
        if constant is None:
            weighted = geometry.weights[..., None, None, None, None] * self.distortion
            return dict(zip(planes, local_matrix(weighted, geometry.matrix, planes)))
        shear = constant[:, None, None] * geometry.laplace
        return {(i, i): shear for i in range(geometry.dim)}
