"""Smoothed total variation as linear systems made from gradients and fluxes that cells choose by themselves.

E(u) = sum of a sqrt(|g|^2 + e^2) |cell| + 1/2 sum of m (u - d)^2. In units of e and a, flux w and gradient g obey w r = g
with r = sqrt(|g|^2 + 1). Newton's method on that equation (Chan, Golub & Mulet 1999, SIAM J. Sci. Comput. 20, 1964, with
the matrix made symmetric) takes for the flux of the next gradient G

    g / r + D (G - g),    D = (I - (w g' + g w') / 2r) / r

with g and w as the last linear system left them. A network says what they will be at the solution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bilevel.linalg import factorise
from bilevel.linalg.operator import Sparse
from bilevel.steps.states.problem import Incidence, State, StateProblem
from physics.local_energy import LocalEnergy
from physics.local_operator import local_force, local_state
from physics.mesh import Mesh

LARGEST_FLUX = 0.9999
"""Fluxes, as a fraction of what the total variation allows, are cut here."""

SETTLED = 1e-3
"""Where the fluxes of the gradients differ from those of the linear system by less than this fraction, Newton ends it."""


@dataclass(frozen=True, eq=False)
class Gradients:
    """The cells' gradients and fluxes (E, 2), in units of e and of a; the fluxes are those of a linear system."""

    primal: Tensor
    flux: Tensor


class VariationStates(StateProblem):
    """A denoising problem on a mesh of linear triangles; items are the cells, hubs the nodes."""

    outputs = ("gradient x", "gradient y", "flux x", "flux y")

    def __init__(self, problem: LocalEnergy, params: dict[str, Any], mesh: Mesh, coarse: float) -> None:
        self.problem, self.params, self.mesh, self.cells = problem, params, mesh, mesh.cells
        matrix, weights = problem.terms[0].operator.evaluate(None, slice(None))
        self.matrix, self.area = matrix[:, :, :1], weights.sum(1)  # gradients are the same at all points of a triangle
        self.weight, self.smoothing = params["variation"]["weight"], params["variation"]["smoothing"]
        self.mass, self.data = params["data"]["mass"], params["data"]["value"]
        self.coarse = coarse
        count, nodes = mesh.cells.shape
        corners = mesh.coordinates[mesh.cells]
        self.size = self.area.sqrt()
        self._sharpness = 0.25 * math.log(float(self.smoothing * self.area.mean() / self.weight))
        place = (corners - corners.mean(1, keepdim=True)) / self.size[:, None, None]
        pairs = torch.stack((torch.arange(count).repeat_interleave(nodes), mesh.cells.reshape(-1)))
        self.incidence = Incidence(count, len(mesh.coordinates), pairs, place.reshape(-1, 2))

    def begin(self, start: Tensor) -> State:
        """The start with the fluxes of the linear problem that it solves."""
        gradients = self._gradients(start)
        return State(start, Gradients(gradients, gradients / self.coarse))

    def first(self) -> State:
        """The solution of the quadratic problem whose gradients cost as much as those of size coarse * smoothing do."""
        zero = torch.zeros(len(self.data), dtype=torch.float64)
        slope = torch.eye(2, dtype=torch.float64).expand(len(self.cells), 2, 2) / self.coarse
        return self._linear(State(zero), slope, torch.zeros(len(self.cells), 2, dtype=torch.float64))

    def settled(self, state: State) -> bool:
        now: Gradients = state.memory
        true = _flux(now.primal)
        return bool((true - now.flux).norm() <= SETTLED * true.norm())

    def features(self, state: State) -> Tensor:
        now: Gradients = state.memory
        arc, flux = _arc(now.primal), _flux(now.primal)
        misfit = (state.u - self.data) * (self.size.mean() / self.weight)
        local = misfit[self.cells]
        contrast = torch.asinh(self.size * self.smoothing * self.size / self.weight * now.primal.norm(dim=1))
        columns = (
            *arc.unbind(1),
            *flux.unbind(1),
            *now.flux.clamp(-3.0, 3.0).unbind(1),
            arc.norm(dim=1),
            now.flux.norm(dim=1).clamp(max=3.0),
            *(self.incidence.neighbourhood(arc) - arc).unbind(1),
            *(self.incidence.neighbourhood(now.flux) - now.flux).clamp(-3.0, 3.0).unbind(1),
            torch.asinh(local.mean(1)),
            torch.asinh(local.std(1)),
            contrast,
            *_arc(self._gradients(self.data)).unbind(1),
            torch.full_like(contrast, self._sharpness),
        )
        return torch.stack([column.clamp(-12.0, 12.0) for column in columns], 1)

    def solve(self, state: State, outputs: Tensor) -> State:
        now: Gradients = state.memory
        about = _from_arc(_arc(now.primal) + outputs[:, :2])
        flux = _allowed(_allowed(now.flux) + outputs[:, 2:])
        root = (about.square().sum(1) + 1.0).sqrt()[:, None]
        crossed = flux[:, :, None] * (about / root)[:, None, :]
        slope = (torch.eye(2, dtype=about.dtype) - 0.5 * (crossed + crossed.mT)) / root[:, :, None]
        return self._linear(state, slope, about / root - torch.einsum("eij,ej->ei", slope, about))

    def targets(self, state: State, solution: Tensor) -> Tensor:
        now: Gradients = state.memory
        then = self._gradients(solution)
        return torch.cat((_arc(then) - _arc(now.primal), _flux(then) - _allowed(now.flux)), 1)

    def _gradients(self, u: Tensor) -> Tensor:
        return local_state(u[self.cells, None], self.matrix)[:, 0, 0] / self.smoothing

    def _linear(self, state: State, slope: Tensor, offset: Tensor) -> State:
        """The solution for fluxes slope g + offset (in units of e and a), and what it makes of gradients and fluxes."""
        scale = self.weight * self.area
        stiffness = (scale / self.smoothing)[:, None, None] * slope
        columns = self.matrix[:, :, 0]
        scatter = self.problem.scatter
        sums = scatter.zeros(slope)
        scatter.add(sums, (columns @ stiffness @ columns.mT)[None])
        scatter.add(sums, self.mass[None, :, None, None], group=1)
        matrix = Sparse(scatter.pattern, scatter.finish(sums), self.problem.structure)
        force = local_force((scale[:, None] * offset)[:, None, None, :], self.matrix)
        right = (self.mass * self.data).index_add(0, self.cells.reshape(-1), -force.reshape(-1))
        u = factorise(matrix).solve(right)
        state.counts.tangents += 1
        state.counts.factorisations += 1
        state.counts.back_substitutions += 1
        gradients = self._gradients(u)
        return State(u, Gradients(gradients, torch.einsum("eij,ej->ei", slope, gradients) + offset), state.counts)


def _flux(gradients: Tensor) -> Tensor:
    return gradients / (gradients.square().sum(1, keepdim=True) + 1.0).sqrt()


def _allowed(flux: Tensor) -> Tensor:
    return flux * (LARGEST_FLUX / flux.norm(dim=1, keepdim=True).clamp(min=LARGEST_FLUX))


def _arc(gradients: Tensor) -> Tensor:
    """asinh of the size, with the direction kept: the scale on which edges and plateaus are equally far from neutral."""
    size = gradients.norm(dim=1, keepdim=True)
    return gradients * (torch.asinh(size) / size.clamp(min=1e-12))


def _from_arc(arc: Tensor) -> Tensor:
    size = arc.norm(dim=1, keepdim=True).clamp(max=20.0)
    return arc * (torch.sinh(size) / arc.norm(dim=1, keepdim=True).clamp(min=1e-12))
