"""Solids as linear systems made from deformation gradients and pressures that cells choose by themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bilevel.linalg import factorise
from bilevel.problem import Params
from bilevel.report import Counts
from bilevel.solvers.cellwise.problem import Guess, GuessedProblem
from physics.discretisation.matrices import cofactor, determinant
from physics.solids.cellwise.body import BodyCells, LinearisedSolid
from physics.solids.cellwise.matrices import Matrices
from physics.solids.cellwise.plane_matrices import PlaneMatrices
from physics.solids.cellwise.space_matrices import SpaceMatrices

SMALLEST, LARGEST = 0.15, 6.0
"""Principal stretches of the states are cut to this range."""

NEAR = 0.02
"""Where the linear stresses err by less than this fraction, Newton's method needs no more help."""


@dataclass(frozen=True)
class SolidMemory:
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
    """What is known of how a body will move."""

    def first(self, cells: SolidCells) -> tuple[Tensor, Tensor, Counts]:
        """Gradients F^ (E, d, d) and pressures p^ (E,) to begin with, and what they cost."""


class SolidCells(GuessedProblem):
    """A body at its parameters, as linear systems.

    motion: what the first system is made about; without one, the states of the start, or linear elasticity. Outputs are changes of the logarithm of
    the stretch and a rotation, both in the frame that turns with the cell, and one of the pressure where the law has one.
    """

    def __init__(self, cells: BodyCells, params: Params, motion: Motion | None = None) -> None:
        self.cells, self.params, self.motion = cells, params, motion
        body, dim = cells.body, cells.geometry.dim
        self.matrices: Matrices = PlaneMatrices() if dim == 2 else SpaceMatrices()
        self.incidence = cells.geometry.incidence
        self.law = cells.law(params)
        self.mu, self._load = self.law.shear, cells.load(params)
        axes = "xyz"
        stretches = [f"stretch {axes[i]}{axes[k]}" for i, k in self.matrices.pairs]
        self.outputs = (*stretches, *self.matrices.turns, *(("pressure",) if self.law.has_pressure else ()))
        held = torch.ones(self._load.numel(), dtype=torch.float64)
        held[body.constraints.free] = 0.0
        self._held = held.reshape(-1, dim)[:, 0][cells.cells].mean(1)

    def begin(self, start: Tensor) -> Guess:
        if self.motion is None:
            # A start at rest says nothing of cells beside supports that have moved; they are taken at rest, too.
            zero = torch.zeros_like(self._load)
            gradients = self.gradients(start) if bool(start.any()) else self.cells.gradients_of(zero)
            pressure = self.pressure(self.cells.mean(determinant(gradients)))
            return self.linear(Guess(start), self.matrices.bounded(gradients, SMALLEST, LARGEST), pressure)
        about, pressure, counts = self.motion.first(self)
        points = self.cells.geometry.weights.shape[1]
        guess = Guess(torch.zeros_like(start), counts=counts)
        return self.linear(guess, about[:, None].expand(-1, points, -1, -1), pressure)

    def at_rest(self, start: Tensor) -> Guess:
        """Linear elasticity, with the boundary values of `start`."""
        zero = self.cells.gradients_of(torch.zeros_like(self._load))
        return self.linear(Guess(start), zero, self.law.at_rest[0])

    def about_field(self, u: Tensor) -> Guess:
        """The system about the gradients of a field that knows nothing of pressures.

        They are those of rest, lowered to what leaves no stress along the least of a cell's principal stretches if shear
        stresses grow with the stretch: in space a greater pressure than that makes cells bulge (mu a + p J / a = 0).
        """
        about = self.matrices.bounded(self.gradients(u), SMALLEST, LARGEST)
        mean = self.cells.mean(about)
        least = torch.linalg.eigvalsh(mean.mT @ mean)[:, 0]
        share = (least / determinant(mean)).clamp(0.0, 1.0)
        return self.linear(Guess(u), about, share * self.law.at_rest[0])

    def gap(self, guess: Guess) -> float:
        """How far the gradients of a system's solution are from those it was made about, relative to these."""
        m: SolidMemory = guess.memory
        return float((m.gradients - m.about).norm() / m.about.norm())

    def gradients(self, u: Tensor) -> Tensor:
        """F (E, Q, d, d)."""
        return self.cells.gradients(u, self.params)

    def near_solution(self, guess: Guess) -> bool:
        m: SolidMemory = guess.memory
        det = determinant(m.gradients)
        if not bool((det > 0.0).all()):
            return False
        pressure = self.pressure(self.cells.mean(det))[:, None, None, None]
        true = self.law.stress(m.gradients) + pressure * cofactor(m.gradients)
        return bool((true - m.stress).norm() <= NEAR * true.norm())

    def features(self, guess: Guess) -> Tensor:
        m: SolidMemory = guess.memory
        average, neighbourhood = self.cells.mean, self.incidence.neighbourhood
        polar = self._polar(m.gradients)
        mean, back = polar.mean, polar.rotation.mT
        det = determinant(m.gradients)
        true = self.law.stress(mean[:, None])[:, 0] + self.pressure(average(det))[:, None, None] * cofactor(mean)
        defect = back @ (true - average(m.stress)) / self.mu[:, None, None]
        logarithm = self.mu.log() - self.mu.log().mean()
        spread = (m.gradients - mean[:, None]).square().sum((-2, -1)).mean(1).sqrt()
        columns = (
            *self.matrices.entries(polar.logarithm),
            torch.tanh(average(det) - 1.0),
            torch.tanh(det.amin(1) - 1.0),
            *(torch.asinh(x) / 2.0 for x in _all_entries(defect)),
            self._compressed(m.pressure) / 2.0,
            torch.log1p(sum(self.law.at_rest) / self.mu) / 4.0,
            logarithm,
            logarithm - neighbourhood(logarithm),
            *_all_entries(back @ (neighbourhood(mean) - mean)),
            torch.tanh(spread),
            *_all_entries(back @ (average(m.about) - mean)),
            self._held,
        )
        return torch.stack([column.clamp(-4.0, 4.0) for column in columns], 1)

    def solve(self, guess: Guess, outputs: Tensor | None = None) -> Guess:
        if outputs is None:
            outputs = guess.u.new_zeros(len(self.mu), len(self.outputs))
        return self.linear(guess, *self.chosen(guess, outputs))

    def chosen(self, guess: Guess, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """F^ (E, Q, d, d) and p^ (E,) that outputs (E, K) ask for."""
        m: SolidMemory = guess.memory
        entries = len(self.matrices.pairs)
        polar = self._polar(m.gradients)
        turns = len(self.matrices.turns)
        rotation = polar.rotation @ self.matrices.rotation(outputs[:, entries : entries + turns])
        logarithm = polar.logarithm + self.matrices.symmetric(outputs[:, :entries])
        middle = rotation @ self.matrices.symmetric_function(logarithm, torch.exp)
        turned = rotation @ polar.rotation.mT
        apart = turned[:, None] @ (m.gradients - polar.mean[:, None])
        about = self.matrices.bounded(middle[:, None] + apart, SMALLEST, LARGEST)
        if not self.law.has_pressure:
            return about, m.pressure
        pressure = torch.sinh(self._compressed(m.pressure) + outputs[:, -1])
        return about, self.mu * pressure + self.law.at_rest[0]

    def targets(self, guess: Guess, solution: Tensor) -> Tensor:
        m: SolidMemory = guess.memory
        gradients = self.gradients(solution)
        now, then = self._polar(m.gradients), self._polar(gradients)
        turn = self.matrices.turn_of(now.rotation.mT @ then.rotation)
        stretch = torch.stack(self.matrices.entries(then.logarithm - now.logarithm), 1)
        if not self.law.has_pressure:
            return torch.cat((stretch, turn), 1)
        pressure = self.pressure(self.cells.mean(determinant(gradients)))
        change = self._compressed(pressure) - self._compressed(m.pressure)
        return torch.cat((stretch, turn, change[:, None]), 1)

    def pressure(self, theta: Tensor) -> Tensor:
        """U' (E,) with inverted cells cut to a dilatation of 0.1."""
        return self.law.pressure(theta.clamp(min=0.1))

    def linear(self, guess: Guess, about: Tensor, pressure: Tensor) -> Guess:
        """The solution of the linear system about F^ (E, Q, d, d) and p^ (E,)."""
        theta = self.law.dilatation(pressure)
        pressure, slope = self.law.pressure_and_slope(theta)
        system = LinearisedSolid(self.cells, self.law, about, pressure, slope, theta)
        residual = system.residual_in(self.gradients(guess.u), self._load)
        u = guess.u - factorise(system.matrix(), self.linear_solver, on_fail="ignore").solve(residual)
        guess.counts.tangents += 1
        guess.counts.factorisations += 1
        guess.counts.back_substitutions += 1
        field = self.gradients(u)
        memory = SolidMemory(field, about, system.pressure_in(field), system.stress_in(field))
        return Guess(u, memory, guess.counts)

    def _compressed(self, pressure: Tensor) -> Tensor:
        return torch.asinh((pressure - self.law.at_rest[0]) / self.mu)

    def _polar(self, gradients: Tensor) -> Polar:
        mean = self.cells.mean(gradients)
        rotation = self.matrices.nearest_rotation(mean)
        stretch = rotation.mT @ mean
        stretch = 0.5 * (stretch + stretch.mT)
        cut = self.matrices.symmetric_function(stretch, lambda x: x.clamp(SMALLEST, LARGEST).log())
        return Polar(mean, rotation, cut)


def _all_entries(a: Tensor) -> tuple[Tensor, ...]:
    return a.flatten(-2).unbind(-1)
