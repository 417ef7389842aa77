"""Rubber bars as linear systems made from deformation gradients and pressures that cells choose by themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from bilevel.acceleration.cellwise.problem import State, StateProblem
from bilevel.linalg import factorise
from physics.discretisation.matrices import cofactor, determinant
from physics.families.rubber import Dilatation, Linearised, Rubber

SMALLEST, LARGEST = 0.15, 6.0
"""Principal stretches of the states are cut to this range."""

NEAR = 0.02
"""Where the linear stresses err by less than this fraction, Newton's method needs no more help."""


@dataclass(frozen=True)
class CellStates:
    """How a field was found: its gradients F (E, Q, d, d), the F^ (E, Q, d, d), pressures p (E,) and stresses of its system."""

    gradients: Tensor
    about: Tensor
    pressure: Tensor
    stress: Tensor


@dataclass(frozen=True)
class Polar:
    """The mean gradients (E, d, d) of cells, their rotations R and the logarithms of their stretches, R^T F = U."""

    mean: Tensor
    rotation: Tensor
    logarithm: Tensor


class Motion(Protocol):
    """What the ends of a bar do to it."""

    def first(self, fractions: Tensor, dilatation: Dilatation) -> tuple[Tensor, Tensor]:
        """Gradients F^ (E, d, d) and pressures p^ (E,) to begin with, at fractions (E,) of the way to the right end."""


class SolidStates(StateProblem):
    """`Rubber` at its parameters, as linear systems.

    motion: what the first system is made about, on the way from the left end to the right in the harmonic sense. Outputs
    are changes of the logarithm of the stretch and a rotation, both in the frame that turns with the cell, and one of the
    pressure.
    """

    def __init__(self, solid: Rubber, params: dict[str, Any], motion: Motion) -> None:
        self.solid, self.params, self.motion = solid, params, motion
        self.matrices, self.incidence = solid.matrices, solid.geometry.incidence
        self.dilatation = Dilatation.of(params)
        self.mu = self.dilatation.mu
        axes = "xyz"
        stretches = [f"stretch {axes[i]}{axes[k]}" for i, k in self.matrices.pairs]
        self.outputs = (*stretches, *self.matrices.turns, "pressure")
        held = torch.ones(solid.mesh.coordinates.numel(), dtype=torch.float64)
        held[solid.constraints.free] = 0.0
        self._held = held.reshape(-1, solid.mesh.dim)[:, 0][solid.mesh.cells].mean(1)

    def begin(self, start: Tensor) -> State:
        about, pressure = self.motion.first(self._fractions(), self.dilatation)
        state = State(torch.zeros_like(start))
        state.counts.factorisations, state.counts.back_substitutions = 1, 1
        points = self.solid.geometry.weights.shape[1]
        return self.linear(state, about[:, None].expand(-1, points, -1, -1), pressure)

    def gradients(self, u: Tensor) -> Tensor:
        """F (E, Q, d, d)."""
        return self.solid.gradients(u, self.params)

    def near_solution(self, state: State) -> bool:
        m: CellStates = state.memory
        det = determinant(m.gradients)
        if not bool((det > 0.0).all()):
            return False
        pressure = self.pressure(self.solid.mean(det))[:, None, None, None]
        true = self.mu[:, None, None, None] * m.gradients + pressure * cofactor(m.gradients)
        return bool((true - m.stress).norm() <= NEAR * true.norm())

    def features(self, state: State) -> Tensor:
        m: CellStates = state.memory
        average, neighbourhood = self.solid.mean, self.incidence.neighbourhood
        polar = self._polar(m.gradients)
        mean, back = polar.mean, polar.rotation.mT
        det = determinant(m.gradients)
        true = self.mu[:, None, None] * mean + self.pressure(average(det))[:, None, None] * cofactor(mean)
        defect = back @ (true - average(m.stress)) / self.mu[:, None, None]
        logarithm = self.mu.log() - self.mu.log().mean()
        spread = (m.gradients - mean[:, None]).square().sum((-2, -1)).mean(1).sqrt()
        columns = (
            *self.matrices.entries(polar.logarithm),
            torch.tanh(average(det) - 1.0),
            torch.tanh(det.amin(1) - 1.0),
            *(torch.asinh(x) / 2.0 for x in _all_entries(defect)),
            self._compressed(m.pressure) / 2.0,
            torch.log1p(self.dilatation.lame / self.mu) / 4.0,
            logarithm,
            logarithm - neighbourhood(logarithm),
            *_all_entries(back @ (neighbourhood(mean) - mean)),
            torch.tanh(spread),
            *_all_entries(back @ (average(m.about) - mean)),
            self._held,
        )
        return torch.stack([column.clamp(-4.0, 4.0) for column in columns], 1)

    def solve(self, state: State, outputs: Tensor) -> State:
        return self.linear(state, *self.chosen(state, outputs))

    def chosen(self, state: State, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """F^ (E, Q, d, d) and p^ (E,) that outputs (E, K) ask for."""
        m: CellStates = state.memory
        entries = len(self.matrices.pairs)
        polar = self._polar(m.gradients)
        rotation = polar.rotation @ self.matrices.rotation(outputs[:, entries:-1])
        logarithm = polar.logarithm + self.matrices.symmetric(outputs[:, :entries])
        middle = rotation @ self.matrices.symmetric_function(logarithm, torch.exp)
        turned = rotation @ polar.rotation.mT
        apart = turned[:, None] @ (m.gradients - polar.mean[:, None])
        pressure = torch.sinh(self._compressed(m.pressure) + outputs[:, -1]) - 1.0
        return self.matrices.bounded(middle[:, None] + apart, SMALLEST, LARGEST), self.mu * pressure

    def targets(self, state: State, solution: Tensor) -> Tensor:
        m: CellStates = state.memory
        gradients = self.gradients(solution)
        now, then = self._polar(m.gradients), self._polar(gradients)
        turn = self.matrices.turn_of(now.rotation.mT @ then.rotation)
        pressure = self.pressure(self.solid.mean(determinant(gradients)))
        change = self._compressed(pressure) - self._compressed(m.pressure)
        stretch = self.matrices.entries(then.logarithm - now.logarithm)
        return torch.cat((torch.stack(stretch, 1), turn, change[:, None]), 1)

    def pressure(self, theta: Tensor) -> Tensor:
        """U' (E,) with inverted cells cut to a dilatation of 0.1."""
        return self.dilatation.pressure(theta.clamp(min=0.1))

    def linear(self, state: State, about: Tensor, pressure: Tensor) -> State:
        """The solution of the linear system about F^ (E, Q, d, d) and p^ (E,)."""
        system = Linearised(self.solid, self.dilatation, about, pressure, self.dilatation.at(pressure))
        residual = system.residual_in(self.gradients(state.u))
        u = state.u - factorise(system.matrix(), on_fail="ignore").solve(residual)
        state.counts.tangents += 1
        state.counts.factorisations += 1
        state.counts.back_substitutions += 1
        field = self.gradients(u)
        memory = CellStates(field, about, system.pressure_in(field), system.stress_in(field))
        return State(u, memory, state.counts)

    def _compressed(self, pressure: Tensor) -> Tensor:
        return torch.asinh(pressure / self.mu + 1.0)

    def _polar(self, gradients: Tensor) -> Polar:
        mean = self.solid.mean(gradients)
        rotation = self.matrices.nearest_rotation(mean)
        stretch = rotation.mT @ mean
        stretch = 0.5 * (stretch + stretch.mT)
        cut = self.matrices.symmetric_function(stretch, lambda x: x.clamp(SMALLEST, LARGEST).log())
        return Polar(mean, rotation, cut)

    def _fractions(self) -> Tensor:
        """The harmonic interpolation (E,) from 0 at the left end to 1 at the right, weighted by the stiffness."""
        energy, params = self.solid.harmonic, {"harmonic": {"mu": self.mu}}
        zero = energy.start()
        u = -factorise(energy.tangent(zero, params)).solve(energy.residual(zero, params))
        return energy.expand(u, params)[:, 0][self.solid.mesh.cells].mean(1)


def _all_entries(a: Tensor) -> tuple[Tensor, ...]:
    return a.flatten(-2).unbind(-1)
