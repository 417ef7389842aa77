"""Plane neo-Hookean bodies as linear systems made from deformation gradients and pressures that cells choose by themselves.

With mean dilatation the energy of a cell is mu/2 (F:F - 3) integrated, plus V U(theta), theta the mean of det F. About any
F^ and pressure p^ (Newton's method on displacements and pressures; Simo, Taylor & Pister 1985),

    P = mu F + p^ (cof F - cof F^) + p cof F^,    p = p^ + U''(theta^) (theta_lin - theta^),   U'(theta^) = p^

is linear in the field, whether the F^ fit together or not; cof and det are linear and quadratic in two dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from bilevel.linalg import factorise
from bilevel.linalg.operator import Sparse
from bilevel.problem import Params
from bilevel.steps.states.problem import Incidence, State, StateProblem
from physics.constraints import Constraint
from physics.density import Measure
from physics.families.plane_matrices import angle_of, bounded, rotation, symmetric_function
from physics.flow.darcy import Conduction
from physics.local_energy import LocalEnergy
from physics.local_operator import local_force, local_state
from physics.mesh import Mesh
from physics.solids.kinematics import Kinematics
from physics.solids.neo_hookean import NeoHookean
from physics.solids.solid import Solid
from physics.tensors import cofactor, determinant
from physics.term import Term

SMALLEST, LARGEST = 0.15, 6.0
"""Principal stretches of the states are cut to this range."""

LEAST_STIFF = 0.9
"""Dilatations stay below this fraction of the one at which U' is largest, where cells lose their stiffness."""

SETTLED = 0.02
"""Where the linear stresses err by less than this fraction, Newton's method needs no more help."""


@dataclass(frozen=True)
class CellStates:
    """How a field was found: its gradients F (E, Q, 2, 2), the F^ (E, Q, 2, 2) and the pressures p (E,) of its linear system."""

    gradients: Tensor
    about: Tensor
    pressure: Tensor
    stress: Tensor


@dataclass(frozen=True, eq=False)
class Geometry:
    """B (E, A, Q, 2), w (E, Q), the cells' volumes (E,), w / volume (E, Q), B^T w B (E, A, A), and B_x^T w B_y - B_y^T w B_x."""

    matrix: Tensor
    weights: Tensor
    volume: Tensor
    share: Tensor
    laplace: Tensor
    turn: Tensor
    incidence: Incidence

    @staticmethod
    def of(solid: Solid) -> Geometry:
        matrix, weights = solid.material.operator.evaluate(None, slice(None))
        volume = weights.sum(-1)
        laplace = torch.einsum("eaqm,eq,ebqm->eab", matrix, weights, matrix)
        crossed = torch.einsum("eaq,eq,ebq->eab", matrix[..., 0], weights, matrix[..., 1])
        incidence = _incidence(solid.mesh.coordinates, solid.mesh.cells, volume)
        return Geometry(matrix, weights, volume, weights / volume[:, None], laplace, crossed - crossed.mT, incidence)


class PlaneNeoHookean(Solid):
    """A neo-Hookean `Solid` in plane strain with mean dilatation, whose Hessian is made in closed form."""

    def __init__(self, mesh: Mesh, constraints: Sequence[Constraint]) -> None:
        super().__init__(mesh, NeoHookean(), Kinematics.PLANE_STRAIN, constraints, mean_dilatation=True)

    @cached_property
    def geometry(self) -> Geometry:
        return Geometry.of(self)

    @lru_cache(maxsize=4)  # noqa: B019
    def turning(self, turns: tuple[tuple[str, float], ...]) -> LocalEnergy:
        """Whose minimum is the harmonic interpolation of the angles by which boundaries turn."""
        term = Term("turn", self.mesh.operator(), Conduction("mu"), Measure((2,)))
        held = [self.mesh.fixed(name, value=angle) for name, angle in turns]
        return LocalEnergy([term], len(self.mesh.coordinates), 1, held)

    @torch.no_grad()
    def tangent(self, u: Tensor, params: Params) -> Sparse:
        return SolidStates(self, params, {}).hessian(u)


class SolidStates(StateProblem):
    """A plane-strain `Solid` of `NeoHookean` material with mean dilatation, at its parameters.

    turns: the angles (radians) by which the held boundaries turn; the first field follows their harmonic interpolation.
    """

    outputs = ("stretch xx", "stretch yy", "stretch xy", "angle", "pressure")

    def __init__(self, solid: PlaneNeoHookean, params: dict[str, Any], turns: Mapping[str, float]) -> None:
        self.solid, self.params, self.turns = solid, params, turns
        mesh, geometry = solid.mesh, solid.geometry
        self.cells, self.geometry, self.incidence = mesh.cells, geometry, geometry.incidence
        self.matrix, self.weights, self.volume = geometry.matrix, geometry.weights, geometry.volume
        self.mu, self.lame = params["material"]["mu"].detach(), params["material"]["lame_lambda"].detach()
        held = torch.ones(mesh.coordinates.numel(), dtype=torch.float64)
        held[solid.constraints.free] = 0.0
        self._held = held.reshape(-1, 2)[:, 0][self.cells].mean(1)

    def begin(self, start: Tensor) -> State:
        turn = rotation(self._angles())[:, None].expand(*self.weights.shape, 2, 2)
        state = State(torch.zeros_like(start))
        state.counts.factorisations, state.counts.back_substitutions = 1, 1
        return self.linear(state, turn, -self.mu)

    def hessian(self, u: Tensor) -> Sparse:
        """The Hessian of the energy at u (n,)."""
        gradients = self.gradients(u)
        theta = self.mean(determinant(gradients))
        swelling = local_force(self.weights[..., None, None] * cofactor(gradients), self.matrix)
        pressure = (self.lame * theta.log() - self.mu) / theta
        return self._matrix(swelling, pressure, self._curvature(theta) / self.volume)

    def gradients(self, u: Tensor) -> Tensor:
        """F (E, Q, 2, 2)."""
        field = self.solid.expand(u, self.params)[self.cells]
        return local_state(field, self.matrix) + torch.eye(2, dtype=torch.float64)

    def mean(self, values: Tensor) -> Tensor:
        """Means over the points of each cell (E, ...) of values (E, Q, ...)."""
        return torch.einsum("eq,eq...->e...", self.geometry.share, values)

    def settled(self, state: State) -> bool:
        m: CellStates = state.memory
        det = determinant(m.gradients)
        if not bool((det > 0.0).all()):
            return False
        pressure = self.pressure(self.mean(det))[:, None, None, None]
        true = self.mu[:, None, None, None] * m.gradients + pressure * cofactor(m.gradients)
        return bool((true - m.stress).norm() <= SETTLED * true.norm())

    def features(self, state: State) -> Tensor:
        m: CellStates = state.memory
        mean = self.mean(m.gradients)
        back = rotation(-angle_of(mean))
        stretch = back @ mean
        log = _log(0.5 * (stretch + stretch.mT))
        det = determinant(m.gradients)
        true = self.mu[:, None, None] * mean + self.pressure(self.mean(det))[:, None, None] * cofactor(mean)
        defect = back @ (true - self.mean(m.stress)) / self.mu[:, None, None]
        pressure = m.pressure / self.mu + 1.0
        logarithm = self.mu.log() - self.mu.log().mean()
        spread = (m.gradients - mean[:, None]).square().sum((-2, -1)).mean(1).sqrt()
        columns = (
            *_entries(log),
            torch.tanh(self.mean(det) - 1.0),
            torch.tanh(det.amin(1) - 1.0),
            *(torch.asinh(x) / 2.0 for x in _all_entries(defect)),
            torch.asinh(pressure) / 2.0,
            torch.log1p(self.lame / self.mu) / 4.0,
            logarithm,
            logarithm - self.incidence.neighbourhood(logarithm),
            *_all_entries(back @ (self.incidence.neighbourhood(mean) - mean)),
            torch.tanh(spread),
            *_all_entries(back @ (self.mean(m.about) - mean)),
            self._held,
        )
        return torch.stack([column.clamp(-4.0, 4.0) for column in columns], 1)

    def solve(self, state: State, outputs: Tensor) -> State:
        return self.linear(state, *self.chosen(state, outputs))

    def chosen(self, state: State, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """F^ (E, Q, 2, 2) and p^ (E,) that outputs (E, 5) ask for."""
        m: CellStates = state.memory
        mean = self.mean(m.gradients)
        angle = angle_of(mean)
        stretch = rotation(-angle) @ mean
        log = _log(0.5 * (stretch + stretch.mT)) + _symmetric(outputs[:, :3])
        middle = rotation(angle + outputs[:, 3]) @ symmetric_function(log, torch.exp)
        apart = rotation(outputs[:, 3])[:, None] @ (m.gradients - mean[:, None])
        pressure = torch.sinh(torch.asinh(m.pressure / self.mu + 1.0) + outputs[:, 4]) - 1.0
        return bounded(middle[:, None] + apart, SMALLEST, LARGEST), self.mu * pressure

    def targets(self, state: State, solution: Tensor) -> Tensor:
        m: CellStates = state.memory
        now, then = self.mean(m.gradients), self.mean(self.gradients(solution))
        angle, aim = angle_of(now), angle_of(then)
        turned = torch.remainder(aim - angle + torch.pi, 2.0 * torch.pi) - torch.pi
        logs = []
        for gradient, by in ((now, angle), (then, aim)):
            stretch = rotation(-by) @ gradient
            logs.append(_log(0.5 * (stretch + stretch.mT)))
        pressure = self.pressure(self.mean(determinant(self.gradients(solution)))) / self.mu + 1.0
        change = torch.asinh(pressure) - torch.asinh(m.pressure / self.mu + 1.0)
        return torch.stack((*_entries(logs[1] - logs[0]), turned, change), 1)

    def pressure(self, dilatation: Tensor) -> Tensor:
        """U' (E,) with inverted cells cut to a dilatation of 0.1."""
        theta = dilatation.clamp(min=0.1)
        return (self.lame * theta.log() - self.mu) / theta

    def _curvature(self, theta: Tensor) -> Tensor:
        return (self.lame + self.mu - self.lame * theta.log()) / theta**2

    def _dilatation(self, pressure: Tensor) -> Tensor:
        """theta^ with U'(theta^) = p^, up to where U' is nearly largest; Newton's method on the concave U' from the left."""
        largest = LEAST_STIFF * (1.0 + self.mu / self.lame).exp()
        theta = torch.full_like(pressure, 0.3)
        for _ in range(12):
            step = (pressure - (self.lame * theta.log() - self.mu) / theta) / self._curvature(theta)
            theta = torch.minimum((theta + step).clamp(min=0.1), largest)
        return theta

    def linear(self, state: State, about: Tensor, pressure: Tensor) -> State:
        swelling = local_force(self.weights[..., None, None] * cofactor(about), self.matrix)
        theta = self._dilatation(pressure)
        stiffness = self._curvature(theta)
        field = self.gradients(state.u)
        linear = self.mean(determinant(about) + (cofactor(about) * (field - about)).sum((-2, -1)))
        new = pressure + stiffness * (linear - theta)
        stress = self._stress(field, about, pressure, new)
        force = local_force(self.weights[..., None, None] * stress, self.matrix)
        full = torch.zeros_like(self.solid.mesh.coordinates).index_add(0, self.cells.reshape(-1), force.flatten(0, 1))
        factor = factorise(self._matrix(swelling, pressure, stiffness / self.volume), on_fail="ignore")
        u = state.u - factor.solve(self.solid.constraints.reduce(full))
        state.counts.tangents += 1
        state.counts.factorisations += 1
        state.counts.back_substitutions += 1
        field = self.gradients(u)
        linear = self.mean(determinant(about) + (cofactor(about) * (field - about)).sum((-2, -1)))
        new = pressure + stiffness * (linear - theta)
        memory = CellStates(field, about, new, self._stress(field, about, pressure, new))
        return State(u, memory, state.counts)

    def _stress(self, field: Tensor, about: Tensor, pressure: Tensor, new: Tensor) -> Tensor:
        mu, old, now = (x[:, None, None, None] for x in (self.mu, pressure, new))
        return mu * field + old * cofactor(field - about) + now * cofactor(about)

    def _matrix(self, swelling: Tensor, pressure: Tensor, stiffness: Tensor) -> Sparse:
        """mu B^T B + p^ (the curvature of det) + U''/V s s^T."""
        scatter = self.solid.scatter
        scaled = stiffness[:, None, None] * swelling
        shear, turn = self.mu[:, None, None] * self.geometry.laplace, pressure[:, None, None] * self.geometry.turn
        planes = [
            scaled[:, :, i, None] * swelling[:, None, :, k] + (shear if i == k else turn) for i, k in scatter.planes
        ]
        sums = scatter.zeros(swelling)
        scatter.add(sums, torch.stack(planes))
        return Sparse(scatter.pattern, scatter.finish(sums), self.solid.structure)

    def _angles(self) -> Tensor:
        """The harmonic interpolation (E,) of the turns of the held boundaries, weighted by the stiffness."""
        energy = self.solid.turning(tuple(self.turns.items()))
        params = {"turn": {"mu": self.mu}}
        zero = energy.start()
        u = -factorise(energy.tangent(zero, params)).solve(energy.residual(zero, params))
        return energy.expand(u, params)[:, 0][self.cells].mean(1)


def _incidence(coordinates: Tensor, cells: Tensor, volume: Tensor) -> Incidence:
    """Cells and their nodes, with each corner's place in the cell in units of its size."""
    count, nodes = cells.shape
    corners = coordinates[cells]
    place = (corners - corners.mean(1, keepdim=True)) / volume.sqrt()[:, None, None]
    pairs = torch.stack((torch.arange(count).repeat_interleave(nodes), cells.reshape(-1)))
    return Incidence(count, len(coordinates), pairs, place.reshape(-1, 2))


def _log(stretch: Tensor) -> Tensor:
    return symmetric_function(stretch, lambda x: x.clamp(SMALLEST, LARGEST).log())


def _symmetric(entries: Tensor) -> Tensor:
    xx, yy, xy = entries.unbind(-1)
    return torch.stack((xx, xy, xy, yy), -1).reshape(*xx.shape, 2, 2)


def _entries(s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return s[..., 0, 0], s[..., 1, 1], s[..., 0, 1]


def _all_entries(a: Tensor) -> tuple[Tensor, ...]:
    return a.flatten(-2).unbind(-1)
