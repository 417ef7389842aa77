"""Boundary-value problems: any constitutive model at the quadrature points of a mesh, increment by increment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum

import torch
from torch import Tensor

import bilevel
from bilevel.linalg.operator import LinearOperator, Sparse, Structure
from bilevel.problem import Params, Problem
from bilevel.report import InputError, Solution
from bilevel.solvers import Newton, Tolerance
from physics.constitutive.inelastic.law import Material, ReturnMapping, Values, consistent_tangent, update
from physics.constitutive.inelastic.local_problem import FullSteps
from physics.discretisation import Mesh
from physics.discretisation.constraints import Constraint, ConstraintSet
from physics.discretisation.operator import local_force, local_matrix, local_state
from physics.local.assembly import Scatter

GLOBAL_NEWTON = Newton(step=FullSteps(), tolerance=Tolerance(relative=1e-9), max_iterations=50)


class Kinematics(Enum):
    """What the two or three displacement components mean."""

    PLANE_STRAIN = "plane strain in x-y"
    AXISYMMETRIC = "r-z, rotation about the second axis"
    SPATIAL = "x-y-z"

    def strain_matrix(self) -> Tensor:
        """G (6, components * columns): the Mandel strain of the displacement gradient's entries."""
        half = 1.0 / math.sqrt(2.0)
        entries = {
            # (Mandel component, displacement component, column of B): factor; columns are d/dx, d/dy[, d/dz][, hoop].
            Kinematics.PLANE_STRAIN: (2, 2, {(0, 0, 0): 1.0, (1, 1, 1): 1.0, (5, 0, 1): half, (5, 1, 0): half}),
            Kinematics.AXISYMMETRIC: (
                2,
                3,
                {(0, 0, 0): 1.0, (1, 1, 1): 1.0, (2, 0, 2): 1.0, (5, 0, 1): half, (5, 1, 0): half},
            ),
            Kinematics.SPATIAL: (
                3,
                3,
                {
                    **{(i, i, i): 1.0 for i in range(3)},
                    **{(m, i, j): half for m, a, b in ((3, 1, 2), (4, 0, 2), (5, 0, 1)) for i, j in ((a, b), (b, a))},
                },
            ),
        }
        components, columns, places = entries[self]
        matrix = torch.zeros(6, components, columns, dtype=torch.float64)
        for place, factor in places.items():
            matrix[place] = factor
        return matrix.reshape(6, components * columns)


class BoundaryValue(Problem):
    """Equilibrium at the end of an increment; the unknown is the free displacement (n,), metres.

    params: {"material": values, "states": (points, size) before the increment, "displacement": (nodes, components) before
    it, "boundary": prescribed displacements by constraint name, "force": (nodes, components) external forces}; "boundary"
    and "force" may be left out. The tangent is the model's own, unsymmetric where the model is.
    """

    structure = Structure(symmetric=False)

    def __init__(
        self,
        mesh: Mesh,
        material: Material,
        constraints: Sequence[Constraint],
        kinematics: Kinematics = Kinematics.PLANE_STRAIN,
        quadrature: int | None = None,
    ) -> None:
        self.mesh, self.material, self.kinematics = mesh, material, kinematics
        self.operator = mesh.operator(axisymmetric=kinematics is Kinematics.AXISYMMETRIC, quadrature=quadrature)
        self.constraints = ConstraintSet(constraints, len(mesh.coordinates), mesh.dim)
        self.gradient_to_strain = kinematics.strain_matrix()
        self.matrix, self.weights = self.operator.evaluate(None, slice(None))
        self._scatter: Scatter | None = None

    @property
    def points(self) -> int:
        """Quadrature points in the mesh."""
        return self.weights.numel()

    @property
    def n(self) -> int:
        return self.constraints.n

    def expand(self, u: Tensor, params: Params) -> Tensor:
        """The full displacement (nodes, components)."""
        return self.constraints.expand(u, params.get("boundary"))

    def strain(self, displacement: Tensor) -> Tensor:
        """Mandel strains (points, 6) of a nodal displacement."""
        gradient = local_state(displacement[self.operator.cells], self.matrix)
        return gradient.reshape(self.points, -1) @ self.gradient_to_strain.T

    def states(self, u: Tensor, params: Params) -> Tensor:
        """Material states (points, size) at the end of the increment."""
        increment = self.strain(self.expand(u, params) - params["displacement"])
        return self._update(increment, params["states"], params["material"])

    def _update(self, increment: Tensor, previous: Tensor, values: Values) -> Tensor:
        if isinstance(self.material, ReturnMapping):
            return self.material.advance(increment, previous, values)
        return update(self.material, previous, increment, values).u

    def nodal_forces(self, states: Tensor) -> Tensor:
        """Internal forces (nodes, components), N (per metre or over the full circle)."""
        count, points = self.weights.shape
        stress = (states[:, :6] @ self.gradient_to_strain).reshape(count, points, self.mesh.dim, -1)
        force = local_force(stress * self.weights[:, :, None, None], self.matrix)
        total = torch.zeros_like(self.mesh.coordinates)
        return total.index_add(0, self.operator.cells.reshape(-1), force.flatten(0, 1))

    def residual(self, u: Tensor, params: Params) -> Tensor:
        forces = self.nodal_forces(self.states(u, params))
        external = params.get("force")
        return self.constraints.reduce(forces if external is None else forces - external)

    def product(self, u: Tensor, params: Params, x: Tensor) -> Tensor:
        """The tangent as the transpose of its transpose: two reverse passes."""
        vjp = torch.func.vjp(lambda v: self.residual(v, params), u)[1]
        return torch.func.vjp(lambda w: vjp(w)[0], torch.zeros_like(u))[1](x)[0]

    @torch.no_grad()
    def tangent(self, u: Tensor, params: Params) -> LinearOperator:
        increment = self.strain(self.expand(u, params) - params["displacement"])
        previous, values = params["states"], params["material"]
        state = self._update(increment, previous, values)
        stiffness = consistent_tangent(self.material, state, increment, previous, values)
        local = self.gradient_to_strain.T @ stiffness @ self.gradient_to_strain
        count, points = self.weights.shape
        components = self.mesh.dim
        local = local.reshape(count, points, components, -1, components, local.shape[-1] // components)
        weighted = local * self.weights[:, :, None, None, None, None]
        sums = self.scatter.zeros(u)
        self.scatter.add(sums, local_matrix(weighted, self.matrix, self.scatter.planes))
        return Sparse(self.scatter.pattern, self.scatter.finish(sums), self.structure)

    @property
    def scatter(self) -> Scatter:
        if self._scatter is None:
            self._scatter = Scatter([self.operator.cells], self.constraints, symmetric=False)
        return self._scatter


def solve_increment(problem: BoundaryValue, start: Tensor, params: Params, solver: Newton | None = None) -> Solution:
    """The free displacement at the end of an increment, by the implicit layer; raises ConvergenceError at a limit load."""
    return bilevel.root(problem, start, params, solver=solver or GLOBAL_NEWTON)


def uniform_states(problem: BoundaryValue, state: Tensor) -> Tensor:
    """The same state (size,) at every quadrature point."""
    if state.shape != (problem.material.size,):
        raise InputError(
            f"{type(problem.material).__name__} has states of size {problem.material.size}, got {tuple(state.shape)}"
        )
    return state.expand(problem.points, -1).clone()
